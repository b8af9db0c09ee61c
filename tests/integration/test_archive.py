"""Ended tasks go into the archive and come out of it again: a real nats-server, the real scheduler and history; the
runner and the phone are played."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from gateway.live.watch import Watch
from protocol.evolve import Task
from protocol.history import RunSql
from protocol.journal import (
    CheckpointMade,
    JournalEntry,
    ModelCall,
    ModelReply,
    Output,
    StepFinished,
    StepStarted,
)
from protocol.live import CaughtUp, DecisionSeen, JournalSeen, decode_server_frame
from protocol.query import AttemptGranted, ListTasks, TaskList
from protocol.routes import Service, journal_subject
from protocol.task import (
    ArchiveTask,
    FinishAttempt,
    ReceiptStatus,
    SendMessage,
    SubmitTask,
    TaskRestored,
    TaskState,
    Usage,
)
from services.archive import whole_log
from services.background import background
from services.bus import ARCHIVE, BLOBS, Bus, Stored, connect
from services.history.service import Config as HistoryConfig
from services.history.service import History
from services.runner.log import TaskLog
from services.scheduler.election import LEASE
from services.scheduler.scheduler import Config, Scheduler
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.test_scheduler import USER, Player, player

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


@asynccontextmanager
async def scheduler(house: NatsHouse, change: Callable[[Bus], None] = lambda _: None, **settings: Any):
    """A scheduler of this process; it is gone without a word when the block ends."""
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus, background() as group:
        change(bus)
        working, started = Scheduler(bus, Config(**settings)), anyio.Event()
        working.pace.pause_seconds, working.pace.look_seconds = 0, 0.1
        group.start_soon(working.run, started.set)
        await started.wait()
        yield working
        group.cancel_scope.cancel()
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
        await bus.drop_lease(LEASE)


@asynccontextmanager
async def history(house: NatsHouse, folder: Path) -> AsyncIterator[History]:
    async with connect(house.bus_config(Service.HISTORY), Service.HISTORY) as bus, background() as group:
        working, started = History(bus, HistoryConfig(data=str(folder))), anyio.Event()
        group.start_soon(working.run, started.set)
        await started.wait()
        yield working
        await working.drain()
        group.cancel_scope.cancel()


async def ended_task(play: Player, key: str) -> str:
    """A task with one finished turn: a model call and a checkpoint."""
    task = await play.submit(key)
    granted = await play.claim(key)
    assert isinstance(granted, AttemptGranted)
    assert granted.task.id == task
    last = granted.sequence
    for event in (
        StepStarted(step=1, action=ModelCall(messages_read=(0,))),
        StepFinished(step=1, result=ModelReply(content=(), stop_reason="end_turn", usage=Usage())),
        CheckpointMade(
            step=1, head="h", commit="c", tree="t", blob=f"checkpoint.{task}.1.1.c", ignored=f"checkpoint.{task}.1.1.i"
        ),
    ):
        entry = JournalEntry(attempt=1, at=datetime.now(UTC), event=event)
        subject = journal_subject(USER, task, event)
        last = await play.runner.commit(subject, entry, log=f"evt.{USER}.{task}.>", expected=last)
    for commit in ("b", "c", "i"):
        await play.runner.put_blob(f"checkpoint.{task}.1.1.{commit}", b"bundle")
    done = FinishAttempt(key="finish 1", attempt=1, journal_sequence=last, summary="done", usage=Usage())
    await play.send(task, done)
    await play.until(task, lambda t: t.state is TaskState.SUCCEEDED)
    return task


def is_archived(task: Task) -> bool:
    return task.archived_at is not None


async def archive(play: Player, task: str) -> Task:
    await play.send(task, ArchiveTask(key="put away"))
    return await play.until(task, is_archived)


async def until_cleared(play: Player, task: str) -> list[Stored]:
    with anyio.fail_after(10):
        while len(left := await play.gateway.replay(f"evt.{USER}.{task}.>")) > 1:
            await anyio.sleep(0.02)
    return left


async def test_an_archived_task_leaves_one_message_and_is_read_as_before(house: NatsHouse, tmp_path: Path) -> None:
    async with player(house) as play, history(house, tmp_path), scheduler(house):
        task = await ended_task(play, "one")
        before = await play.gateway.replay(f"evt.{USER}.{task}.>")
        state = await archive(play, task)
        [left] = await until_cleared(play, task)
        whole = await whole_log(play.gateway, f"evt.{USER}.{task}.>")
        assert [*before, left] == list(whole)
        assert await whole_log(play.gateway, f"evt.{USER}.{task}.>", after=before[2].sequence) == whole[3:]
        assert (state.title, state.state, state.summary) == ("do it", TaskState.SUCCEEDED, "done")
        listed = await play.gateway.ask(Service.SCHEDULER, ListTasks(user=USER), TaskList)
        assert [line.archived for line in listed.tasks if line.id == task] == [True]


async def test_a_day_later_a_command_has_the_same_receipt_and_no_second_effect(
    house: NatsHouse, tmp_path: Path
) -> None:
    async with player(house) as play, history(house, tmp_path), scheduler(house):
        task = await ended_task(play, "later")
        state = await archive(play, task)
        await until_cleared(play, task)
        # Without a message id: as after the server has forgotten it.
        again = SubmitTask(key="later", prompt="do it", repository="https://example.test/r")
        await play.gateway.publish(f"cmd.{USER}.{task}.submit_task", again)
        await play.gateway.publish(f"cmd.{USER}.{task}.archive_task", ArchiveTask(key="put away"))
        await play.gateway.publish(f"cmd.{USER}.{task}.archive_task", ArchiveTask(key="twice"))
        told = await play.until(task, lambda t: "twice" in t.receipts)
        assert told.receipts["twice"].status is ReceiptStatus.REJECTED
        assert {key: told.receipts[key] for key in state.receipts} == state.receipts
        assert told.receipts["later"].status is ReceiptStatus.CONSUMED
        assert (told.turn, told.attempt, is_archived(told)) == (1, 1, True)
        decisions = await play.decisions(task)
        assert len(decisions) == 2, "the archive's and one rejection"


async def test_a_message_opens_an_archived_task_and_its_runner_knows_the_conversation(
    house: NatsHouse, tmp_path: Path
) -> None:
    async with player(house) as play, history(house, tmp_path), scheduler(house):
        task = await ended_task(play, "back")
        await archive(play, task)
        await until_cleared(play, task)
        await play.send(task, SendMessage(key="on", text="and now?"))
        granted = await play.claim("back again")
        assert isinstance(granted, AttemptGranted)
        assert (granted.task.id, granted.task.attempt, granted.task.turn) == (task, 2, 2)
        log = TaskLog(play.runner, granted.task, granted.sequence)
        await log.open()
        assert [(message.number, message.text) for message in log.messages] == [(0, "do it"), (1, "and now?")]
        assert [type(entry.event) for entry in log.entries] == [StepStarted, StepFinished, CheckpointMade]
        await log.append(StepStarted(step=2, action=ModelCall(messages_read=(1,))))
        events = [event for decision in await play.decisions(task) for event in decision.events]
        assert any(isinstance(event, TaskRestored) for event in events)
        # And once more: the second archive takes the place of the first.
        done = FinishAttempt(
            key="finish 2", attempt=2, journal_sequence=log.journal_sequence, summary="", usage=Usage()
        )
        await play.send(task, done)
        await play.until(task, lambda t: t.state is TaskState.SUCCEEDED and t.turn == 2)
        before = await whole_log(play.gateway, f"evt.{USER}.{task}.>")
        await play.send(task, ArchiveTask(key="put away again"))
        await play.until(task, lambda t: "put away again" in t.receipts)
        [left] = await until_cleared(play, task)
        assert list(await whole_log(play.gateway, f"evt.{USER}.{task}.>")) == [*before, left]
        with anyio.fail_after(10):  # the first goes once the log is cleared
            while len([name for name in await play.gateway.blob_names(ARCHIVE) if task in name]) != 1:
                await anyio.sleep(0.02)


class Screen:
    """What a phone was sent."""

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.caught_up = anyio.Event()

    def put(self, frame: bytes) -> None:
        self.frames.append(decode_server_frame(frame))
        if isinstance(self.frames[-1], CaughtUp):
            self.caught_up.set()

    def put_preview(self, task: str, output: Output, frame: bytes) -> None: ...

    async def room(self, frame: bytes) -> None: ...

    def expect_output(self) -> None: ...

    def sequences(self) -> list[int]:
        return [frame.sequence for frame in self.frames if isinstance(frame, DecisionSeen | JournalSeen)]


async def test_a_phone_sees_no_gap_and_no_duplicate_from_whatever_cursor(house: NatsHouse, tmp_path: Path) -> None:
    async with player(house) as play, history(house, tmp_path), scheduler(house):
        task = await ended_task(play, "watched")
        before = [stored.sequence for stored in await play.gateway.replay(f"evt.{USER}.{task}.>")]
        await archive(play, task)
        [left] = await until_cleared(play, task)
        every = [*before, left.sequence]
        for cursor in (0, before[1], before[-1], left.sequence):
            assert await seen(play, task, cursor) == [sequence for sequence in every if sequence > cursor]


async def seen(play: Player, task: str, cursor: int) -> Sequence[int]:
    screen = Screen()
    async with anyio.create_task_group() as group:
        reads = anyio.CapacityLimiter(1)
        watch = Watch(play.gateway, screen, group, reads, f"evt.{USER}.{task}.>", cursor)
        watch.start()
        with anyio.fail_after(10):
            await screen.caught_up.wait()
        group.cancel_scope.cancel()
    return screen.sequences()


@pytest.mark.parametrize("step", ["put_blob", "commit", "purge"])
@pytest.mark.parametrize("done", [True, False], ids=["after", "before"])
async def test_a_scheduler_that_dies_over_the_archive_loses_nothing_and_another_ends_it(
    house: NatsHouse, tmp_path: Path, step: str, done: bool
) -> None:
    reached = anyio.Event()

    def dies(bus: Bus) -> None:
        real = getattr(bus, step)

        async def last(*args: Any, **named: Any) -> Any:
            of_another = step == "commit" and "TaskArchived" not in str(args[1])
            if of_another or (step == "purge" and not args[1].startswith("evt.")):
                return await real(*args, **named)
            if done:
                await real(*args, **named)
            reached.set()
            await anyio.sleep_forever()
            return None

        setattr(bus, step, last)

    async with player(house) as play, history(house, tmp_path):
        async with scheduler(house):
            task = await ended_task(play, f"dies {step} {done}")
            before = await play.gateway.replay(f"evt.{USER}.{task}.>")
        async with scheduler(house, dies):
            await play.send(task, ArchiveTask(key="put away"))
            with anyio.fail_after(10):
                await reached.wait()
        async with scheduler(house):
            state = await play.until(task, is_archived)
            assert state.receipts["put away"].status is ReceiptStatus.CONSUMED
            [left] = await until_cleared(play, task)
            assert list(await whole_log(play.gateway, f"evt.{USER}.{task}.>")) == [*before, left]


async def test_what_is_old_is_archived_by_itself_and_blobs_that_nobody_needs_go(
    house: NatsHouse, tmp_path: Path
) -> None:
    async with player(house) as play, history(house, tmp_path), connect_scheduler(house) as bus:
        async with scheduler(house, archive_after_days=1e-6):
            task = await ended_task(play, "old")
            await play.until(task, is_archived)
            await until_cleared(play, task)
            await bus.put_blob(f"{USER}.{task}.1", b"never decided on", ARCHIVE)
        async with scheduler(house):
            with anyio.fail_after(10):
                while len(names := await names_of(bus, task)) > 3:
                    await anyio.sleep(0.02)
    assert sorted(names[:2]) == [f"checkpoint.{task}.1.1.c", f"checkpoint.{task}.1.1.i"]
    assert names[2].startswith(f"{USER}.{task}.")


def connect_scheduler(house: NatsHouse) -> Any:
    return connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER)


async def names_of(bus: Bus, task: str) -> list[str]:
    return [name for bucket in (BLOBS, ARCHIVE) for name in await bus.blob_names(bucket) if task in name]


async def test_nothing_is_archived_that_the_history_does_not_have(house: NatsHouse) -> None:
    async with player(house) as play, scheduler(house):
        task = await ended_task(play, "no history")
        await play.send(task, ArchiveTask(key="put away"))
        state = await play.until(task, lambda t: "put away" in t.receipts)
        assert state.receipts["put away"].status is ReceiptStatus.REJECTED
        assert "history" in state.receipts["put away"].reason
        assert not is_archived(state)


async def test_a_history_that_is_built_anew_has_what_is_in_the_archive(house: NatsHouse, tmp_path: Path) -> None:
    async with player(house) as play, scheduler(house):
        async with history(house, tmp_path / "first") as first:
            task = await ended_task(play, "remembered")
            await archive(play, task)
            [left] = await until_cleared(play, task)
            sql = f"FROM events SELECT sequence, position, kind, payload::VARCHAR WHERE task_id = '{task}' ORDER BY ALL"
            before = await first.run_sql(RunSql(sql=sql, at_least=left.sequence))
        async with history(house, tmp_path / "second") as second:
            again = await second.run_sql(RunSql(sql=sql, at_least=left.sequence))
            steps = await second.run_sql(RunSql(sql=f"SELECT outcome FROM steps WHERE task_id = '{task}'"))
    assert len(before.rows) == 8
    assert again.rows == before.rows
    assert steps.rows == (("ok",),)
