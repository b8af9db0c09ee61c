"""`docker compose up` from the checkout: a task from submit to a pushed branch, what its sandbox has and reaches, each
container killed under one, and nothing left after `down`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio
import httpx2
import pytest

from protocol.task import TaskState
from tests.integration.repos_house import GitServer, git, git_server, make_origin
from tests.journey.compose_house import ComposeHouse, compose_up
from tests.journey.house import assert_ended_once, assert_no_gap, phone
from tests.journey.test_kills import assert_parked_first, open_tool_call

# The first test builds the image.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]
TOKEN = "ghp_s3cretT0kenThatMustNotBeSeen"
GIVEN = "s3cretOfAGitHubAppThatMustNotBeSeen"
SERVICES = {"nats", "gateway", "scheduler", "runner", "model", "repos", "history"}
OPEN = "open.example.com"
"""Stands at a public address, or the proxy would refuse it; that network is this machine's own."""
OPEN_NETWORK = "11.113.0.0/28"
PROBE = """
import json, os, urllib.request
def reach(host):
    try:
        return urllib.request.urlopen(f"http://{host}:8000/", timeout=20).status
    except OSError as error:
        return str(error)
disk = os.statvfs("/workspace")
said = {host: reach(host) for host in ("open.example.com", "shut.example.com", "gateway")}
print(json.dumps({**said, "mib": disk.f_blocks * disk.f_frsize >> 20}))
"""
AGAIN_SECONDS = 60.0
"""For the rest of a task whose container was killed; the engine is in no hurry."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeHouse]:
    settings = {
        "ERRAND_SANDBOX_EGRESS": f"{OPEN}:8000",
        "ERRAND_SANDBOX_DISK_MIB": "256",
        "ERRAND_SANDBOX_LEASE_SECONDS": "30",
    }
    with compose_up(tmp_path_factory.mktemp("compose"), **settings) as house:
        yield house


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_origin(tmp_path_factory.mktemp("git") / "greeter.git", {"probe.py": PROBE})


@pytest.fixture(scope="module")
def server(house: ComposeHouse, origin: Path) -> Iterator[GitServer]:
    with git_server(origin.parent, TOKEN, house.gateway_address()) as server:
        yield server


@pytest.fixture(scope="module")
def repository(house: ComposeHouse, origin: Path, server: GitServer) -> str:
    """A private one, whose host's credential the owner has given."""
    house.errand("host", "add", server.host, stdin=TOKEN)
    return server.url(origin)


def test_a_task_goes_from_submit_to_a_pushed_branch(house: ComposeHouse, origin: Path, repository: str) -> None:
    said = house.errand("submit", "[scenario: steps] 3 steps", "--repo", repository, "--watch")
    assert "succeeded" in said
    [branch] = branches(origin)
    assert git(origin, "show", f"{branch}:steps.txt").split() == ["1", "2", "3"]


async def test_a_task_reaches_the_host_that_is_open_alone_and_its_workspace_is_a_disk_of_its_own(
    house: ComposeHouse, repository: str
) -> None:
    async with phone(house) as owner:
        with house.host(OPEN, OPEN_NETWORK, "python3", "-m", "http.server", "8000"):
            task = await owner.submit("[scenario: program] run=probe.py", repository, key="probe")
            done = await owner.ended(task)
    said = json.loads(done.summary.splitlines()[0])
    assert said[OPEN] == 200
    assert "403" in said["shut.example.com"], said
    assert "403" in said["gateway"], said
    assert 200 < said["mib"] < 256


def test_each_password_is_in_one_container_and_no_credential_in_the_logs(house: ComposeHouse) -> None:
    held = [password for service in SERVICES - {"nats", "model"} for password in house.secrets(service)]
    assert len(held) == len(set(held))
    assert TOKEN not in house.logs()


def test_a_proxy_on_this_machine_is_believed_of_whom_it_speaks(house: ComposeHouse) -> None:
    """Otherwise all phones behind it would share the few attempts to sign in that a minute has."""
    wrong = {"code": "owner.wrong", "device_name": "phone"}
    for number in range(20):
        peer = {"X-Forwarded-For": f"203.0.113.{number}"}
        answer = httpx2.post(f"{house.ready.server}/api/sign-in", json=wrong, headers=peer)
        assert answer.status_code == 401, answer.text


@pytest.mark.parametrize("service", sorted(SERVICES))
async def test_a_container_is_killed_under_a_task(house: ComposeHouse, repository: str, service: str) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: slow] seconds=4", repository, key=f"kill-{service}")
        await owner.until(lambda: open_tool_call(owner, task) is not None)
        await anyio.to_thread.run_sync(house.kill, service)
        done = await owner.ended(task, AGAIN_SECONDS)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)


async def test_a_runner_that_is_restarted_gives_its_attempt_back(house: ComposeHouse, repository: str) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: slow] seconds=6", repository, key="restart")
        await owner.until(lambda: open_tool_call(owner, task) is not None)
        await anyio.to_thread.run_sync(house.compose, "restart", "runner")
        done = await owner.ended(task, AGAIN_SECONDS)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert_parked_first(owner, task)
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)


def test_afterwards_every_container_is_well(house: ComposeHouse) -> None:
    house.compose("up", "--detach", "--wait")
    states = [json.loads(line) for line in house.compose("ps", "--format", "json").splitlines()]
    assert {state["Service"] for state in states} == SERVICES
    assert {state["Health"] for state in states} == {"healthy", ""}
    house.errand("doctor")
    house.compose("run", "--rm", "errand", "doctor")


async def test_a_running_installation_is_backed_up_and_comes_back_elsewhere(
    house: ComposeHouse, origin: Path, repository: str, tmp_path: Path
) -> None:
    async with phone(house) as owner:
        done = await owner.submit("[scenario: steps] 2 steps", repository, key="done")
        asks = await owner.submit("[scenario: ask] Which?", repository, key="asks")
        await owner.ended(done)
        await owner.until(lambda: owner.tasks[asks].state is TaskState.WAITING)
    backup = tmp_path / "errand.tar.gz"
    await anyio.to_thread.run_sync(house.backup, backup)
    with compose_up(tmp_path, backup=backup, token=house.token, **given(tmp_path)) as other:
        shown = [json.loads(at.errand("show", done, "--json")) for at in (house, other)]
        assert shown[0] == shown[1]
        assert '"succeeded"' in other.errand("sql", "--json", f"select state from tasks where task_id = '{done}'")
        other.errand("answer", asks, "blue")
        other.errand("watch", asks)
        # The host's credential came back with the key that opens it.
        branch = next(name for name in branches(origin) if asks in name)
        assert "blue" in git(origin, "show", f"{branch}:ANSWER.md")
        holders = {service for service in SERVICES - {"model"} if GIVEN in other.secrets(service)}
        assert holders == {"gateway", "repos"}


def given(folder: Path) -> dict[str, str]:
    """A secret of the operator's that nobody else may read, and the settings that it goes with."""
    file = folder / "github.secret"
    file.touch(mode=0o600)
    file.write_text(GIVEN)
    return {"ERRAND_GITHUB_CLIENT_ID": "Iv1.0123456789", "ERRAND_GITHUB_CLIENT_SECRET_FILE": str(file)}


def branches(origin: Path) -> list[str]:
    return git(origin, "for-each-ref", "--format=%(refname)", "refs/heads/errand").splitlines()
