"""With a user's own GitHub account: fetch, push, tokens that are changed for newer ones, and pull requests."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from protocol.ids import token_hash
from protocol.repo import AskSealingKey, BaseResolved, Publish, PublishDone, PullRequestWish, ResolveBase, SealingKey
from protocol.routes import Service, Stream, user_decision_subject
from protocol.task import PullRequest
from protocol.user import (
    AnyUserEvent,
    GithubLinked,
    GithubTokensRotated,
    Role,
    UserAdded,
    UserDecision,
    decode_user_decision,
)
from services import envelope, nats_server
from services.bus import Refused, connect
from services.github import Tokens, bound_to
from services.repos.accounts import Pending
from services.scheduler.decide import Limits
from tests.integration.gateway_house import Scheduler
from tests.integration.github_house import (
    CLIENT_SECRET,
    Answer,
    GithubServer,
    Grant,
    config,
    github_server,
    settings,
)
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.repos_house import (
    Asker,
    World,
    add_commit,
    bundle,
    command_lines,
    git,
    push_commit,
    world,
)
from tests.integration.test_repos_private import files_with, keep_log

pytestmark = pytest.mark.anyio
WISH = PullRequestWish(title="Mend the parser", summary="It *works* now.", model="claude-x")
HOUR = 3600.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as started:
        yield started


@pytest.fixture
def github(tmp_path: Path) -> Iterator[GithubServer]:
    with github_server(tmp_path / "github") as server:
        server.account("alice", 1)
        server.account("bob", 2)
        yield server


class Place:
    """Repos with a GitHub: alice's and bob's tasks."""

    def __init__(self, at: World, github: GithubServer) -> None:
        self.at = at
        self.github = github

    async def link(self, user: str, grant: Grant, *, ends_in: float | None = None) -> str:
        """What the gateway and the scheduler do with a sign-in; return the envelope."""
        return await link(self.at, self.github, user, grant, ends_in=ends_in)

    async def resolve(self, url: str, user: str) -> str:
        asked = ResolveBase(task=f"t_{user}", repository=url, user=user)
        return (await self.at.runner.ask(Service.REPOS, asked, BaseResolved, timeout_seconds=30)).commit

    async def work(self, url: str, user: str, task: str, *, base: str = "") -> Publish:
        """A commit on a workspace of the user's task, ready to be published."""
        asked = ResolveBase(task=task, repository=url, user=user, base=base)
        commit = (await self.at.runner.ask(Service.REPOS, asked, BaseResolved, timeout_seconds=30)).commit
        workspace = Path((await self.at.prepare(url, commit, task=task)).path)
        return await self.more(workspace, commit, url, user, task)

    async def more(self, workspace: Path, base: str, url: str, user: str, task: str, **files: str) -> Publish:
        commit = add_commit(workspace, files or {"a": "1"})
        blob = f"bundle-{commit}"
        await self.at.runner.put_blob(blob, bundle(workspace, commit, base))
        return Publish(
            task=task,
            repository=url,
            base_commit=base,
            commit=commit,
            blob=blob,
            branch=f"errand/{task}-work",
            user=user,
            pull_request=WISH,
        )

    async def publish(self, asked: Publish, **changed: Any) -> PublishDone:
        asked = msgspec.structs.replace(asked, **changed)
        return await self.at.runner.ask(Service.REPOS, asked, PublishDone, timeout_seconds=30)

    def workspace(self, task: str) -> Path:
        return self.at.data / "workspaces" / f"{task}-1"


async def link(at: Asker, github: GithubServer, user: str, grant: Grant, *, ends_in: float | None = None) -> str:
    key = await at.gateway.ask(Service.REPOS, AskSealingKey(), SealingKey)
    seconds = grant.ends_at - time.time() if ends_in is None else ends_in
    ends_at = datetime.now(UTC) + timedelta(seconds=seconds) if grant.refresh else None
    text = msgspec.json.encode(Tokens(grant.access, grant.refresh, ends_at)).decode()
    sealed = envelope.seal(key.public_key, bound_to(github.host, user), text)
    login = grant.account.login
    event = GithubLinked(host=github.host, account=grant.account.id, login=login, listed=login, sealed=sealed)
    await decide(at, user, UserAdded(name=login, role=Role.USER), event)
    return sealed


