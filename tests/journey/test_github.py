"""From the button "sign in with GitHub" to the pull request's link, as a person goes; and where the tokens are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio.to_thread
import httpx2
import psutil
import pytest

from protocol.live import Cancel, Say
from protocol.task import OUTCOMES, TaskState
from tests.integration.github_house import CLIENT_SECRET, GithubServer, github_server, settings
from tests.integration.repos_house import command_lines, git
from tests.journey import stream
from tests.journey.house import House, Phone, assert_ended_once, errand_up, phone
from tests.journey.test_repair import branch_of, output

pytestmark = pytest.mark.anyio
TEN_MINUTES = 600


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GithubServer]:
    with github_server(tmp_path_factory.mktemp("github")) as server:
        server.account("alice", 1)
        server.account("olivia", 2)
        # So near their end that each piece of work needs newer ones.
        server.lifetime_seconds = TEN_MINUTES
        yield server


@pytest.fixture(scope="module")
def house(github: GithubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    told = settings(github, tmp_path_factory.mktemp("app"), ERRAND_GITHUB_USERS="alice", ERRAND_GITHUB_OWNER="olivia")
    with errand_up(tmp_path_factory.mktemp("house"), **told, ERRAND_LOG_LEVEL="debug") as house:
        github.redirect_uris = {f"{house.ready.server}/api/sign-in/github/callback"}
        yield house


async def sign_in(house: House, github: GithubServer, login: str) -> str:
    """As a browser does; returns the device's token."""
    github.browser = login
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as browser:
        left = await browser.get(f"{house.ready.server}/api/sign-in/github/start")
        returned = await browser.get(left.headers["location"])
        back = await browser.get(returned.headers["location"])
        assert back.status_code == 303, back.text
        code = back.headers["location"].removeprefix("/#code=")
        signed_in = await browser.post(
            f"{house.ready.server}/api/sign-in", json={"code": code, "device_name": "browser"}
        )
    return signed_in.json()["token"]


def errand(house: House, token: str, *arguments: str, typed: str = "") -> str:
    asked = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env={**os.environ, "ERRAND_SERVER": house.ready.server, "ERRAND_TOKEN": token},
        input=typed,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert asked.returncode == 0, f"errand {arguments[0]}: {asked.stderr}{asked.stdout[-800:]}"
    return asked.stdout


@pytest.mark.timeout(180)
async def test_a_user_signs_in_with_github_and_gets_a_pull_request(
    house: House, github: GithubServer, tmp_path: Path
) -> None:
    url = github.repository("alice/app", private=True, writers={"alice"})
    origin = github.repositories["alice/app"].path
    token = await sign_in(house, github, "alice")
    command = ("submit", "[scenario: tour] Look around.", "--repo", url, "--key", "one", "--watch")
    watched = await anyio.to_thread.run_sync(errand, house, token, *command)
    pull = github.pulls["alice/app"][0]
    assert f"{url}/pull/1" in watched, f"{watched}\n{house.logs()}"
    assert (pull["user"]["login"], pull["base"]["ref"], pull["draft"]) == ("alice", "main", False)
    assert "scripted model, not Claude" in pull["body"]

    async with phone(house, token) as alice:
        task = json.loads(errand(house, token, "ls", "--json"))["tasks"][0]["id"]
        await alice.watch(task)
        first = await alice.ended(task)
        assert first.state is TaskState.SUCCEEDED
        assert first.published is not None
        assert git(origin, "rev-parse", branch_of(first)) == first.published.commit
        await alice.command(Say(key="more", task=task, text="It should speak of tides."))
        await alice.until(lambda: alice.tasks[task].turn == 2 and alice.tasks[task].state in OUTCOMES)
        second = alice.tasks[task]
        assert second.state is TaskState.SUCCEEDED, f"{second.reason}\n{house.logs()}"
        assert second.published is not None
        assert second.published.pull_request == first.published.pull_request
        assert git(origin, "rev-parse", branch_of(first)) == second.published.commit
        await assert_the_sandbox_knows_nothing(house, github, alice, url)

    assert len(github.pulls["alice/app"]) == 1
    assert f"{url}/pull/1" in errand(house, token, "show", task)
    owner = house.token
    rows = json.loads(errand(house, owner, "sql", "--json", "select pull_request from tasks where pull_request <> ''"))
    assert rows["rows"] == [[f"{url}/pull/1"]]
    assert set(github.git_logins) == {"fetch alice", "push alice"}
    assert github.refreshes > 1
    assert_nowhere(house, github, [json.dumps(m.body) for m in await stream.raw_stream(house.data, task)])


