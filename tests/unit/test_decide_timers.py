"""What a task waits for by the clock, and what each wait leads to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from protocol.query import summarize
from protocol.task import (
    AnswerQuestion,
    AttemptEnd,
    AttemptEnded,
    CancelTask,
    FailAttempt,
    FireTimer,
    ParkAttempt,
    Question,
    QuestionAnswered,
    QuestionKind,
    RaiseQuestion,
    SendMessage,
    SubmitTask,
    TaskState,
    Usage,
)
from services.scheduler.decide import lose_lease, timers
from services.scheduler.decide.base import so_long
from services.scheduler.decide.timers import Timer
from tests.unit.desk import LIMITS, NOW, Desk

HOUR = timedelta(hours=1)
GRACE = timedelta(seconds=LIMITS.grace_seconds)


def submitted(**waits: object) -> Desk:
    desk = Desk()
    desk.give(SubmitTask(key="s", prompt="do it", repository="r", **waits))  # type: ignore[arg-type]
    return desk


def asked(**deadline: object) -> Desk:
    desk = submitted().claim()
    question = Question(id="q", text="which?", **deadline)  # type: ignore[arg-type]
    desk.give(RaiseQuestion(key="ask", attempt=1, question=question))
    return desk


def fire(desk: Desk, name: str, due: datetime, key: str = "fired") -> str:
    """The receipt's status."""
    desk.give(FireTimer(key=key, name=name, due=due))
    return desk.receipt(key)[0]


def test_a_task_that_was_told_no_time_waits_for_none() -> None:
    desk = submitted()
    assert timers(desk.task, LIMITS) == {}
    assert timers(desk.claim().task, LIMITS) == {}


def test_a_task_with_a_start_date_is_queued_then_and_its_other_times_count_from_there() -> None:
    start = NOW + HOUR
    desk = submitted(start_at=start, queue_seconds=60.0, turn_seconds=600.0)
    assert summarize(desk.task).until == start.isoformat()
    assert desk.task.state is TaskState.DELAYED
    assert timers(desk.task, LIMITS) == {Timer.DELAY: start, Timer.TURN: start + timedelta(seconds=600)}
    desk.now = start
    assert fire(desk, Timer.DELAY, start) == "consumed"
    assert desk.task.state is TaskState.QUEUED
    assert timers(desk.task, LIMITS)[Timer.QUEUE] == start + timedelta(seconds=60)


@pytest.mark.parametrize("start", [NOW, NOW - HOUR])
def test_a_start_date_that_has_passed_means_now(start: datetime) -> None:
    assert submitted(start_at=start).task.state is TaskState.QUEUED


@pytest.mark.parametrize(
    ("waits", "reason"),
    [
        ({"start_at": datetime(2026, 5, 1)}, "no time zone"),
        ({"start_at": NOW + timedelta(days=400)}, "more than a year"),
        ({"queue_seconds": 0.0}, "more than 0 seconds"),
        ({"turn_seconds": float("inf")}, "at most a year"),
        ({"turn_seconds": float("nan")}, "at most a year"),
    ],
)
def test_a_time_that_cannot_be_is_rejected_with_its_reason(waits: dict[str, object], reason: str) -> None:
    desk = submitted(**waits)
    assert desk.task.turn == 0
    assert reason in desk.receipt("s")[1]


def test_a_turn_that_no_runner_has_begun_in_time_fails_with_the_reason() -> None:
    desk = submitted(queue_seconds=7200.0)
    assert fire(desk, Timer.QUEUE, NOW + 2 * HOUR) == "consumed"
    assert desk.task.state is TaskState.FAILED
    assert "No runner was free within 2 h" in desk.task.reason
    desk.now += 2 * HOUR
    desk.give(SendMessage(key="m", text="again"))
    assert timers(desk.task, LIMITS) == {Timer.QUEUE: NOW + 4 * HOUR}, "the next turn has its own time"


def test_a_turn_that_has_begun_may_be_queued_again_for_as_long_as_it_takes() -> None:
    desk = submitted(queue_seconds=60.0).claim()
    desk.take(lose_lease(desk.task, NOW, LIMITS))
    assert desk.task.state is TaskState.QUEUED
    assert timers(desk.task, LIMITS) == {}
    assert fire(desk, Timer.QUEUE, NOW + HOUR) == "rejected"


def test_a_turn_ends_at_its_deadline_whoever_has_it() -> None:
    desk = submitted(turn_seconds=3600.0)
    assert timers(desk.task, LIMITS) == {Timer.TURN: NOW + HOUR}
    desk.claim()
    assert timers(desk.task, LIMITS) == {Timer.TURN: NOW + HOUR + GRACE}, "its runner has a minute to save the work"
    assert fire(desk, Timer.TURN, NOW + HOUR) == "rejected"
    assert fire(desk, Timer.TURN, NOW + HOUR + GRACE, "late") == "consumed"
    assert (desk.task.state, desk.task.holder) == (TaskState.FAILED, None)
    assert "did not end within 1 h" in desk.task.reason
    ended = desk.decisions[-1].events[0]
    assert isinstance(ended, AttemptEnded)
    assert (ended.how, ended.how.cuts_off) == (AttemptEnd.DEADLINE, True)
    assert timers(desk.task, LIMITS) == {}