async def decide(at: Asker, user: str, *events: AnyUserEvent) -> None:
    decision = UserDecision(at=datetime.now(UTC), events=events)
    await at._scheduler.publish(user_decision_subject(user, decision), decision)


@asynccontextmanager
async def place(house: NatsHouse, tmp_path: Path, github: GithubServer, **more: Any) -> AsyncIterator[Place]:
    async with world(house, tmp_path / "data", github=config(github, tmp_path), **more) as at:
        yield Place(at, github)


async def test_a_users_task_reads_and_pushes_with_the_users_own_account(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """Also where the owner shares a credential for the host."""
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.at.add_host(github.host, github.grant(github.accounts["bob"]).access, shared=True)
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        done = await at.publish(await at.work(url, "u_alice", "t1"))
        assert done.published.pushed_to == url
        assert done.published.pull_request == PullRequest(number=1, url=f"{url}/pull/1")
        assert done.notices == ()
        pull = github.pulls["alice/app"][0]
    assert set(github.git_logins) == {"fetch alice", "push alice"}
    assert (pull["user"]["login"], pull["title"], pull["draft"]) == ("alice", "Mend the parser", False)
    assert (pull["head"]["ref"], pull["base"]["ref"]) == ("errand/t1-work", "main")
    assert "It *works* now." in pull["body"]
    assert "claude-x" in pull["body"]
    assert not [secret for secret in github.secrets() if secret != CLIENT_SECRET and files_with(secret, tmp_path)]


async def test_what_one_account_reads_is_not_there_for_another_user(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """Also while the first one's copy is fresh, and for a user who has not signed in with GitHub."""
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        await at.link("u_bob", github.grant(github.accounts["bob"]))
        commit = await at.resolve(url, "u_alice")
        for user, words in (("u_bob", "was not found"), ("u_carol", "no such public repository")):
            with pytest.raises(Refused, match=words):
                await at.resolve(url, user)
            await at.at.submit(user, f"t_{user}", url)
            with pytest.raises(Refused, match=words):
                await at.at.prepare(url, commit, task=f"t_{user}")
    assert set(github.git_logins) == {"fetch alice"}


async def test_an_envelope_from_another_users_log_is_not_opened(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with place(house, tmp_path, github) as at:
        sealed = await at.link("u_alice", github.grant(github.accounts["alice"]))
        stolen = GithubTokensRotated(sealed=sealed)
        await at.link("u_bob", github.grant(github.accounts["bob"]))
        await decide(at.at, "u_bob", stolen)
        with pytest.raises(Refused, match="cannot be opened"):
            await at.resolve(url, "u_bob")


async def test_who_may_not_push_is_told_what_to_do(house: NatsHouse, github: GithubServer, tmp_path: Path) -> None:
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_bob", github.grant(github.accounts["bob"]))
        with pytest.raises(Refused, match=r"does not let your account.*fork"):
            await at.publish(await at.work(url, "u_bob", "t1"))
        assert github.pulls["alice/app"] == []


# Tokens that end


async def test_tokens_are_changed_once_however_many_ask_and_stored_before_they_are_used(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    names = [f"alice/app{number}" for number in range(5)]
    urls = [github.repository(name, private=True, writers={"alice"}) for name in names]
    stored: list[str] = []
    async with Scheduler.running(house) as scheduler, place(house, tmp_path, github) as at:
        sealed = await at.link("u_alice", github.grant(github.accounts["alice"]), ends_in=60)
        github.on_refresh = lambda: stored.append(f"refreshed after {len(github.git_logins)} requests")
        async with anyio.create_task_group() as group:
            for url in urls:
                group.start_soon(at.resolve, url, "u_alice")
        events = [
            event
            for message in await scheduler.bus.replay("evt.u_alice.user.>")
            for event in decode_user_decision(message.data).events
        ]
    assert github.refreshes == 1
    assert stored == ["refreshed after 0 requests"]
    assert [type(event) for event in events] == [UserAdded, GithubLinked, GithubTokensRotated]
    assert events[2].sealed != sealed
    assert not list((tmp_path / "data" / "secrets").glob("github-*"))


async def test_a_token_is_not_changed_under_somebody_who_works_with_it(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """Ten minutes before its end there is time; two minutes before it there is none left."""
    slow = github.repository("alice/slow", private=True, writers={"alice"})
    other = github.repository("alice/other", private=True, writers={"alice"})
    async with Scheduler.running(house), place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]), ends_in=HOUR)
        github.hold.clear()
        async with anyio.create_task_group() as group:
            group.start_soon(at.resolve, slow, "u_alice")
            await asyncio.to_thread(github.held.wait)
            await at.link("u_alice", github.grants[-1], ends_in=600)
            group.start_soon(at.resolve, other, "u_alice")
            while len(github.git_logins) < 2:
                await asyncio.to_thread(github.held.wait)
                await anyio.lowlevel.checkpoint()
            assert github.refreshes == 0
            github.hold.set()
        third = github.repository("alice/third", private=True, writers={"alice"})
        await at.resolve(third, "u_alice")
    assert github.refreshes == 1


async def test_what_was_changed_just_before_a_crash_is_not_lost(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """The process died with the newer tokens on disk and not in the log: the next one stores them, and goes on."""
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with Scheduler.running(house), place(house, tmp_path, github) as at:
        old = github.grant(github.accounts["alice"])
        sealed = await at.link("u_alice", old, ends_in=60)
        # Nobody decides: the change is made and does not get into the log.
        old.dead, newer = True, github.grant(github.accounts["alice"])
        key = await at.at.gateway.ask(Service.REPOS, AskSealingKey(), SealingKey)
        text = msgspec.json.encode(Tokens(newer.access, newer.refresh)).decode()
        pending = Pending(token_hash(sealed), envelope.seal(key.public_key, bound_to(github.host, "u_alice"), text))
        left = tmp_path / "data" / "secrets" / "github-u_alice.sealed"
        left.write_bytes(msgspec.json.encode(pending))
        assert await at.resolve(url, "u_alice")
        assert not left.exists()
    assert github.refreshes == 0


async def test_what_github_answers_while_the_service_stops_is_kept(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", private=True, writers={"alice"})
    asked, may_answer = threading.Event(), threading.Event()

    def hold() -> None:
        asked.set()
        may_answer.wait(20)

    async with place(house, tmp_path, github) as at, anyio.create_task_group() as group:
        await at.link("u_alice", github.grant(github.accounts["alice"]), ends_in=60)
        github.on_refresh = hold
        group.start_soon(come_back_later, at, url)
        await asyncio.to_thread(asked.wait)
        at.at.service._cache.stop()  # as `drain` does
        may_answer.set()
    assert (tmp_path / "data" / "secrets" / "github-u_alice.sealed").exists()
    assert github.refreshes == 1


async def come_back_later(at: Place, url: str) -> None:
    with pytest.raises(Refused, match="being stopped"):
        await at.resolve(url, "u_alice")


async def test_while_the_log_takes_nothing_newer_tokens_wait_on_disk(
    house: NatsHouse, github: GithubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.repos.accounts.RECEIPT_SECONDS", 0.3)
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]), ends_in=60)
        for _ in range(2):
            with pytest.raises(Refused, match="did not store new GitHub tokens") as refused:
                await at.resolve(url, "u_alice")
            assert refused.value.code == "unavailable"
        assert github.git_logins == []
        async with Scheduler.running(house) as scheduler:
            # As the real one does, it takes the command that came while it was away.
            commands = await scheduler.bus.replay("cmd.u_alice.user.rotate_github_tokens")
            actor = await scheduler.actor("u_alice", "user")
            entry = actor.answer(commands[-1], commands[-1].at, Limits())
            assert entry is not None
            await scheduler._commit(actor, entry.subject, entry.message)
            assert await at.resolve(url, "u_alice")
    assert github.refreshes == 1


async def test_a_sign_in_that_was_taken_back_is_explained(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """Both when its end is known here, and when only GitHub knows."""
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with Scheduler.running(house), place(house, tmp_path, github, freshness_seconds=0.0) as at:
        grant = github.grant(github.accounts["alice"])
        await at.link("u_alice", grant, ends_in=60)
        grant.dead = True
        with pytest.raises(Refused, match="sign in with GitHub again"):
            await at.resolve(url, "u_alice")
        await at.link("u_alice", grant, ends_in=HOUR)
        with pytest.raises(Refused, match="sign in with GitHub again"):
            await at.resolve(url, "u_alice")
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        assert await at.resolve(url, "u_alice")


async def test_an_oauth_apps_tokens_do_not_end(house: NatsHouse, github: GithubServer, tmp_path: Path) -> None:
    github.tokens_end = False
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        assert await at.resolve(url, "u_alice")
    assert github.refreshes == 0


async def test_github_being_away_when_tokens_end_is_a_passing_fault(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", private=True, writers={"alice"})
    async with Scheduler.running(house), place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]), ends_in=60)
        github.faults.append(Answer("/login/oauth/access_token", 502))
        with pytest.raises(Refused, match="cannot be reached") as refused:
            await at.resolve(url, "u_alice")
        assert refused.value.code == "unavailable"
        assert await at.resolve(url, "u_alice")


# Pull requests


async def test_a_later_turn_brings_the_pull_request_up_to_date(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github, public_url="https://errand.example.org/") as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        first = await at.work(url, "u_alice", "t1")
        before = await at.publish(first)
        pull = github.pulls["alice/app"][0]
        assert "https://errand.example.org/#/task/t1" in pull["body"]
        pull["title"], pull["body"] = "My own title", f"A word before.\n\n{pull['body']}\n\nCloses #5"
        second = await at.more(at.workspace("t1"), first.base_commit, url, "u_alice", "t1", b="2")
        wish = PullRequestWish(title="Also the docs", summary="Documented.", scripted=True)
        after = await at.publish(second, pull_request=wish)
    assert after.published.pull_request == before.published.pull_request
    assert len(github.pulls["alice/app"]) == 1
    assert pull["title"] == "My own title"
    assert pull["body"].startswith("A word before.")
    assert pull["body"].endswith("Closes #5")
    assert "Documented." in pull["body"]
    assert "It *works* now." not in pull["body"]
    assert "scripted model, not Claude" in pull["body"]


async def test_unfinished_work_is_a_draft_until_a_turn_finishes_it(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        first = await at.work(url, "u_alice", "t1")
        wish = PullRequestWish(title="Unfinished: Mend it", summary="Out of budget.", unfinished=True)
        done = await at.publish(first, pull_request=wish)
        pull = github.pulls["alice/app"][0]
        assert done.published.pull_request == PullRequest(number=1, url=f"{url}/pull/1", draft=True)
        assert (pull["title"], pull["draft"]) == ("Unfinished: Mend it", True)
        second = await at.more(at.workspace("t1"), first.base_commit, url, "u_alice", "t1", b="2")
        done = await at.publish(second)
        assert done.published.pull_request == PullRequest(number=1, url=f"{url}/pull/1")
        assert (pull["title"], pull["draft"]) == ("Mend the parser", False)


async def test_a_repository_without_drafts_gets_an_ordinary_one(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", writers={"alice"}, drafts_allowed=False)
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        wish = PullRequestWish(title="Mend it", summary="Out of budget.", unfinished=True)
        done = await at.publish(await at.work(url, "u_alice", "t1"), pull_request=wish)
    assert done.published.pull_request == PullRequest(number=1, url=f"{url}/pull/1")
    assert github.pulls["alice/app"][0]["title"] == "Unfinished: Mend it"


async def test_after_a_crash_between_push_and_answer_the_same_one_is_found(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """Asked again, also by two at once."""
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        asked = await at.work(url, "u_alice", "t1")
        await at.publish(asked, pull_request=None)
        assert github.pulls["alice/app"] == []
        found: list[PublishDone] = []

        async def again() -> None:
            found.append(await at.publish(asked))

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(again)
    assert len(github.pulls["alice/app"]) == 1
    assert {done.published.pull_request.number for done in found if done.published.pull_request} == {1}


async def test_a_base_branch_is_kept_and_anything_else_means_the_default(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    origin = github.repositories["alice/app"].path
    commit = push_commit(origin, {"old": "1"}, branch="release/1.0")
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        for number, (base, expected) in enumerate(
            (("release/1.0", "release/1.0"), ("origin/release/1.0", "release/1.0"), (commit, "main"), ("", "main"))
        ):
            asked = await at.work(url, "u_alice", f"t{number}", base=base)
            await at.publish(asked, pull_request=msgspec.structs.replace(WISH, base=base))
            assert github.pulls["alice/app"][-1]["base"]["ref"] == expected


async def test_a_closed_one_stays_closed_and_after_a_merged_one_comes_another(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        first = await at.work(url, "u_alice", "t1")
        await at.publish(first)
        pull = github.pulls["alice/app"][0]
        pull["state"] = "closed"
        second = await at.more(at.workspace("t1"), first.base_commit, url, "u_alice", "t1", b="2")
        done = await at.publish(second)
        assert "is closed" in done.notices[0]
        assert done.published.pull_request == PullRequest(number=1, url=f"{url}/pull/1")
        pull["merged_at"] = "2026-01-01T00:00:00Z"
        done = await at.publish(second)
        assert done.published.pull_request == PullRequest(number=2, url=f"{url}/pull/2")


LIMITED = {"x-ratelimit-limit": "5000", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1893492000"}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (
            Answer("/pulls", 403, {"message": "API rate limit exceeded for user"}, LIMITED),
            "no more requests.*10:00 UTC",
        ),
        (Answer("/pulls", 403, {"message": "You have exceeded a secondary rate limit"}, {"retry-after": "60"}), "UTC"),
        (Answer("/pulls", 429, {"message": "Too many"}, {"retry-after": "60"}), "no more requests"),
        (Answer("/pulls", 401, {"message": "Bad credentials"}), "sign in with GitHub again"),
        (Answer("/pulls", 404, {"message": "Not Found"}), "install the GitHub App"),
        (Answer("/pulls", 301, {"message": "Moved Permanently"}), "was moved"),
        (Answer("/pulls", 410, {"message": "Gone for good"}), "GitHub says: Gone for good"),
        (Answer("/pulls", 200, {"neither": "a list"}), "the log of repos says why"),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Answer) else "",
)
async def test_what_goes_wrong_with_a_pull_request_is_said_and_the_push_stands(
    house: NatsHouse, github: GithubServer, tmp_path: Path, fault: Answer, words: str
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        asked = await at.work(url, "u_alice", "t1")
        github.faults.append(Answer(fault.path, fault.status, fault.body, fault.headers))
        done = await at.publish(asked)
        await must_stand(at, done, words)
        # What passed is mended by asking once more.
        assert (await at.publish(asked)).published.pull_request is not None


async def must_stand(at: Place, done: PublishDone, words: str) -> None:
    assert done.published.pull_request is None
    assert len(done.notices) == 1
    assert re.search(f"is pushed, but there is no pull request for it: .*{words}", done.notices[0]), done.notices
    origin = at.github.repositories["alice/app"].path
    assert git(origin, "rev-parse", done.published.branch) == done.published.commit


async def test_a_github_that_stumbles_for_a_moment_is_asked_again(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        asked = await at.work(url, "u_alice", "t1")
        github.faults += [Answer("/pulls", 502), Answer("/pulls", 503)]
        assert (await at.publish(asked)).published.pull_request is not None


@pytest.mark.parametrize(
    ("rights", "words"),
    [
        ({"pull_requests_allowed": False}, "Pull requests: read and write"),
        ({"archived_later": True}, "archived"),
        ({"merged_later": True}, "the base branch has the work already"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_repository_that_takes_none_is_explained(
    house: NatsHouse, github: GithubServer, tmp_path: Path, rights: dict[str, bool], words: str
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    repository = github.repositories["alice/app"]
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        asked = await at.work(url, "u_alice", "t1")
        await at.publish(asked, pull_request=None)
        if "merged_later" in rights:
            git(repository.path, "update-ref", "refs/heads/main", asked.commit)
        repository.pull_requests_allowed = rights.get("pull_requests_allowed", True)
        if "archived_later" in rights:
            github.faults.append(Answer("/pulls?", 200, [], {}))  # type: ignore[arg-type]
            github.faults.append(Answer("/pulls", 403, {"message": "Repository was archived so is read-only."}))
        await must_stand(at, await at.publish(asked), words)


async def test_the_owners_token_for_the_host_opens_one_too(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """Without any sign-in with GitHub being set up; and none is opened where no token is there."""
    url = github.repository("alice/app", writers={"alice"})
    plain = msgspec.structs.replace(config(github, tmp_path), github_client_id="", github_client_secret_file="")
    async with world(house, tmp_path / "data", github=plain, internal_hosts=github.host) as world_:
        at = Place(world_, github)
        await world_.add_host(github.host, github.grant(github.accounts["alice"]).access, shared=True)
        done = await at.publish(await at.work(url, "u_carol", "t1"))
        assert done.published.pull_request is not None


async def test_a_task_that_wants_none_and_a_server_that_pushes_nothing_open_none(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", writers={"alice"})
    async with place(house, tmp_path, github) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        assert (await at.publish(await at.work(url, "u_alice", "t1"), pull_request=None)).published.pull_request is None
    async with place(house, tmp_path / "local", github, push=False) as at:
        await at.link("u_alice", github.grant(github.accounts["alice"]))
        assert (await at.publish(await at.work(url, "u_alice", "t2"))).notices == ()
    assert not [call for call in github.calls if "/pulls" in call]


async def test_the_tokens_are_in_no_command_line_and_no_log_line(
    house: NatsHouse, github: GithubServer, tmp_path: Path
) -> None:
    """The service as its own process, looked at while git talks to GitHub."""
    url = github.repository("alice/app", private=True, writers={"alice"})
    data = tmp_path / "data"
    data.mkdir()
    environment = {
        **os.environ,
        **settings(github, tmp_path),
        "ERRAND_DATA": str(data),
        "ERRAND_NATS_URL": house.url,
        "ERRAND_NATS_PASSWORD_FILE": str(nats_server.password_file(house.data, Service.REPOS)),
        "ERRAND_LOG_LEVEL": "debug",
    }
    logged: list[str] = []
    started = anyio.Event()
    github.hold.clear()
    async with (
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as scheduler_bus,
        connect(house.bus_config(Service.RUNNER), Service.RUNNER) as runner,
        connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
        anyio.create_task_group() as group,
    ):
        await scheduler_bus.make_streams()
        await scheduler_bus.purge(Stream.TASKS, "evt.>")
        async with (
            Scheduler.running(house),
            await anyio.open_process([sys.executable, "-m", "services.repos"], env=environment) as process,
        ):
            group.start_soon(keep_log, process, logged, started)
            await started.wait()
            asker = Asker(data, runner, gateway, scheduler_bus)
            at = Place(asker, github)  # type: ignore[arg-type]
            await link(asker, github, "u_alice", github.grant(github.accounts["alice"]), ends_in=60)
            async with anyio.create_task_group() as asking:
                asking.start_soon(at.resolve, url, "u_alice")
                await asyncio.to_thread(github.held.wait)
                seen = command_lines()
                github.hold.set()
            done = await at.publish(await at.work(url, "u_alice", "t1"))
            assert done.published.pull_request is not None
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    log = "".join(logged)
    assert github.refreshes == 1
    assert "github_tokens_changed" in log
    assert any("ls-remote" in line and github.host in line for line in seen)
    for secret in github.secrets():
        assert not [line for line in seen if secret in line]
        assert secret not in log
        assert secret == CLIENT_SECRET or not files_with(secret, tmp_path)