async def assert_the_sandbox_knows_nothing(house: House, github: GithubServer, alice: Phone, url: str) -> None:
    """Looked at from outside while a command of the agent's runs, with all the rights that we have. Among what the
    runner started: a sandbox that waited for its task does not name it."""
    task = await alice.submit("[scenario: slow] 30 seconds", url, key="slow")
    await alice.until(lambda: "waiting" in output(alice, task))
    seen = inside_sandboxes(house)
    assert [text for text in seen if "sleep" in text], "the command itself is among them"
    seen += command_lines()
    for secret in github.secrets():
        assert not [text for text in seen if secret in text]
    await alice.command(Cancel(key="enough", task=task))
    await alice.ended(task)


def inside_sandboxes(house: House) -> list[str]:
    """Command and environment of every process of theirs."""
    started = psutil.Process(house.pid("runner")).children(recursive=True)
    seen: dict[int, str] = {}
    for sandbox in started:
        with suppress(psutil.NoSuchProcess):
            if "ERRAND_TASK" in sandbox.environ():
                for process in (sandbox, *sandbox.children(recursive=True)):
                    seen[process.pid] = f"{process.cmdline()} {process.environ()}"
    return list(seen.values())


def assert_nowhere(house: House, github: GithubServer, messages: list[str]) -> None:
    """Neither in the stream, nor in anything that the installation has on disk: logs, stores, history, workspaces."""
    assert messages
    assert "/nats/" in files_with("Look around.", house.data), "what is looked through is readable"
    for secret in github.secrets():
        assert not [message for message in messages if secret in message]
        found = files_with(secret, house.data)
        assert found == "", f"{'the secret' if secret == CLIENT_SECRET else secret[:4]} is in {found}"


def files_with(word: str, folder: Path) -> str:
    return subprocess.run(["grep", "-rlF", word, str(folder)], capture_output=True, text=True).stdout


def once(act: Callable[[], None]) -> Callable[[], None]:
    done: list[bool] = []

    def call() -> None:
        if not done:
            done.append(True)
            act()

    return call


@pytest.mark.timeout(180)
async def test_a_publisher_that_dies_at_the_pull_request_opens_no_second_one(
    house: House, github: GithubServer
) -> None:
    """Pushed, opened, and killed before it heard so: who takes over finds both."""
    url = github.repository("alice/killed", private=True, writers={"alice"})
    token = await sign_in(house, github, "alice")
    publisher = house.pid("repos")
    github.on_opened = once(lambda: house.kill("repos"))
    async with phone(house, token) as alice:
        task = await alice.submit("[scenario: tour] Look around.", url, key="killed")
        done = await alice.ended(task)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert_ended_once(alice, task)
    assert house.pid("repos") != publisher
    assert github.calls.count("POST /api/v3/repos/alice/killed/pulls") == 1
    assert done.published is not None
    assert done.published.pull_request is not None
    assert [pull["number"] for pull in github.pulls["alice/killed"]] == [done.published.pull_request.number]


@pytest.mark.timeout(180)
async def test_tokens_that_die_with_the_publisher_are_asked_for_again(house: House, github: GithubServer) -> None:
    """Killed after GitHub made newer ones and before it heard of them: nobody has them, and the user is told."""
    url = github.repository("alice/lost", private=True, writers={"alice"})
    token = await sign_in(house, github, "alice")
    github.on_refresh = once(lambda: house.kill("repos"))
    async with phone(house, token) as alice:
        task = await alice.submit("[scenario: tour] Look around.", url, key="lost")
        failed = await alice.ended(task)
        assert (failed.state, failed.published) == (TaskState.FAILED, None)
        assert "sign in with GitHub again" in failed.reason
        await sign_in(house, github, "alice")
        await alice.command(Say(key="again", task=task, text="Go on."))
        await alice.until(lambda: alice.tasks[task].turn == 2 and alice.tasks[task].state in OUTCOMES)
        assert alice.tasks[task].state is TaskState.SUCCEEDED, f"{alice.tasks[task].reason}\n{house.logs()}"
    assert len(github.pulls["alice/lost"]) == 1


async def test_doctor_names_the_callback_url_and_tries_the_app(house: House, github: GithubServer) -> None:
    token = await sign_in(house, github, "olivia")
    checks = json.loads(errand(house, token, "doctor", "--json"))["checks"]
    found = next(check for check in checks if check["name"] == "github")
    assert found["status"] == "ok"
    assert f"{house.ready.server}/api/sign-in/github/callback" in found["text"]
    assert "alice, olivia may sign in" in found["text"]
