"""What users, models and strangers get wrong: a clear refusal to whoever sent it, nothing lost, nothing crashed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import nats
import pytest
from nats.aio.client import Client
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from protocol.base import encode
from protocol.live import Closing, Refused, SignIn, Submit, decode_server_frame
from protocol.task import Budget, TaskState
from tests.journey.house import House, assert_ended_once, assert_no_gap, errand_up, phone
from tests.journey.test_kills import make_repository

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with errand_up(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "greeter")


@pytest.mark.parametrize(
    ("fault", "state", "reason"),
    [
        ("429 x2", TaskState.SUCCEEDED, ""),
        ("529 x2", TaskState.SUCCEEDED, ""),
        ("500", TaskState.SUCCEEDED, ""),
        ("cut", TaskState.SUCCEEDED, ""),
        ("error-in-200", TaskState.SUCCEEDED, ""),
        ("401", TaskState.FAILED, "ANTHROPIC_API_KEY"),
        ("spend-cap", TaskState.FAILED, "limit"),
    ],
)
async def test_a_fault_of_the_model_is_retried_or_ends_with_a_reason_to_act_on(
    house: House, repository: Path, fault: str, state: TaskState, reason: str
) -> None:
    async with phone(house) as owner:
        task = await owner.submit(f"[scenario: tour] [fault: {fault}]", str(repository), key=fault.replace(" ", "-"))
        done = await owner.ended(task)
        assert (done.state, reason.lower() in done.reason.lower()) == (state, True), done.reason
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        (Budget(money_usd=0), "0"),
        (Budget(steps=3), "3"),
        (Budget(tokens=100), "100"),
    ],
)
async def test_a_turn_that_reaches_its_limit_says_which_and_what_to_do(
    house: House, repository: Path, budget: Budget, named: str
) -> None:
    async with phone(house) as owner:
        key = f"budget-{named}-{budget.steps}"
        task = await owner.submit("[scenario: tour]", str(repository), key=key.replace("UNSET", "u"), budget=budget)
        done = await owner.ended(task)
        assert done.state is TaskState.FAILED
        assert named in done.reason
        assert_ended_once(owner, task)


@pytest.mark.parametrize(
    ("why", "prompt", "repository", "told"),
    [
        ("an empty prompt", " ", "", "prompt"),
        ("a prompt over the limit", "x" * 100_001, "", "100"),
        ("a repository that is not there", "do it", "/nowhere/at/all", "repository"),
        ("an option in place of a URL", "do it", "--upload-pack=touch /tmp/owned", "repository"),
        ("a transport that runs a program", "do it", "ext::sh -c 'touch /tmp/owned'", "repository"),
        ("a password in the URL", "do it", "https://me:secret@git.example/x.git", "host add"),
    ],
)
async def test_a_submit_that_cannot_be_done_is_refused_at_once(
    house: House, why: str, prompt: str, repository: str, told: str
) -> None:
    async with phone(house) as owner:
        await owner.until(lambda: owner.connections > 0)
        key = why.replace(" ", "-")
        await owner.send_raw(encode(Submit(key=key, prompt=prompt, repository=repository or "/nowhere")).decode())
        await owner.until(lambda: any(isinstance(f, Refused) and f.key == key for f in owner.others))
        refusal = next(f for f in owner.others if isinstance(f, Refused) and f.key == key)
        assert told.lower() in f"{refusal.reason} {refusal.field}".lower(), refusal
        assert "secret" not in refusal.reason
        assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize("frame", ["{", '{"type":"no_such_frame"}', '{"type":"watch_task"}', "[]", '{"type":"say"}'])
async def test_a_frame_that_cannot_be_read_is_refused_and_the_socket_stays(house: House, frame: str) -> None:
    async with phone(house) as owner:
        await owner.until(lambda: owner.connections > 0)
        await owner.send_raw(frame)
        await owner.until(lambda: any(isinstance(f, Refused) for f in owner.others))
        assert owner.connections == 1


async def test_a_bad_token_is_told_so_and_the_socket_closed(house: House) -> None:
    url = house.ready.server.replace("http", "ws", 1) + "/api/live"
    async with connect(url) as socket:
        await socket.send(encode(SignIn(token="wrong")).decode())
        with anyio.fail_after(10):
            frame = decode_server_frame(await socket.recv())
            with pytest.raises(ConnectionClosedError):
                await socket.recv()
    assert isinstance(frame, Closing)
    assert not frame.come_back


@asynccontextmanager
async def as_service(house: House, service: str) -> AsyncIterator[Client]:
    """A connection with a service's own credential, as a broken release of it would have."""
    url = (house.data / "nats-url").read_text()
    password = (house.data / "secrets" / f"nats-{service}").read_text().strip()
    client = await nats.connect(url, user=service, password=password, inbox_prefix=f"_INBOX_{service}".encode())
    try:
        yield client
    finally:
        await client.close()


async def test_messages_that_nobody_can_read_are_parked_and_everything_goes_on(house: House, repository: Path) -> None:
    spoiled = {
        "gateway": ["cmd.owner.tspoiled.submit_task", "cmd.owner.user.add_host", "cmd.owner.tspoiled.no_such_verb"],
        "runner": [
            "evt.owner.tspoiled.journal.step_started",
            "out.owner.tspoiled",
            "cmd.owner.tspoiled.finish_attempt",
        ],
        "scheduler": ["evt.owner.tspoiled.task.queued", "evt.owner.user.device_added"],
    }
    for service, subjects in spoiled.items():
        async with as_service(house, service) as client:
            for subject in subjects:
                for data in (b"", b"{", b'{"type":"nothing"}', b"\xff\xfe", b"[1,2,3]"):
                    await client.publish(subject, data)
            await client.flush()
    async with as_service(house, "runner") as client:
        answer = await client.request("qry.scheduler.claim_attempt", b"{", timeout=5)
        assert b"cannot be read" in answer.data
    async with phone(house) as owner:
        task = await owner.submit("[scenario: noop]", str(repository), key="after-the-spoiled")
        done = await owner.ended(task)
        assert done.state is TaskState.SUCCEEDED
    async with as_service(house, "operator") as client:
        # Each log's actor parks its own in its own time, and tells nobody.
        with anyio.fail_after(20):
            while (await client.jetstream().stream_info("DEAD")).state.messages < 15:
                await anyio.sleep(0.05)
    assert house.pid("scheduler") == house.ready.pids["scheduler"], f"it crashed:\n{house.logs()}"
    assert house.pid("gateway") == house.ready.pids["gateway"], f"it crashed:\n{house.logs()}"
    assert house.pid("history") == house.ready.pids["history"], f"it crashed:\n{house.logs()}"
    assert house.pid("runner") == house.ready.pids["runner"], f"it crashed:\n{house.logs()}"
