"""Cron schedules: when they are due, what they owe, and when they stop by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from protocol.evolve import Task, User, evolve_user
from protocol.receipts import SCHEDULES_RECEIPTS_LIMIT
from protocol.schedule import OPEN_RUNS_LIMIT, CatchUp, Schedule, Submission
from protocol.task import Receipt, ReceiptStatus, SubmitTask, TaskState
from protocol.user import (
    AddSchedule,
    AddUser,
    AnyScheduleEvent,
    EndRun,
    FireSchedule,
    PauseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    Role,
    RunEnded,
    ScheduleFired,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    UserCommand,
    UserDecision,
)
from services import cron
from services.scheduler.decide import answer_user, end_unsent, owed, user_timers

NOW = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)
SUBMISSION = Submission(prompt="Update the dependencies", repository="https://git.example/x")


class Log:
    """The owner's log, and commands to it as the scheduler would give them."""

    def __init__(self, catch_up: CatchUp = CatchUp.ONCE) -> None:
        self.user = User(id="owner")
        self.now = NOW
        self.sequence = 0
        self.give(AddUser(key="u", name="Owner", role=Role.OWNER))
        self.give(
            AddSchedule(
                key="a",
                schedule="s1",
                name="nightly",
                cron="0 * * * *",
                time_zone="Europe/Berlin",
                submission=SUBMISSION,
                catch_up=catch_up,
            )
        )

    def give(self, command: UserCommand) -> tuple[str, str]:
        self.sequence += 1
        decision = answer_user(self.user, command, self.sequence, self.now)  # type: ignore[arg-type]
        assert decision is not None
        assert decision.receipt is not None
        self.user = evolve_user(self.user, decision)
        return decision.receipt.status, decision.receipt.reason

    def fire(self, due: datetime | None = None) -> str:
        due = due or self.schedule.next_at
        assert due is not None
        return self.give(FireSchedule(key=f"f{self.sequence}", schedule="s1", due=due))[0]

    def end(self, outcome: TaskState) -> str:
        task = self.schedule.runs[0].task
        command = EndRun(key=f"e{self.sequence}", schedule="s1", task=task, outcome=outcome, reason="no tests")
        return self.give(command)[0]

    @property
    def schedule(self) -> Schedule:
        return self.user.schedules["s1"]


def nothing_yet(task: str) -> Task:
    return Task(id=task, user="owner")


def test_an_occurrence_owes_one_task_until_that_one_is_there_and_its_end_once_it_has_one() -> None:
    log = Log()
    first = NOW.replace(hour=13, minute=0)
    assert user_timers(log.user) == {"s1": first}
    assert list(owed(log.user, nothing_yet)) == []
    log.now = first
    assert log.fire() == "consumed"
    assert user_timers(log.user) == {"s1": first + HOUR}
    [(task, command)] = owed(log.user, nothing_yet)  # type: ignore[misc]
    assert isinstance(command, SubmitTask)
    assert (command.prompt, command.title, command.schedule) == (SUBMISSION.prompt, "nightly", "s1")
    assert [(task, command)] == list(owed(log.user, nothing_yet)), "whoever takes over owes the same"
    running = Task(id=task, user="owner", turn=1, state=TaskState.RUNNING)
    assert list(owed(log.user, lambda _: running)) == []
    done = Task(id=task, user="owner", turn=1, state=TaskState.SUCCEEDED)
    [end] = owed(log.user, lambda _: done)
    assert isinstance(end, EndRun)
    assert log.give(end)[0] == "consumed"
    assert list(owed(log.user, lambda _: done)) == []
    assert (log.schedule.last_task, log.schedule.last_outcome) == (task, TaskState.SUCCEEDED)


def test_a_submission_that_is_rejected_is_a_failed_run() -> None:
    log = Log()
    log.fire()
    [(task, command)] = owed(log.user, nothing_yet)  # type: ignore[misc]
    no = Receipt(key=command.key, status=ReceiptStatus.REJECTED, reason="No such model.")
    rejected = Task(id=task, user="owner", receipts={command.key: no})
    [end] = owed(log.user, lambda _: rejected)
    assert isinstance(end, EndRun)
    assert (end.outcome, end.reason) == (TaskState.FAILED, "No such model.")


