"""Mirrors and workspaces, on real repositories."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from protocol.repo import (
    CheckRepository,
    ReleaseWorkspace,
    RepositoryKnown,
    WorkspaceReleased,
)
from protocol.routes import Service
from services.bus import Refused
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.repos_house import add_commit, command_lines, git, git_server, make_origin, push_commit, world

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as started:
        yield started


async def test_a_base_resolves_to_its_commit_and_instructions(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    first = git(origin, "rev-parse", "main")
    work = tmp_path / "origin.git.work"
    git(work, "tag", "-a", "v1", "-m", "one")
    git(work, "push", "-q", str(origin), "v1")
    second = push_commit(origin, {"AGENTS.md": "", "CLAUDE.md": "Be brief.\n"}, branch="topic")
    async with world(house, tmp_path / "data") as at:
        default = await at.resolve(origin)
        assert (default.commit, default.instructions) == (first, "Run the tests.")
        for base in ("main", "origin/main", "refs/heads/main", "v1", "refs/tags/v1", first, first[:9]):
            assert (await at.resolve(origin, base)).commit == first, base
        topic = await at.resolve(origin, "topic")
        assert (topic.commit, topic.instructions) == (second, "Be brief.")


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("nothing", "no such branch"),
        ("deadbeef", "no such commit"),
        ("--upload-pack=touch /tmp/x", "an option"),
        ("HEAD~1", "an expression is not a name"),
        ("main:AGENTS.md", "not a commit"),
        ("../../etc/passwd", "a path"),
    ],
)
async def test_an_unknown_base_is_refused(house: NatsHouse, tmp_path: Path, base: str, why: str) -> None:
    origin = make_origin(tmp_path / "origin.git")
    async with world(house, tmp_path / "data") as at:
        with pytest.raises(Refused, match="no branch, tag or commit") as refused:
            await at.resolve(origin, base)
        assert refused.value.code == "not_found", why


async def test_an_empty_repository_is_refused(house: NatsHouse, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "--bare", "empty.git")
    async with world(house, tmp_path / "data") as at:
        with pytest.raises(Refused, match="is empty"):
            await at.resolve(tmp_path / "empty.git")


async def test_a_fresh_mirror_is_read_from_memory_and_a_new_branch_is_still_found(
    house: NatsHouse, tmp_path: Path
) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path) as server:
        async with world(house, tmp_path / "data", freshness_seconds=3600) as at:
            url = server.url(origin)
            first = await at.resolve(url)
            listed = server.listings
            push_commit(origin, {"a": "b"})
            assert await at.resolve(url) == first
            assert server.listings == listed
            new = push_commit(origin, {"a": "c"}, branch="new")
            assert (await at.resolve(url, "new")).commit == new


async def test_who_asks_at_one_time_shares_one_fetch(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path) as server:
        server.hold.clear()
        async with world(house, tmp_path / "data") as at, anyio.create_task_group() as group:
            commits = set()

            async def ask() -> None:
                commits.add((await at.resolve(server.url(origin))).commit)

            for _ in range(20):
                group.start_soon(ask)
            await asyncio.to_thread(server.held.wait)
            server.hold.set()
    assert len(commits) == 1
    # One listing, and the one with which the fetch begins.
    assert server.listings == 2


async def test_a_workspace_is_a_clone_that_borrows_from_the_mirror(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    async with world(house, tmp_path / "data") as at:
        commit = (await at.resolve(origin)).commit
        made = await at.prepare(origin, commit)
        workspace = Path(made.path)
        assert git(workspace, "rev-parse", "HEAD") == commit
        assert git(workspace, "symbolic-ref", "HEAD") == "refs/heads/errand/t1-work"
        assert git(workspace, "status", "--porcelain") == ""
        assert git(workspace, "rev-parse", "origin/main") == commit
        assert (workspace / "src/one.py").read_text() == "x = 1\n"
        (borrowed,) = made.readonly_paths
        assert (workspace / ".git/objects/info/alternates").read_text() == borrowed + "\n"
        assert Path(borrowed).is_relative_to(tmp_path / "data" / "mirrors")
        add_commit(workspace, {"src/two.py": "y = 2\n"})
        assert await at.prepare(origin, commit) == made
        assert git(workspace, "rev-parse", "HEAD^") == commit


async def test_a_shallow_repository_can_be_worked_on(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    push_commit(origin, {"a": "b"})
    git(tmp_path, "clone", "-q", "--bare", "--depth", "1", f"file://{origin}", "shallow.git")
    async with world(house, tmp_path / "data") as at:
        commit = (await at.resolve(tmp_path / "shallow.git")).commit
        workspace = Path((await at.prepare(tmp_path / "shallow.git", commit)).path)
        assert git(workspace, "log", "--format=%H") == commit


async def test_a_restart_goes_on_from_the_mirrors_that_are_there(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    with git_server(tmp_path) as server:
        url = server.url(origin)
        async with world(house, tmp_path / "data") as at:
            commit = (await at.resolve(url)).commit
        asked_before = server.listings
        async with world(house, tmp_path / "data") as at:
            await at.submit("owner", "t1", url)
            workspace = Path((await at.prepare(url, commit)).path)
            assert git(workspace, "rev-parse", "origin/main") == commit
            assert server.listings == asked_before
            assert (await at.resolve(url)).commit == commit
            # Nothing was new: one listing, no fetch.
            assert server.listings == asked_before + 1


async def test_a_newer_attempt_takes_away_the_older_workspace(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    async with world(house, tmp_path / "data") as at:
        commit = (await at.resolve(origin)).commit
        first = Path((await at.prepare(origin, commit, attempt=1)).path)
        await at.resolve(origin, task="t2")
        other = Path((await at.prepare(origin, commit, task="t2", attempt=1)).path)
        second = Path((await at.prepare(origin, commit, attempt=2)).path)
        assert (first.exists(), other.exists(), second.exists()) == (False, True, True)


async def test_whose_an_earlier_lifes_task_is_the_stream_says(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    async with world(house, tmp_path / "data") as at:
        commit = (await at.resolve(origin, task="another")).commit
        await at.submit("owner", "t1", origin)
        await at.submit("eve", "t2", origin)
        assert (await at.prepare(origin, commit, task="t1")).path
        for task, words in (("t2", "Only the owner"), ("t3", "no such task"), (">", "no such task")):
            with pytest.raises(Refused, match=words):
                await at.prepare(origin, commit, task=task)


async def test_workspaces_that_no_attempt_holds_are_swept_at_the_start(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    async with world(house, tmp_path / "data") as at:
        commit = (await at.resolve(origin)).commit
        workspace = Path((await at.prepare(origin, commit)).path)
    assert workspace.exists()
    async with world(house, tmp_path / "data"):
        assert not workspace.exists()


async def test_a_released_workspace_is_gone_when_that_is_answered(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    async with world(house, tmp_path / "data") as at:
        commit = (await at.resolve(origin)).commit
        workspace = Path((await at.prepare(origin, commit)).path)
        for _ in range(2):
            await at.runner.ask(Service.REPOS, ReleaseWorkspace(task="t1", attempt=1), WorkspaceReleased)
            assert not workspace.exists()


@pytest.mark.parametrize("task", ["../../etc", "a.b", "A", "", "t1/../.."])
async def test_a_workspace_has_no_other_name_than_an_id(house: NatsHouse, tmp_path: Path, task: str) -> None:
    async with world(house, tmp_path / "data") as at:
        with pytest.raises(Refused, match="not a task's id"):
            await at.runner.ask(Service.REPOS, ReleaseWorkspace(task=task, attempt=1), WorkspaceReleased)


async def test_what_the_agents_tree_configures_does_not_run_here(house: NatsHouse, tmp_path: Path) -> None:
    """A repository's own attributes, hooks and links must not run or write anything when a workspace is made of it."""
    marker = tmp_path / "ran"
    work = tmp_path / "origin.git.work"
    origin = make_origin(tmp_path / "origin.git", {".gitattributes": "* filter=evil\n", ".githooks/post-checkout": "x"})
    git(work, "config", "filter.evil.smudge", f"touch {marker}")
    git(origin, "config", "filter.evil.smudge", f"touch {marker}")
    git(origin, "config", "core.fsmonitor", f"touch {marker}")
    git(origin, "config", "core.sshCommand", f"touch {marker}")
    async with world(house, tmp_path / "data") as at:
        commit = (await at.resolve(origin)).commit
        await at.prepare(origin, commit)
    assert not marker.exists()