def test_a_delayed_turn_ends_at_its_deadline_too() -> None:
    desk = submitted(turn_seconds=60.0).claim()
    desk.give(FailAttempt(key="x", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=3600))
    assert fire(desk, Timer.TURN, NOW + timedelta(seconds=60)) == "consumed"
    assert (desk.task.state, desk.task.delayed_until) == (TaskState.FAILED, None)


def test_what_a_turn_has_cost_by_its_deadline_is_not_forgotten() -> None:
    desk = submitted(turn_seconds=60.0).claim()
    spent = Usage(input_tokens=1000, cost_usd=0.5)
    desk.give(ParkAttempt(key="p", attempt=1, journal_sequence=0, usage=spent))
    fire(desk, Timer.TURN, NOW + HOUR)
    assert (desk.task.state, desk.task.usage) == (TaskState.FAILED, spent)


@pytest.mark.parametrize("parked", [False, True])
def test_a_question_that_nobody_answers_in_time_is_answered_by_its_default(parked: bool) -> None:
    desk = asked(deadline_seconds=600.0, default_answer="blue")
    if parked:
        desk.give(ParkAttempt(key="p", attempt=1, journal_sequence=0))
    due = NOW + timedelta(minutes=10)
    assert timers(desk.task, LIMITS) == {Timer.QUESTION: due}
    assert fire(desk, Timer.QUESTION, due) == "consumed"
    assert desk.task.state is (TaskState.QUEUED if parked else TaskState.RUNNING)
    answered = desk.decisions[-1].events[0]
    assert answered == QuestionAnswered(question="q", text="blue", by_deadline=True)
    desk.give(AnswerQuestion(key="late", question="q", text="red"))
    assert desk.receipt("late")[0] == "rejected"


def test_what_nobody_approves_in_time_is_not_approved() -> None:
    desk = asked(deadline_seconds=600.0, kind=QuestionKind.APPROVAL)
    fire(desk, Timer.QUESTION, NOW + HOUR)
    answered = desk.decisions[-1].events[0]
    assert isinstance(answered, QuestionAnswered)
    assert (answered.approved, answered.by_deadline) == (False, True)


def test_a_question_with_a_deadline_and_no_default_fails_its_turn() -> None:
    desk = asked(deadline_seconds=600.0)
    fire(desk, Timer.QUESTION, NOW + HOUR)
    assert desk.task.state is TaskState.FAILED
    assert "not answered within 10 min: which?" in desk.task.reason


@pytest.mark.parametrize(
    ("why", "desk", "name"),
    [
        (
            "it came before this question's time: it is another one's",
            asked(deadline_seconds=60.0, default_answer="x"),
            "question",
        ),
        ("another release's timers are nobody's here", submitted(), "retry"),
    ],
    ids=["question", "retry"],
)
def test_a_timer_of_something_else_changes_nothing(why: str, desk: Desk, name: str) -> None:
    before = desk.task.state
    assert fire(desk, name, NOW + timedelta(seconds=59)) == "rejected", why
    assert desk.task.state is before


def test_a_timer_that_fires_after_a_cancel_changes_nothing() -> None:
    desk = submitted(start_at=NOW + HOUR)
    desk.give(CancelTask(key="c"))
    assert timers(desk.task, LIMITS) == {}
    assert fire(desk, Timer.DELAY, NOW + HOUR) == "rejected"
    assert desk.task.state is TaskState.CANCELLED


def test_each_passing_failure_waits_longer_and_no_two_tasks_the_same() -> None:
    def waits(task: str) -> list[float]:
        desk, found = Desk(), []
        desk.task = type(desk.task)(id=task, user="owner")
        desk.submit()
        for attempt in (1, 2):
            desk.claim()
            failed = FailAttempt(
                key=f"x{attempt}", attempt=attempt, journal_sequence=0, reason="", retry_after_seconds=0
            )
            desk.give(failed)
            assert desk.task.delayed_until is not None
            found.append((desk.task.delayed_until - desk.now).total_seconds())
            fire(desk, Timer.DELAY, desk.task.delayed_until, f"t{attempt}")
        return found

    first, second = waits("t1"), waits("t2")
    assert 2 <= first[0] <= 3
    assert 4 <= first[1] <= 6
    assert first != second
    assert first == waits("t1"), "a decision that is made again is the same"


def test_a_failure_that_names_a_time_is_not_tried_before_it() -> None:
    desk = submitted().claim()
    desk.give(FailAttempt(key="x", attempt=1, journal_sequence=0, reason="429", retry_after_seconds=3600))
    assert desk.task.delayed_until is not None
    assert HOUR <= desk.task.delayed_until - NOW <= HOUR + timedelta(seconds=LIMITS.jitter_seconds)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(90, "90 s"), (60, "1 min"), (5400, "90 min"), (7200, "2 h"), (86_400, "24 h"), (172_800, "2 days")],
)
def test_a_length_of_time_is_said_in_its_own_unit(seconds: float, said: str) -> None:
    assert so_long(seconds) == said
