"""The real scheduler process over a real nats-server; the runner and the phone are played by the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from protocol.evolve import Task, evolve
from protocol.ids import task_id
from protocol.journal import JournalEntry, Noticed
from protocol.query import AskHealth, AttemptGranted, ClaimAttempt, Health, ListTasks, NothingToClaim, TaskList
from protocol.routes import Service, Stream, command_subject, journal_subject
from protocol.task import (
    AnswerQuestion,
    CancelTask,
    Decision,
    FailAttempt,
    FinishAttempt,
    Question,
    RaiseQuestion,
    ReceiptStatus,
    SendMessage,
    SubmitTask,
    TaskCommand,
    TaskState,
    Usage,
    decode_decision,
)
from services.background import background
from services.bus import LEASE_SECONDS, Bus, Conflict, Stored, Unavailable, connect
from services.clock import Clock
from services.nats_server import password_file
from services.scheduler.election import Election
from services.scheduler.queries import STOPPED
from services.scheduler.scheduler import Config, Scheduler
from tests.integration.nats_house import NatsHouse, nats_house

pytestmark = pytest.mark.anyio
USER = "owner"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


class Schedulers:
    """Scheduler processes of this test, ended with it."""

    def __init__(self, house: NatsHouse, folder: Path) -> None:
        self._house = house
        self._folder = folder
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "ERRAND_NATS_URL": self._house.url,
            "ERRAND_NATS_PASSWORD_FILE": str(password_file(self._house.data, Service.SCHEDULER)),
        }
        with open(self._folder / f"scheduler{len(self.processes)}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.scheduler"], env=environment, stderr=log, stdout=log
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes:
            process.wait(15)


@pytest.fixture
def schedulers(house: NatsHouse, tmp_path: Path) -> Iterator[Schedulers]:
    schedulers = Schedulers(house, tmp_path)
    yield schedulers
    schedulers.end()


class Player:
    """Acts as the gateway and the runner do, on the bus alone."""

    def __init__(self, gateway: Bus, runner: Bus) -> None:
        self.gateway = gateway
        self.runner = runner

    async def send(self, task: str, command: TaskCommand, *, user: str = USER) -> int:
        bus = self.runner if hasattr(command, "attempt") else self.gateway
        return await bus.publish(command_subject(user, task, command), command, key=f"{task}.{command.key}")

    async def submit(self, key: str, **settings: Any) -> str:
        task = task_id(USER, key)
        await self.send(task, SubmitTask(key=key, prompt="do it", repository="https://example.test/r", **settings))
        return task

    async def claim(
        self, request: str, *, wait_seconds: float = 10, queue: str = "default"
    ) -> AttemptGranted | NothingToClaim:
        asked = ClaimAttempt(request=request, runner="r1", queue=queue, wait_seconds=wait_seconds)
        with anyio.fail_after(20):
            while True:
                try:
                    return await self.runner.ask_any(Service.SCHEDULER, asked, timeout_seconds=wait_seconds + 2)
                except Unavailable:
                    await anyio.sleep(0.05)  # no scheduler is active yet

    async def until(self, task: str, holds: object) -> Task:
        """The task's fold once `holds` is true of it."""
        async with self.gateway.read(f"evt.{USER}.{task}.task.>", after=0) as reader:
            state = Task(id=task, user=USER)
            with anyio.fail_after(20):
                async for batch in reader.batches():
                    for stored in batch:
                        state = evolve(state, decode_decision(stored.data))
                    if holds(state):  # type: ignore[operator]
                        return state
        raise AssertionError

    async def decisions(self, task: str) -> list[Decision]:
        return [decode_decision(stored.data) for stored in await self.gateway.replay(f"evt.{USER}.{task}.task.>")]


@asynccontextmanager
async def player(house: NatsHouse) -> AsyncIterator[Player]:
    async with (
        connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
        connect(house.bus_config(Service.RUNNER), Service.RUNNER) as runner,
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as maker,
    ):
        await maker.make_streams()
        yield Player(gateway, runner)


