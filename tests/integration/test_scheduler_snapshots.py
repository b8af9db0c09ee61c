"""A start from a snapshot: the same states, without the commands that made them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import pytest

from protocol.base import encode
from protocol.query import AskHealth, AttemptGranted, Health, ListTasks, QueueShown, ShowQueue, TaskList
from protocol.routes import Service, Stream
from protocol.task import CancelTask, SendMessage, SubmitTask, TaskState
from services.background import background
from services.bus import SNAPSHOTS, Bus, Unavailable, connect
from services.scheduler.scheduler import Config, Scheduler
from services.scheduler.snapshots import FOLDS, NAME, Head
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.test_scheduler import USER, Player, player

pytestmark = pytest.mark.anyio
MESSAGES = 20


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


class Watched:
    """Says when the scheduler has taken old commands away, and from where it reads."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.cleared = anyio.Event()
        self.read_after = -1
        self._purge, self._read = bus.purge, bus.read
        bus.purge = self.purge  # type: ignore[method-assign]
        bus.read = self.read  # type: ignore[method-assign,assignment]

    async def purge(self, stream: Stream, subject: str, *, below: int = 0) -> None:
        await self._purge(stream, subject, below=below)
        if subject.startswith("cmd."):
            self.cleared.set()

    def read(self, *filters: str, after: int):
        self.read_after = after
        return self._read(*filters, after=after)


@asynccontextmanager
async def scheduler(house: NatsHouse) -> AsyncIterator[tuple[Player, Watched]]:
    async with (
        player(house) as play,
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus,
        background() as group,
    ):
        watched, started = Watched(bus), anyio.Event()
        working = Scheduler(bus, Config(snapshot_messages=MESSAGES))
        group.start_soon(working.run, started.set)
        await started.wait()
        yield play, watched
        await working.drain()


async def test_a_scheduler_goes_on_from_its_snapshot_and_knows_every_command_again(house: NatsHouse) -> None:
    async with scheduler(house) as (play, watched):
        tasks = [await play.submit(f"many-{number}") for number in range(MESSAGES)]
        await play.until(tasks[-1], lambda t: t.turn == 1)
        with anyio.fail_after(10):
            await watched.cleared.wait()
        assert len(await play.gateway.replay("cmd.>")) < MESSAGES
    async with scheduler(house) as (play, watched):
        assert watched.read_after > 0
        await play.gateway.publish(f"cmd.{USER}.{tasks[0]}.cancel_task", CancelTask(key="c"))
        await play.until(tasks[0], lambda t: t.state is TaskState.CANCELLED)
        listed = await play.gateway.ask(Service.SCHEDULER, ListTasks(user=USER), TaskList)
        assert {line.id for line in listed.tasks} == set(tasks)
        # The submission once more, as long after that the server has forgotten its id: no second receipt or turn.
        again = SubmitTask(key="many-0", prompt="do it", repository="https://example.test/r")
        await play.gateway.publish(f"cmd.{USER}.{tasks[0]}.submit_task", again)
        await play.gateway.publish(f"cmd.{USER}.{tasks[0]}.send_message", SendMessage(key="m", text="on"))
        state = await play.until(tasks[0], lambda t: "m" in t.receipts)
        assert (state.turn, sorted(state.receipts)) == (2, ["c", "m", "many-0"])
        granted = await play.claim("one")
        assert isinstance(granted, AttemptGranted)
        assert granted.task.id in tasks


@pytest.mark.parametrize("starts_from", ["the snapshot", "the whole log"])
async def test_a_stopped_task_holds_back_no_snapshot_and_loses_no_command(house: NatsHouse, starts_from: str) -> None:
    async with scheduler(house) as (play, watched):
        stopped = await play.submit("stopped")
        await play.until(stopped, lambda t: t.turn == 1)
        await watched.bus._jetstream.publish(f"evt.{USER}.{stopped}.task.running", b'{"type":"decision"}')
        await play.send(stopped, CancelTask(key="c"))
        others = [await play.submit(f"many-{number}") for number in range(2 * MESSAGES)]
        commands = f"cmd.{USER}.{others[0]}.>"
        with anyio.fail_after(10):
            while await play.gateway.replay(commands):
                await watched.cleared.wait()
                watched.cleared = anyio.Event()
        [waits] = (await play.gateway.ask(Service.SCHEDULER, ShowQueue(user=USER), QueueShown)).stopped
        assert (waits.task, waits.commands) == (stopped, 1)
        [notice] = (await play.gateway.ask(Service.SCHEDULER, AskHealth(), Health)).notices
        assert f"evt.{USER}.{stopped}" in notice
        # As a release that can read it: played by taking it away.
        await watched.bus.purge(Stream.TASKS, f"evt.{USER}.{stopped}.task.running")
    if starts_from == "the whole log":
        async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
            await bus.put_blob(NAME, b"of another release's folds", SNAPSHOTS)
    async with scheduler(house) as (play, watched):
        assert (watched.read_after > 0) == (starts_from == "the snapshot")
        await play.until(stopped, lambda t: t.state is TaskState.CANCELLED)


@pytest.mark.parametrize("data", [b"torn", Head("older", 10**9)], ids=["torn", "older folds"])
async def test_a_snapshot_that_cannot_be_used_is_passed_over(house: NatsHouse, data: object) -> None:
    async with scheduler(house) as (play, watched):
        task = await play.submit("kept")
        await play.until(task, lambda t: t.turn == 1)
        await watched.bus.put_blob(NAME, data if isinstance(data, bytes) else encode(data), SNAPSHOTS)  # type: ignore[arg-type]
    async with scheduler(house) as (play, watched):
        assert watched.read_after == 0
        granted = await play.claim("one")
        assert isinstance(granted, AttemptGranted)
        assert granted.task.id == task


async def test_nobody_else_can_write_a_snapshot(house: NatsHouse) -> None:
    async with scheduler(house):
        for service in (Service.RUNNER, Service.REPOS, Service.GATEWAY, Service.HISTORY):
            async with connect(house.bus_config(service), service) as bus:
                with pytest.raises(Unavailable):
                    await bus.publish(f"$O.{SNAPSHOTS}.M.x", Head(FOLDS, 1))
