"""The scheduler when NATS is slow, loses an answer or refuses writes: nothing is given up, nothing is done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from protocol.query import AttemptGranted, NothingToClaim
from protocol.routes import Service
from protocol.task import FailAttempt, PauseTask, ReceiptStatus, SendMessage, TaskState
from services.background import background
from services.bus import Bus, Unavailable, connect
from services.scheduler.scheduler import Config, Scheduler
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.test_scheduler import Player, player

pytestmark = pytest.mark.anyio


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


Commit = Callable[..., Any]


class Weather:
    """Stands between the scheduler and the bus's commits. `around` is called with the real commit and the subject."""

    def __init__(self, bus: Bus) -> None:
        self._real = bus.commit
        self.around: Commit | None = None
        bus.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, subject: str, message: object, *, log: str, expected: int) -> int:
        async def real() -> int:
            return await self._real(subject, message, log=log, expected=expected)  # type: ignore[arg-type]

        return await real() if self.around is None else await self.around(subject, real)


@asynccontextmanager
async def scheduler(house: NatsHouse) -> AsyncIterator[tuple[Player, Weather]]:
    """A scheduler of this process, once it takes work."""
    async with (
        player(house) as play,
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus,
        background() as group,
    ):
        weather = Weather(bus)
        started = anyio.Event()
        group.start_soon(Scheduler(bus, Config()).run, started.set)
        await started.wait()
        yield play, weather


async def test_a_delayed_task_goes_on_though_the_answer_to_its_commit_was_lost(house: NatsHouse) -> None:
    async with scheduler(house) as (play, weather):
        task = await play.submit("lost")
        assert isinstance(await play.claim("one"), AttemptGranted)

        async def lose_one(subject: str, real: Commit) -> int:
            sequence = await real()
            if subject.endswith(".delayed"):
                weather.around = None
                raise Unavailable("the answer was lost")
            return sequence

        weather.around = lose_one
        await play.send(
            task, FailAttempt(key="f", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=0.2)
        )
        again = await play.claim("two", wait_seconds=15)
        assert isinstance(again, AttemptGranted)
        assert (again.task.id, again.task.attempt) == (task, 2)


async def test_one_request_gets_one_attempt_however_slow_its_commit_is(house: NatsHouse) -> None:
    async with scheduler(house) as (play, weather), anyio.create_task_group() as group:
        granted: list[AttemptGranted | NothingToClaim] = []

        async def ask() -> None:
            granted.append(await play.claim("same", wait_seconds=3))

        async def ask_again_meanwhile(subject: str, real: Commit) -> int:
            if subject.endswith(".running"):
                weather.around = None
                group.start_soon(ask)
                # The same connection, later: when this one is answered, the one before it has been heard.
                await play.claim("nothing", wait_seconds=0.1, queue="no such queue")
            return await real()

        await play.submit("first")
        await play.submit("second")
        weather.around = ask_again_meanwhile
        await ask()
        with anyio.fail_after(10):
            other = await play.claim("other", wait_seconds=3)
        assert isinstance(other, AttemptGranted)
    ids = [reply.task.id for reply in granted if isinstance(reply, AttemptGranted)]
    assert len(ids) == 2
    assert len(set(ids)) == 1, "both askers were told of the same attempt"
    assert other.task.id not in ids


async def test_a_command_is_not_given_up_while_writes_are_refused(house: NatsHouse) -> None:
    async with scheduler(house) as (play, weather):
        refusals = 0

        async def refuse(subject: str, real: Commit) -> int:
            nonlocal refusals
            refusals += 1
            if refusals <= 40:
                raise Unavailable("insufficient resources")
            return await real()

        weather.around = refuse
        task = await play.submit("refused")
        queued = await play.until(task, lambda t: t.state is TaskState.QUEUED and t.turn == 1)
        assert queued.receipts["refused"].status is ReceiptStatus.CONSUMED


async def test_a_command_whose_decision_would_be_too_large_is_rejected_with_the_reason(house: NatsHouse) -> None:
    async with scheduler(house) as (play, _):
        task = await play.submit("large")
        # Control characters are six bytes each in JSON; the decision has a little more around them than the command.
        await play.send(task, PauseTask(key="m", reason="\x01" * 87_370))
        state = await play.until(task, lambda t: "m" in t.receipts)
        assert state.receipts["m"].status is ReceiptStatus.REJECTED
        assert "over the limit" in state.receipts["m"].reason
        await play.send(task, SendMessage(key="n", text="short"))
        assert (await play.until(task, lambda t: "n" in t.receipts)).messages == 1