async def test_a_task_goes_from_submit_to_success_and_a_message_opens_the_next_turn(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        task = await play.submit("first")
        granted = await play.claim("request1")
        assert isinstance(granted, AttemptGranted)
        assert (granted.task.id, granted.task.attempt, granted.task.state) == (task, 1, TaskState.RUNNING)
        assert await play.claim("request1") == granted, "the same request gets the same attempt"
        usage = Usage(cost_usd=1)
        await play.send(task, FinishAttempt(key="f", attempt=1, journal_sequence=0, summary="done", usage=usage))
        done = await play.until(task, lambda t: t.state is TaskState.SUCCEEDED)
        assert (done.summary, done.usage.cost_usd, done.holder) == ("done", 1, None)
        assert {receipt.status for receipt in done.receipts.values()} == {ReceiptStatus.CONSUMED}
        await play.send(task, SendMessage(key="m", text="and now?"))
        again = await play.claim("request2")
        assert isinstance(again, AttemptGranted)
        assert (again.task.turn, again.task.attempt, again.task.messages) == (2, 2, 1)
        await play.send(task, CancelTask(key="c"))
        await play.until(task, lambda t: t.state is TaskState.CANCELLED)
        listed = await play.gateway.ask(Service.SCHEDULER, ListTasks(user=USER), TaskList)
        assert [line.id for line in listed.tasks] == [task]
        assert (await play.gateway.ask(Service.SCHEDULER, ListTasks(user="uother"), TaskList)).tasks == ()


async def test_a_question_is_answered_once_and_the_second_answer_is_told_so(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        task = await play.submit("asking")
        granted = await play.claim("asking")
        assert isinstance(granted, AttemptGranted)
        question = Question(id="q1", text="?")
        await play.send(task, RaiseQuestion(key="q", attempt=granted.task.attempt, question=question))
        await play.until(task, lambda t: t.state is TaskState.WAITING)
        await play.send(task, AnswerQuestion(key="a1", question="q1", text="yes"))
        await play.send(task, AnswerQuestion(key="a2", question="q1", text="no"))
        answered = await play.until(task, lambda t: "a2" in t.receipts)
        assert answered.state is TaskState.RUNNING
        assert answered.receipts["a1"].status is ReceiptStatus.CONSUMED
        assert answered.receipts["a2"].status is ReceiptStatus.REJECTED
        await play.send(task, CancelTask(key="c"))
        await play.until(task, lambda t: t.state is TaskState.CANCELLED)


async def test_a_failure_with_a_delay_is_tried_again_by_the_servers_own_timer(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        task = await play.submit("delayed")
        assert isinstance(await play.claim("d1"), AttemptGranted)
        await play.send(
            task, FailAttempt(key="x", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=0.5)
        )
        await play.until(task, lambda t: t.state is TaskState.DELAYED or t.attempt == 2)
        again = await play.claim("d2")
        assert isinstance(again, AttemptGranted)
        assert (again.task.id, again.task.attempt, again.task.turn_attempts) == (task, 2, 1)
        await play.send(task, FailAttempt(key="y", attempt=1, journal_sequence=0, reason="stale"))
        await play.send(task, FailAttempt(key="z", attempt=2, journal_sequence=0, reason="for good"))
        failed = await play.until(task, lambda t: t.state is TaskState.FAILED)
        assert failed.receipts["y"].status is ReceiptStatus.REJECTED
        assert failed.reason == "for good"


async def test_a_runner_that_falls_silent_loses_the_attempt_and_can_write_nothing_more(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        task = await play.submit("silent")
        first = await play.claim("s1")
        assert isinstance(first, AttemptGranted)
        second = await play.claim("s2", wait_seconds=15)
        assert isinstance(second, AttemptGranted)
        assert (second.task.id, second.task.attempt) == (task, 2)
        stale = Decision(at=first.task.created_at, state=TaskState.RUNNING)  # type: ignore[arg-type]
        with pytest.raises(Conflict):
            await play.runner.commit(
                f"evt.{USER}.{task}.journal.step_started", stale, log=f"evt.{USER}.{task}.>", expected=first.sequence
            )
        await play.send(task, CancelTask(key="c"))
        await play.until(task, lambda t: t.state is TaskState.CANCELLED)


async def test_a_cancel_does_not_wait_until_a_runner_pauses(house: NatsHouse) -> None:
    async with (
        player(house) as play,
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus,
        background() as group,
    ):
        scheduler, started = Scheduler(bus, Config()), anyio.Event()
        group.start_soon(scheduler.run, started.set)
        await started.wait()
        task = await play.submit("busy")
        granted = await play.claim("busy1")
        assert isinstance(granted, AttemptGranted)
        whole, replay = f"evt.{USER}.{task}.>", bus.replay

        async def append() -> None:
            entry = JournalEntry(attempt=1, at=datetime.now(UTC), event=Noticed(text="on"))
            last = await play.runner.last(whole)
            await play.runner.commit(journal_subject(USER, task, entry.event), entry, log=whole, expected=last)

        async def slow(subject: str, *, after: int = 0, **named: Any) -> list[Stored]:
            """Of a log so long that the runner has written when it was read."""
            found = await replay(subject, after=after, **named)
            if subject == whole and not after:
                await append()
            return found

        bus.replay = slow  # type: ignore[method-assign]
        await append()
        await play.send(task, CancelTask(key="c"))
        await play.until(task, lambda t: t.state is TaskState.CANCELLED)
        *_, ended = await play.decisions(task)
        assert ended.journal_sequence == (await replay(f"evt.{USER}.{task}.journal.>"))[-1].sequence
        await scheduler.drain()


async def test_a_standby_takes_over_from_a_killed_scheduler_and_answers_what_came_meanwhile(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    first = schedulers.start()
    async with player(house) as play:
        task = await play.submit("before")
        assert isinstance(await play.claim("t1"), AttemptGranted)
        schedulers.start()
        first.kill()
        first.wait()
        await play.send(task, CancelTask(key="c"))
        other = await play.submit("meanwhile")
        cancelled = await play.until(task, lambda t: t.state is TaskState.CANCELLED)
        assert cancelled.receipts["c"].status is ReceiptStatus.CONSUMED
        granted = await play.claim("t2")
        assert isinstance(granted, AttemptGranted)
        assert granted.task.id == other
        await play.send(other, CancelTask(key="c"))
        await play.until(other, lambda t: t.state is TaskState.CANCELLED)
        ends = [e for d in await play.decisions(task) for e in d.events if type(e).__name__ == "TurnEnded"]
        assert len(ends) == 1


async def test_beside_a_standby_the_active_one_says_how_the_scheduler_is(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        await play.until(await play.submit("active"), lambda t: t.state is TaskState.QUEUED)
        schedulers.start()
        await until_listed(house, 2)
        told = [await play.gateway.ask(Service.SCHEDULER, AskHealth(), Health) for _ in range(16)]
    assert {health.detail for health in told} == {"active"}


async def until_listed(house: NatsHouse, schedulers: int) -> None:
    """As `nats micro ls` lists them."""
    async with connect(house.bus_config(Service.READER), Service.READER) as reader:
        inbox = reader._nats.new_inbox()
        answers = await reader._nats.subscribe(inbox)
        found: set[bytes] = set()
        with anyio.fail_after(20):
            while len(found) < schedulers:
                await reader._nats.publish("$SRV.PING.scheduler", b"", inbox)
                found.add((await answers.next_msg()).data)


async def test_a_lease_that_was_taken_without_an_answer_holds_back_nobody(house: NatsHouse) -> None:
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
        await bus.make_streams()
        election = Election(bus, Clock())
        await election.wait_until_elected()
        # Its renewal was stored, and its answer lost.
        again = Election(bus, Clock())
        again._claim = election._claim
        with anyio.fail_after(LEASE_SECONDS / 2):
            await again.wait_until_elected()
        await again.release()


NESTED = b'{"key":"k","x":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
"""Deeper than a decoder goes."""


async def test_what_cannot_be_read_is_parked_and_the_actor_goes_on(house: NatsHouse, schedulers: Schedulers) -> None:
    schedulers.start()
    async with player(house) as play:
        task = task_id(USER, "odd")
        for odd in (b"not json", NESTED):
            await play.gateway._jetstream.publish(f"cmd.{USER}.{task}.submit_task", odd)
        assert await play.submit("odd") == task
        await play.until(task, lambda t: t.state is TaskState.QUEUED)
        async with connect(house.bus_config(Service.OPERATOR), Service.OPERATOR) as operator:
            dead: list[Stored] = await operator.replay("dead.>", stream=Stream.DEAD)
        assert [d.data for d in dead] == [b"not json", NESTED]
        await play.send(task, CancelTask(key="c"))
        await play.until(task, lambda t: t.state is TaskState.CANCELLED)


NO_TEXT = b'{"type":"decision","at":"2026-01-01T00:00:00Z","state":"cancelled","receipt":{"key":"\xff"}}'


@pytest.mark.parametrize("odd", [NO_TEXT, NESTED], ids=["no text", "nested"])
async def test_an_event_that_no_decoder_reads_is_parked_and_stops_no_other_task(
    house: NatsHouse, schedulers: Schedulers, odd: bytes
) -> None:
    schedulers.start()
    async with player(house) as play:
        ended = await play.submit(f"ended {len(odd)}")
        await play.send(ended, CancelTask(key="c"))
        await play.until(ended, lambda t: t.state is TaskState.CANCELLED)
        async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as other:
            await other._jetstream.publish(f"evt.{USER}.{ended}.task.cancelled", odd)
        task = await play.submit(f"after {len(odd)}")
        await play.until(task, lambda t: t.state is TaskState.QUEUED)
        async with connect(house.bus_config(Service.OPERATOR), Service.OPERATOR) as operator:
            assert odd in [d.data for d in await operator.replay("dead.>", stream=Stream.DEAD)]


UNREAD = b'{"type":"decision"}'


async def test_a_queued_task_with_an_event_that_cannot_be_read_keeps_no_other_from_a_slot(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        stopped = await play.submit("stopped", queue="odd")
        await play.until(stopped, lambda t: t.state is TaskState.QUEUED)
        async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as other:
            await other._jetstream.publish(f"evt.{USER}.{stopped}.task.running", UNREAD)
        behind = await play.submit("behind it", queue="odd")
        granted = await play.claim("odd1", queue="odd")
        assert isinstance(granted, AttemptGranted)
        assert granted.task.id == behind
        listed = await play.gateway.ask(Service.SCHEDULER, ListTasks(user=USER), TaskList)
        assert {line.id: line.waits for line in listed.tasks}[stopped] == STOPPED
        await play.send(stopped, CancelTask(key="c"))
        await play.send(behind, CancelTask(key="c"))
        await play.until(behind, lambda t: t.state is TaskState.CANCELLED)
        assert isinstance(await play.claim("odd2", queue="odd", wait_seconds=0.1), NothingToClaim)
        *_, last = await play.gateway.replay(f"evt.{USER}.{stopped}.task.>")
        assert last.data == UNREAD, "nothing was decided without it"

        # One that can read it, played by taking it away: the command that waited is answered.
        async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as other:
            await other.purge(Stream.TASKS, last.subject)
        schedulers.processes[0].terminate()
        schedulers.start()
        await play.until(stopped, lambda t: t.state is TaskState.CANCELLED)