def test_a_timer_that_comes_early_or_twice_makes_no_second_task() -> None:
    log = Log()
    due = log.schedule.next_at
    assert due is not None
    assert log.fire(due - HOUR) == "rejected"
    assert log.fire(due) == "consumed"
    assert log.fire(due) == "rejected"
    assert len(log.schedule.runs) == 1


@pytest.mark.parametrize(
    ("catch_up", "late", "runs"),
    [
        (CatchUp.SKIP, timedelta(seconds=30), 1),
        (CatchUp.SKIP, timedelta(minutes=30), 0),
        (CatchUp.SKIP, timedelta(hours=3), 1),  # the last one is due right now
        (CatchUp.ONCE, timedelta(minutes=30), 1),
        (CatchUp.ONCE, timedelta(days=3), 1),
        (CatchUp.ALL, timedelta(minutes=30), 1),
        (CatchUp.ALL, timedelta(hours=3), 4),
        (CatchUp.ALL, timedelta(days=3), OPEN_RUNS_LIMIT),
    ],
)
def test_what_fell_due_while_the_server_was_down_is_caught_up_as_it_was_told(
    catch_up: CatchUp, late: timedelta, runs: int
) -> None:
    log = Log(catch_up)
    due = log.schedule.next_at
    assert due is not None
    log.now = due + late
    log.fire()
    assert len(log.schedule.runs) == runs
    assert len({run.task for run in log.schedule.runs}) == runs
    assert all(due <= run.due <= log.now for run in log.schedule.runs)
    assert log.schedule.next_at is not None
    assert log.now < log.schedule.next_at <= log.now + HOUR


def test_no_more_runs_are_open_than_the_limit() -> None:
    log = Log()
    for _ in range(OPEN_RUNS_LIMIT + 3):
        assert log.schedule.next_at is not None
        log.now = log.schedule.next_at
        log.fire()
    assert len(log.schedule.runs) == OPEN_RUNS_LIMIT


def test_three_failures_in_a_row_pause_it_and_a_success_begins_the_count_anew() -> None:
    log = Log()
    outcomes = (TaskState.FAILED, TaskState.FAILED, TaskState.SUCCEEDED, *[TaskState.FAILED] * 2, TaskState.CANCELLED)
    for outcome in outcomes:
        log.fire()
        log.end(outcome)
        assert not log.schedule.paused
    log.fire()
    log.end(TaskState.FAILED)
    assert log.schedule.paused == "3 runs in a row failed, at last: no tests"
    assert user_timers(log.user) == {}
    log.now += 5 * HOUR
    assert log.give(ResumeSchedule(key="r", schedule="s1"))[0] == "consumed"
    assert (log.schedule.failures, log.schedule.next_at) == (0, NOW.replace(hour=18, minute=0))
    assert log.schedule.runs == (), "what fell due while it was paused is not caught up"


def test_the_end_of_a_run_that_is_told_twice_counts_once() -> None:
    log = Log()
    log.fire()
    task = log.schedule.runs[0].task
    for key, status in (("one", "consumed"), ("two", "rejected")):
        end = EndRun(key=key, schedule="s1", task=task, outcome=TaskState.FAILED)
        assert log.give(end)[0] == status
    assert log.schedule.failures == 1


def test_what_is_paused_or_removed_fires_no_more() -> None:
    log = Log()
    due = log.schedule.next_at
    assert log.give(PauseSchedule(key="p", schedule="s1"))[0] == "consumed"
    assert log.give(PauseSchedule(key="q", schedule="s1"))[1] == "This schedule is paused already."
    assert log.fire(due) == "rejected"
    log.give(RemoveSchedule(key="x", schedule="s1"))
    assert log.fire(due) == "rejected"
    assert log.user.schedules == {}


