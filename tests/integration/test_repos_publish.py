"""Work comes in as a bundle, is checked, and goes out as a branch: real git on both ends."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec import Struct

from protocol.repo import Diff, Publish, PublishDone, ShowDiff
from protocol.routes import Service
from services.bus import Refused
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.repos_house import World, add_commit, bundle, git, make_origin, push_commit, world

pytestmark = pytest.mark.anyio
BRANCH = "errand/t1-work"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as started:
        yield started


class Job(Struct):
    """A task at work in its workspace."""

    at: World
    origin: Path
    base: str
    workspace: Path

    def tree_commit(self, entries: str, parent: str = "") -> str:
        """A commit of a tree written by hand: `mktree` entries, which git itself would not make."""
        tree = git(self.workspace, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=_tree(entries))
        return git(self.workspace, "commit-tree", tree, "-p", parent or self.base, "-m", "hostile")

    def blob(self, text: str) -> str:
        return git(self.workspace, "hash-object", "-w", "--stdin", data=text.encode())

    async def publish(self, commit: str, data: bytes | None = None, *, branch: str = BRANCH) -> PublishDone:
        data = bundle(self.workspace, commit, self.base) if data is None else data
        await self.at.runner.put_blob("bundle", data)
        asked = Publish(
            task="t1",
            repository=str(self.origin),
            base_commit=self.base,
            commit=commit,
            blob="bundle",
            branch=branch,
            is_owner=True,
        )
        return await self.at.runner.ask(Service.REPOS, asked, PublishDone, timeout_seconds=30)


def _tree(entries: str) -> bytes:
    """`mode name id` lines as a tree object, unsorted and unchecked."""
    parts = (line.split(" ") for line in entries.splitlines())
    return b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(blob) for mode, name, blob in parts)


@asynccontextmanager
async def job(house: NatsHouse, tmp_path: Path, **settings: object) -> AsyncIterator[Job]:
    origin = make_origin(tmp_path / "origin.git")
    async with world(house, tmp_path / "data", **settings) as at:
        base = (await at.resolve(origin)).commit
        yield Job(at, origin, base, Path((await at.prepare(origin, base)).path))


async def test_work_is_pushed_as_a_branch_and_can_be_shown(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path) as at:
        commit = add_commit(at.workspace, {"src/one.py": "x = 2\ny = 3\n", "new.txt": "hello\n"})
        published = (await at.publish(commit)).published
        assert git(at.origin, "rev-parse", BRANCH) == commit
        assert git(at.origin, "rev-parse", "main") == at.base
        assert (published.branch, published.commit, published.base_commit) == (BRANCH, commit, at.base)
        assert published.pushed_to == str(at.origin)
        assert (published.files_changed, published.insertions, published.deletions) == (2, 3, 1)
        asked = ShowDiff(repository=str(at.origin), base_commit=at.base, commit=commit, task="t1", is_owner=True)
        shown = await at.at.gateway.ask(Service.REPOS, asked, Diff)
        assert not shown.cut
        assert "+y = 3" in shown.text
        assert "b/new.txt" in shown.text


async def test_the_same_work_is_published_once_however_often_it_is_asked_for(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path) as at:
        commit = add_commit(at.workspace, {"a": "1"})
        first = await at.publish(commit)
        assert await at.publish(commit) == first
        await at.at.runner.delete_blob("bundle")
        asked = Publish(
            task="t1",
            repository=str(at.origin),
            base_commit=at.base,
            commit=commit,
            blob="",
            branch=BRANCH,
            is_owner=True,
        )
        assert await at.at.runner.ask(Service.REPOS, asked, PublishDone) == first


async def test_published_work_of_many_tasks_lies_in_few_files_and_nothing_of_it_is_lost(
    house: NatsHouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.repos.publish.PACKS_LIMIT", 2)
    async with job(house, tmp_path) as at:
        commits = [add_commit(at.workspace, {"a": str(number)}) for number in range(4)]
        for commit in commits:
            await at.publish(commit)
        [home] = (at.at.data / "published").iterdir()
        await at.at.service._publisher.tidy()  # pyright: ignore[reportPrivateUsage]
        assert len(list((home / "objects/pack").glob("*.pack"))) == 1
        assert not list((home / "refs/errand").glob("*"))
        assert git(home, "rev-parse", "refs/errand/t1") == commits[-1]
        for commit in commits:
            asked = ShowDiff(repository=str(at.origin), base_commit=at.base, commit=commit, task="t1", is_owner=True)
            assert (await at.at.gateway.ask(Service.REPOS, asked, Diff)).text
        assert await at.publish(commits[-1])


async def test_the_next_turn_moves_the_branch_forward(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path) as at:
        await at.publish(add_commit(at.workspace, {"a": "1"}))
        second = add_commit(at.workspace, {"a": "2"})
        await at.publish(second)
        assert git(at.origin, "rev-parse", BRANCH) == second


async def test_a_branch_that_somebody_else_moved_is_not_overwritten(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path) as at:
        await at.publish(add_commit(at.workspace, {"a": "1"}))
        theirs = push_commit(at.origin, {"b": "theirs"}, branch="theirs")
        git(at.origin, "update-ref", f"refs/heads/{BRANCH}", theirs)
        with pytest.raises(Refused, match="not overwritten"):
            await at.publish(add_commit(at.workspace, {"a": "2"}))
        assert git(at.origin, "rev-parse", BRANCH) == theirs


async def test_without_push_the_branch_stays_in_a_clone_on_this_machine(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path, push=False) as at:
        commit = add_commit(at.workspace, {"a": "1"})
        published = (await at.publish(commit)).published
        clone = Path(published.pushed_to)
        assert clone.is_relative_to(tmp_path / "data" / "repositories")
        assert git(clone, "rev-parse", BRANCH) == commit
        assert git(clone, "rev-parse", "main") == at.base
        assert BRANCH not in git(at.origin, "branch", "--list")
        git(tmp_path, "clone", "-q", "-b", BRANCH, str(clone), "checked-out")


async def test_what_the_remote_says_against_a_push_reaches_the_user(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path) as at:
        hook = at.origin / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\necho 'no pushes on Fridays' >&2\nexit 1\n")
        hook.chmod(0o755)
        with pytest.raises(Refused, match="no pushes on Fridays"):
            await at.publish(add_commit(at.workspace, {"a": "1"}))


@pytest.mark.parametrize(
    "branch",
    [
        "main",
        "errand/",
        "errand/../main",
        "errand/A",
        "errand/a.lock",
        "errand/a..b",
        "-f",
        "errand/a:main",
        "errand/a b",
    ],
)
async def test_only_branches_of_our_own_are_pushed(house: NatsHouse, tmp_path: Path, branch: str) -> None:
    async with job(house, tmp_path) as at:
        with pytest.raises(Refused, match="Only branches"):
            await at.publish(add_commit(at.workspace, {"a": "1"}), branch=branch)


async def test_hostile_work_is_refused_and_leaves_nothing(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path, publish_limit_bytes=50_000, publish_limit_files=20) as at:
        good = add_commit(at.workspace, {"a": "1"})
        data = bundle(at.workspace, good, at.base)
        broken = data[:-40] + bytes(20) + data[-20:]
        blob, script = at.blob("x"), at.blob("touch /tmp/pwned")
        inner = git(at.workspace, "mktree", data=f"100755 blob {script}\tpost-checkout\n".encode())
        root = git(at.workspace, "commit-tree", f"{good}^{{tree}}", "-m", "an orphan")
        missing = "1" * 40
        random = "".join(f"{number * 7919 % 104729:x} {number * 104729 % 7919:x}\n" for number in range(20_000))
        cases: list[tuple[str, str, bytes | None]] = [
            ("own checks", at.tree_commit(f"40000 .git {inner}"), None),
            ("own checks", at.tree_commit(f"40000 .GIT {inner}"), None),
            ("own checks", at.tree_commit(f"40000 .. {inner}"), None),
            ("own checks", at.tree_commit(f"100644 a/../../b {blob}"), None),
            ("own checks", at.tree_commit(f"100644 /etc/passwd {blob}"), None),
            ("own checks", at.tree_commit(f"120000 .gitmodules {blob}"), None),
            ("symlinks that leave", at.tree_commit(f"120000 key {at.blob('/etc/shadow')}"), None),
            ("symlinks that leave", at.tree_commit(f"120000 key {at.blob('../secret')}"), None),
            ("symlinks that leave", at.tree_commit(f"120000 key {at.blob('.git/config')}"), None),
            ("own checks", good, broken),
            ("own checks", good, data[: len(data) // 2]),
            ("damaged", good, b""),
            ("damaged", good, b"# v2 git bundle\n\n"),
            ("damaged", good, b"# v3 git bundle\n@filter=blob:none\n" + data.partition(b"\n")[2]),
            ("damaged", good, b"\0" * 1000),
            ("does not have the commit", missing, data),
            ("does not descend", root, None),
            ("over the limit", add_commit(at.workspace, {"big": random}), None),
        ]
        for words, commit, given in cases:
            with pytest.raises(Refused, match=words) as refused:
                await at.publish(commit, given)
            assert refused.value.code == "refused", words
        git(at.workspace, "reset", "-q", "--hard", at.base)
        many = add_commit(at.workspace, {f"many/{number}": "" for number in range(21)})
        with pytest.raises(Refused, match="over 20 files"):
            await at.publish(many)
        assert git(at.origin, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
        assert list((tmp_path / "data" / "unfinished").iterdir()) == []
        packs = (tmp_path / "data" / "published").glob("*/objects/pack/*")
        assert list(packs) == []


async def test_an_object_that_is_missing_from_the_bundle_is_noticed(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path) as at:
        hole = at.tree_commit(f"100644 hole {'1' * 40}")
        tip = git(at.workspace, "commit-tree", f"{at.base}^{{tree}}", "-p", hole, "-m", "over a hole")
        pack = git_pack(at.workspace, [hole, tip, git(at.workspace, "rev-parse", f"{hole}^{{tree}}")])
        data = f"# v2 git bundle\n-{at.base}\n{tip} refs/errand/checkpoint\n\n".encode() + pack
        with pytest.raises(Refused, match="own checks"):
            await at.publish(tip, data)


async def test_what_a_host_runs_by_itself_is_pointed_out(house: NatsHouse, tmp_path: Path) -> None:
    async with job(house, tmp_path) as at:
        commit = add_commit(at.workspace, {".github/workflows/ci.yml": "on: push\n", ".gitmodules": "", "a": "b"})
        notices = (await at.publish(commit)).notices
        assert any(".github/workflows/ci.yml" in notice for notice in notices)
        assert any(".gitmodules" in notice for notice in notices)
        again = git(at.workspace, "commit-tree", f"{commit}^{{tree}}", "-p", commit, "-m", "same")
        assert (await at.publish(again)).notices == notices


def git_pack(folder: Path, objects: list[str]) -> bytes:
    listed = "".join(f"{name}\n" for name in objects).encode()
    return subprocess.run(
        ["git", "pack-objects", "--stdout", "-q"], cwd=folder, input=listed, capture_output=True, check=True
    ).stdout