async def check(at, repository: str | Path, *, is_owner: bool) -> RepositoryKnown:
    asked = CheckRepository(user="u", repository=str(repository), is_owner=is_owner)
    return await at.gateway.ask(Service.REPOS, asked, RepositoryKnown)


async def test_a_repository_is_known_in_its_normal_form(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    (tmp_path / "link").symlink_to(origin)
    async with world(house, tmp_path / "data") as at:
        known = await check(at, f"{tmp_path}/./link/", is_owner=True)
        assert (known.repository, known.default_branch) == (str(origin), "main")
        await at.resolve(origin)
        assert await check(at, origin, is_owner=True) == known


async def test_repositories_that_cannot_be_used_are_refused(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    data = tmp_path / "data"
    (tmp_path / "folder").mkdir()
    with git_server(tmp_path) as server:
        async with world(house, data, internal_hosts=f"{server.host},127.0.0.1:1") as at:
            commit = (await at.resolve(origin)).commit
            workspace = (await at.prepare(origin, commit)).path
            for repository, is_owner, code, words in (
                (origin, False, "refused", "Only the owner"),
                (tmp_path / "folder", True, "not_found", "no git repository"),
                (tmp_path / "nowhere", True, "not_found", "no git repository"),
                (workspace, True, "refused", "own data folder"),
                (server.url(tmp_path / "nowhere"), False, "not_found", "was not found"),
                ("http://127.0.0.1:1/x/y", False, "unavailable", "cannot be reached"),
                ("http://name.invalid/x/y", True, "unavailable", "cannot be reached"),
                ("http://name.invalid/x/y", False, "refused", "has no public address"),
            ):
                with pytest.raises(Refused, match=words) as refused:
                    await check(at, repository, is_owner=is_owner)
                assert refused.value.code == code, repository


async def test_a_stop_ends_a_fetch_and_says_so(house: NatsHouse, tmp_path: Path) -> None:
    origin = make_origin(tmp_path / "origin.git")
    refusals: list[Refused] = []
    with git_server(tmp_path) as server:
        server.hold.clear()
        async with world(house, tmp_path / "data") as at:

            async def ask() -> None:
                with pytest.raises(Refused) as refused:
                    await at.resolve(server.url(origin))
                refusals.append(refused.value)

            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await asyncio.to_thread(server.held.wait)
                await at.service.drain()
    assert [refusal.code for refusal in refusals] == ["unavailable"]
    assert not [line for line in command_lines() if server.host in line]
