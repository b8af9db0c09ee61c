"""A journalled event on its way to the phone, beside a bare NATS subscriber of the same; an idle phone's memory."""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_process
import nats
from nats.aio.msg import Msg
from websockets.asyncio.client import ClientConnection, connect

from benchmarks import Row, compared, percentile, report
from protocol.base import encode
from protocol.ids import OWNER, token_hash
from protocol.journal import JournalEntry, Noticed
from protocol.live import CaughtUp, JournalSeen, SignedIn, SignIn, WatchTask, decode_server_frame
from protocol.routes import Service, decision_subject, journal_subject, user_decision_subject
from protocol.task import Decision, TaskState, TaskSubmitted
from protocol.user import DeviceAdded, Role, UserAdded, UserDecision
from services.bus import Bus, BusConfig
from services.bus import connect as connect_bus
from tests.integration.gateway_house import GatewayHouse
from tests.integration.nats_house import NatsHouse

EVENTS_PER_SECOND = 1_000
SECONDS = 8
WARM_UP = 1_000
"""Events before those that count."""
TASKS = 10
"""Attempts that journal side by side: one alone could not, each of its events waits for the one before."""
EVENT_BYTES = 300
IDLE = 500
IDLE_FIRST = 50
"""Phones that are there before the memory is read: what is loaded once is not theirs."""


def rows() -> list[Row]:
    return anyio.run(_rows, backend_options={"use_uvloop": True})