@pytest.mark.parametrize(
    ("expression", "zone", "reason"),
    [
        ("0 9 * *", "UTC", "five fields"),
        ("0 0 9 * * *", "UTC", "five fields"),
        ("99 * * * *", "UTC", "bad minute"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("0 9 * * *", "Europe/Berln", "Europe/Berlin"),
        ("0 9 * * *", "/etc/passwd", "no time zone"),
        ("0 9 * * *", "", "no time zone"),
    ],
)
def test_a_wrong_expression_or_zone_is_refused_with_what_it_may_be(expression: str, zone: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        cron.check(expression, zone)
    command = AddSchedule(key="k", schedule="s2", name="n", cron=expression, time_zone=zone, submission=SUBMISSION)
    status, told = Log().give(command)
    assert status == "rejected"
    assert reason in told


BERLIN = "Europe/Berlin"


@pytest.mark.parametrize(
    ("why", "expression", "after", "expected"),
    [
        ("an hour that is skipped in spring comes right after the change", "30 2 * * *", "2026-03-28T12:00+01:00",
         ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("an hour that is repeated in autumn comes once", "30 2 * * *", "2026-10-24T12:00+02:00",
         ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("every hour comes in both of them", "0 * * * *", "2026-10-25T01:30+02:00",
         ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]),
    ],
)  # fmt: skip
def test_a_change_of_clocks_loses_and_repeats_nothing(
    why: str, expression: str, after: str, expected: list[str]
) -> None:
    begin = at = datetime.fromisoformat(after)
    found = []
    for _ in expected:
        at = cron.next_after(expression, BERLIN, at)
        found.append(at)
    assert found == [datetime.fromisoformat(each) for each in expected], why
    assert cron.last_until(expression, BERLIN, begin, at, 100) == found, "back as forth"


@pytest.mark.parametrize(
    "event",
    [
        ScheduleFired(schedule="s9", runs=(), next_at=NOW),
        SchedulePaused(schedule="s9", reason="r"),
        ScheduleResumed(schedule="s9", next_at=NOW),
        RunEnded(schedule="s9", task="t1", outcome=TaskState.FAILED),
        ScheduleRemoved(schedule="s9"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_what_comes_after_a_beginning_that_could_not_be_read_changes_nothing(event: AnyScheduleEvent) -> None:
    log = Log()
    after = evolve_user(log.user, UserDecision(at=NOW, events=(event,)))
    assert after.schedules == log.user.schedules


def test_a_time_zone_that_the_machine_no_longer_has_pauses_the_schedule_with_the_reason() -> None:
    log = Log()
    lost = replace(log.schedule, time_zone="Europe/Gone")
    log.user = replace(log.user, schedules={"s1": lost})
    assert log.fire() == "consumed"
    assert "no time zone 'Europe/Gone'" in log.schedule.paused
    assert user_timers(log.user) == {}, "and is not due again"
    assert log.give(ResumeSchedule(key="r", schedule="s1"))[0] == "rejected"


def test_a_run_whose_task_can_never_be_sent_has_failed_with_the_reason() -> None:
    log = Log()
    log.fire()
    [(task, command)] = owed(log.user, nothing_yet)  # type: ignore[misc]
    end = end_unsent(task, command, "Too long.")
    [told] = owed(log.user, lambda _: Task(id=task, user="owner", turn=1, state=TaskState.FAILED))
    assert isinstance(told, EndRun)
    assert end.key == told.key, "one run ends once"
    assert log.give(end)[0] == "consumed"
    assert (log.schedule.runs, log.schedule.failures) == ((), 1)
    assert list(owed(log.user, nothing_yet)) == []


def test_the_runs_of_schedules_push_out_no_receipt_of_what_a_person_sent() -> None:
    log = Log()
    for number in range(1_000):
        receipt = Receipt(key=f"end s1 {number}", status=ReceiptStatus.CONSUMED)
        log.user = evolve_user(log.user, UserDecision(at=NOW, receipt=receipt))
    assert {"u", "a"} <= set(log.user.receipts)
    assert len(log.user.receipts) == 2 + SCHEDULES_RECEIPTS_LIMIT
    assert "end s1 999" in log.user.receipts
