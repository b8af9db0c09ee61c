"""What a runner writes of its attempt, when an append is cut off on its way."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from protocol.evolve import Holder, Task
from protocol.journal import JournalEntry, StepFinished, StepLost, StepStarted, ToolCall, ToolResult, decode_entry
from protocol.routes import Service
from protocol.task import Decision, MessageSent, TaskState
from services.runner.log import TaskLog
from tests.simulation.clockwork import VirtualClock, VirtualLoop
from tests.simulation.memory import MemoryBus, Server, Weather, connect

STARTED = StepStarted(step=1, action=ToolCall(id="c", name="bash", input={}))
FINISHED = StepFinished(step=1, result=ToolResult(text="done"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SLOW_SECONDS = 1.0
LOST = StepFinished(step=1, result=StepLost(reason="The turn reached its deadline."))


@pytest.mark.parametrize("is_known", [False, True], ids=["nobody heard of it", "the log was read since"])
def test_a_step_whose_outcome_was_cut_off_on_its_way_gets_no_second_one(is_known: bool) -> None:
    async def story() -> list[JournalEntry]:
        server, weather = Server(VirtualClock()), Weather(random.Random(0))
        weather.calm = True
        async with connect(server, Service.RUNNER, weather) as bus:
            log = await _log_of(bus)
            await log.append(STARTED)
            await _append_unheard(log, bus)
            if is_known:
                await log.refresh()
            await log.append(LOST)
            assert log.entries[-1].event == FINISHED, "what the log has is known here"
        return [decode_entry(stored.data) for stored in server.find("evt.owner.t1.>")]

    entries = anyio.run(story, backend_options={"loop_factory": VirtualLoop})
    assert [entry.event for entry in entries] == [STARTED, FINISHED]


def test_a_decision_that_comes_after_an_outcome_nobody_heard_of_hides_it_from_nobody() -> None:
    async def story() -> list[JournalEntry]:
        server, weather = Server(VirtualClock()), Weather(random.Random(0))
        weather.calm = True
        async with (
            connect(server, Service.RUNNER, weather) as bus,
            connect(server, Service.SCHEDULER, weather) as scheduler,
        ):
            log = await _log_of(bus)
            await log.append(STARTED)
            await _append_unheard(log, bus)
            subject, said = "evt.owner.t1.task.running", MessageSent(message=1, text="Also this.")
            await scheduler.commit(
                subject, Decision(at=NOW, state=TaskState.RUNNING, events=(said,)), log=subject, expected=0
            )
            [decided] = server.find(subject)
            await log.on_decision(decided)
            await log.append(LOST)
        return [decode_entry(stored.data) for stored in server.find("evt.owner.t1.journal.>")]

    entries = anyio.run(story, backend_options={"loop_factory": VirtualLoop})
    assert [entry.event for entry in entries] == [STARTED, FINISHED]


def test_what_is_on_its_way_when_the_runner_is_told_to_stop_is_in_its_last_word() -> None:
    async def story() -> None:
        server, weather = Server(VirtualClock()), Weather(random.Random(0))
        weather.calm = True
        async with connect(server, Service.RUNNER, weather) as bus, anyio.create_task_group() as network:
            log = await _log_of(bus)
            await log.append(STARTED)
            _make_slow(bus, network)
            with anyio.move_on_after(SLOW_SECONDS / 2):
                await log.append(FINISHED)
            # As a drain does, to say how the attempt ended.
            await log.refresh()
            [*_, last] = server.find("evt.owner.t1.>")
            assert (log.journal_sequence, log.entries[-1].event) == (last.sequence, FINISHED)

    anyio.run(story, backend_options={"loop_factory": VirtualLoop})


def _make_slow(bus: MemoryBus, network: TaskGroup) -> None:
    """What was sent is stored, whoever waits for it."""
    commit = bus.commit

    async def slow(*given: Any, **options: Any) -> int:
        stored, sequences = anyio.Event(), []

        async def store() -> None:
            await anyio.sleep(SLOW_SECONDS)
            sequences.append(await commit(*given, **options))
            stored.set()

        network.start_soon(store)
        await stored.wait()
        return sequences[0]

    bus.commit = slow  # type: ignore[method-assign]


async def _log_of(bus: MemoryBus) -> TaskLog:
    """Of a task whose first attempt has been granted."""
    holder = Holder(attempt=1, runner="r", request="q")
    task = Task(id="t1", user="owner", state=TaskState.RUNNING, turn=1, attempt=1, holder=holder)
    log = TaskLog(bus, task, 0)  # type: ignore[arg-type]
    await log.open()
    return log


async def _append_unheard(log: TaskLog, bus: MemoryBus) -> None:
    """The server stores the outcome, and the deadline comes before its answer."""
    commit = bus.commit

    async def stored(*given: Any, **options: Any) -> int:
        await commit(*given, **options)
        await anyio.sleep_forever()
        raise AssertionError

    bus.commit = stored  # type: ignore[method-assign]
    with anyio.move_on_after(1):
        await log.append(FINISHED)
    bus.commit = commit  # type: ignore[method-assign]