async def _rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        house = NatsHouse(Path(folder))
        _without_sync(house)
        house.start()
        gateway = GatewayHouse(house, ERRAND_SOCKETS_LIMIT="10000")
        try:
            async with connect_bus(house.bus_config(Service.OPERATOR), Service.OPERATOR) as bus:
                await bus.make_streams()
            gateway.start()
            async with connect_bus(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
                return [*await _latency(house, gateway, bus), await _memory(gateway, bus)]
        finally:
            gateway.terminate()
            house.kill()


def _without_sync(house: NatsHouse) -> None:
    """The durable publish is measured elsewhere: here an event is stored as fast as NATS can."""
    config = house.data / "secrets" / "nats.conf"
    config.write_text(config.read_text().replace("sync_interval: always", "sync_interval: 2m"))


# The way of an event


async def _latency(house: NatsHouse, gateway: GatewayHouse, bus: Bus) -> list[Row]:
    await _make_user(bus, OWNER, Role.OWNER)
    tasks = [f"tbench{number}" for number in range(TASKS)]
    for task in tasks:
        await _make_task(bus, OWNER, task)
    stored_at: dict[int, float] = {}
    bare: dict[int, float] = {}
    phone: dict[int, float] = {}

    async def on_message(message: Msg) -> None:
        now = time.time()
        headers = message.headers or {}
        sequence = int(headers["Nats-Sequence"])
        bare[sequence] = now
        stored_at[sequence] = datetime.fromisoformat(headers["Nats-Time-Stamp"][:26].rstrip("Z") + "+00:00").timestamp()

    reader = house.bus_config(Service.READER)
    subscriber = await nats.connect(
        reader.nats_url, user="reader", password=reader.password(), inbox_prefix=b"_INBOX_reader"
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(subscriber.close)
        await subscriber.subscribe(f"live.{OWNER}.*.>", cb=on_message)
        await subscriber.flush()
        socket = await stack.enter_async_context(_phone(gateway))
        await _sign_in(socket, OWNER, *tasks)
        total = WARM_UP + EVENTS_PER_SECOND * SECONDS
        async with anyio.create_task_group() as group:
            config = house.bus_config(Service.RUNNER)
            group.start_soon(anyio.to_process.run_sync, _journal, config, tasks, total)
            while len(phone) < total:
                text = await socket.recv()
                now = time.time()
                frame = decode_server_frame(text)
                if isinstance(frame, JournalSeen):
                    phone[frame.sequence] = now
            while len(bare) < total:
                await anyio.lowlevel.checkpoint()
    counted = sorted(phone)[WARM_UP:]
    ours = [(phone[sequence] - stored_at[sequence]) * 1000 for sequence in counted]
    theirs = [(bare[sequence] - stored_at[sequence]) * 1000 for sequence in counted]
    what = f"journalled event to the phone, {EVENTS_PER_SECOND}/s"
    return [
        _against(f"{what}, p50", percentile(ours, 0.5), percentile(theirs, 0.5), 3),
        _against(f"{what}, p99", percentile(ours, 0.99), percentile(theirs, 0.99), 5),
    ]


def _against(what: str, ours: float, peer: float, times: int) -> Row:
    demanded, ok = f"{times} x", ours <= times * peer
    return compared(what, ours, peer, "ms", demanded=demanded, ok=ok, peer_name="NATS subscriber")


def _journal(config: BusConfig, tasks: list[str], total: int) -> None:
    anyio.run(_journal_all, config, tasks, total, backend_options={"use_uvloop": True})


async def _journal_all(config: BusConfig, tasks: list[str], total: int) -> None:
    """In a process of its own: `total` events at an even pace, round the tasks."""
    each = total // len(tasks)
    interval = len(tasks) / EVENTS_PER_SECOND
    async with connect_bus(config, Service.RUNNER) as bus, anyio.create_task_group() as group:
        start = time.perf_counter() + 0.1
        for number, task in enumerate(tasks):
            group.start_soon(_journal_one, bus, task, each, start + number * interval / len(tasks), interval)


async def _journal_one(bus: Bus, task: str, count: int, start: float, interval: float) -> None:
    log = f"evt.{OWNER}.{task}.>"
    last = await bus.last(log)
    event = Noticed(text="x" * EVENT_BYTES)
    for number in range(count):
        if (wait := start + number * interval - time.perf_counter()) > 0:
            await anyio.sleep(wait)
        entry = JournalEntry(attempt=1, at=datetime.now(UTC), event=event)
        last = await bus.commit(journal_subject(OWNER, task, event), entry, log=log, expected=last)


# An idle phone


async def _memory(gateway: GatewayHouse, bus: Bus) -> Row:
    """Each of another user, so that each has its own interest in NATS; each watches a task."""
    users = [f"u_idle{number}" for number in range(IDLE_FIRST + IDLE)]
    for user in users:
        await _make_user(bus, user, Role.USER)
        await _make_task(bus, user, "tidle")
    async with AsyncExitStack() as stack:

        async def open_one(user: str) -> None:
            socket = await stack.enter_async_context(_phone(gateway))
            await _sign_in(socket, user, "tidle")

        for user in users[:IDLE_FIRST]:
            await open_one(user)
        before = _pss_kib(gateway.pid)
        for user in users[IDLE_FIRST:]:
            await open_one(user)
        each = (_pss_kib(gateway.pid) - before) / IDLE
    what = "an idle phone's memory in the gateway"
    return Row(what=what, ours=each, unit="KiB", demanded="40 KiB", ok=each <= 40)


def _pss_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


# What both need


def _phone(gateway: GatewayHouse) -> connect:
    url = f"ws://127.0.0.1:{gateway.port}/api/live"
    return connect(url, proxy=None, compression=None, max_size=None, max_queue=None)


async def _sign_in(socket: ClientConnection, user: str, *tasks: str) -> None:
    await socket.send(encode(SignIn(token=f"token-{user}")).decode())
    assert isinstance(decode_server_frame(await socket.recv()), SignedIn)
    for task in tasks:
        await socket.send(encode(WatchTask(task=task)).decode())
    for _ in tasks:
        while not isinstance(decode_server_frame(await socket.recv()), CaughtUp):
            pass


async def _make_user(bus: Bus, user: str, role: Role) -> None:
    events = (
        UserAdded(name=user, role=role),
        DeviceAdded(device=f"d_{user}", device_name="phone", token_hash=token_hash(f"token-{user}")),
    )
    decision = UserDecision(at=datetime.now(UTC), events=events)
    await bus.commit(user_decision_subject(user, decision), decision, log=f"evt.{user}.user.>", expected=0)


async def _make_task(bus: Bus, user: str, task: str) -> None:
    submitted = TaskSubmitted(prompt="Do it", repository="https://git.example/a", title="It")
    decision = Decision(at=datetime.now(UTC), state=TaskState.QUEUED, events=(submitted,))
    subject = decision_subject(user, task, TaskState.QUEUED)
    await bus.commit(subject, decision, log=f"evt.{user}.{task}.task.>", expected=0)


if __name__ == "__main__":
    report("live", rows())
    sys.exit(0)
