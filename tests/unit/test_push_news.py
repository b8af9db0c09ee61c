"""What is told, in which words, to whom, and how often."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.push.news import BODY_CHARS, WINDOW_SECONDS, News, Pace, devices_to_tell, news_of, one_line, tells
from protocol.evolve import Device, PushSubscription, Task
from protocol.task import (
    AttemptEnd,
    AttemptEnded,
    Decision,
    MessageSent,
    Published,
    Question,
    QuestionAnswered,
    QuestionRaised,
    TaskQueued,
    TaskState,
    TurnEnded,
    TurnOpened,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = QuestionRaised(question=Question(id="q1", text="Which database?"))
PUBLISHED = Published(branch="errand/t1-fix", commit="c", base_commit="b", pushed_to="https://git.example/a.git")


def ended(outcome: TaskState, turn: int = 1, **settings: Any) -> TurnEnded:
    return TurnEnded(turn=turn, outcome=outcome, **settings)


@pytest.mark.parametrize(
    ("state", "events", "told", "why"),
    [
        (TaskState.WAITING, (ASKED,), True, "a question"),
        (TaskState.SUCCEEDED, (ended(TaskState.SUCCEEDED),), True, "an outcome"),
        (TaskState.FAILED, (AttemptEnded(attempt=1, how=AttemptEnd.FAILED), ended(TaskState.FAILED)), True, "failed"),
        (TaskState.CANCELLED, (ended(TaskState.CANCELLED),), True, "cancelled"),
        (TaskState.WAITING, (AttemptEnded(attempt=1, how=AttemptEnd.PARKED),), False, "the question was told before"),
        (TaskState.WAITING, (MessageSent(message=1, text="x"),), False, "the user spoke while a question is open"),
        (TaskState.SUCCEEDED, (), False, "a receipt alone"),
        (TaskState.RUNNING, (QuestionAnswered(question="q1", text="yes"),), False, "an answer"),
        (TaskState.QUEUED, (TaskQueued(reason="x"),), False, "a runner was lost"),
        (
            TaskState.QUEUED,
            (ended(TaskState.SUCCEEDED), TurnOpened(turn=2)),
            False,
            "the user spoke last: the next turn is open already",
        ),
    ],
)
def test_questions_and_outcomes_are_told(state: TaskState, events: tuple[Any, ...], told: bool, why: str) -> None:
    assert (tells(Decision(at=NOW, state=state, events=events)) is not None) == told, why


@pytest.mark.parametrize(
    ("event", "task", "title", "body"),
    [
        (ASKED, {"state": TaskState.WAITING, "question": ASKED.question}, "Needs you: Fix it", "Which database?"),
        (
            ended(TaskState.SUCCEEDED, summary="All tests pass.", published=PUBLISHED),
            {"state": TaskState.SUCCEEDED},
            "Done: Fix it",
            "Branch errand/t1-fix. All tests pass.",
        ),
        (
            ended(TaskState.SUCCEEDED, summary="Nothing was to be done."),
            {"state": TaskState.SUCCEEDED},
            "Done: Fix it",
            "Nothing was to be done.",
        ),
        (
            ended(TaskState.FAILED, reason="The limit of 5.00 USD is reached.", published=PUBLISHED),
            {"state": TaskState.FAILED},
            "Failed: Fix it",
            "The limit of 5.00 USD is reached.",
        ),
        (ended(TaskState.CANCELLED, reason="Later."), {"state": TaskState.CANCELLED}, "Cancelled: Fix it", "Later."),
    ],
)
def test_the_words(event: Any, task: dict[str, Any], title: str, body: str) -> None:
    news = news_of(Task(id="t1", user="u", title="Fix it", turn=1, **task), event)
    assert news is not None
    assert (news.title, news.body, news.tag, news.url) == (title, body, "t1", "/#/task/t1")
    assert news.urgent == (event is ASKED)


@pytest.mark.parametrize(
    ("event", "task", "why"),
    [
        (ASKED, {"state": TaskState.RUNNING}, "answered since"),
        (ASKED, {"state": TaskState.WAITING, "question": Question(id="q2", text="?")}, "another question is open"),
        (ASKED, {"state": TaskState.CANCELLED}, "the turn ended"),
        (ended(TaskState.SUCCEEDED), {"state": TaskState.QUEUED, "turn": 2}, "the next turn is open"),
        (ended(TaskState.SUCCEEDED), {"state": TaskState.FAILED, "turn": 2}, "the next turn has ended too"),
    ],
)
def test_what_is_over_is_not_told(event: Any, task: dict[str, Any], why: str) -> None:
    assert news_of(Task(**{"id": "t1", "user": "u", "turn": 1, **task}), event) is None, why


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\ntwo\t three", "one two three"),
        ("\x1b[31mred\x1b[0m", "[31mred [0m"),
        ("safe\u202egpj.exe", "safe gpj.exe"),
        ("x" * BODY_CHARS, "x" * BODY_CHARS),
        ("x" * (BODY_CHARS + 1), "x" * (BODY_CHARS - 1) + "…"),
        (" " * 10_000 + "late", ""),
    ],
)
def test_what_an_agent_wrote_is_one_short_line(text: str, line: str) -> None:
    assert one_line(text, BODY_CHARS) == line


def test_the_devices_are_those_that_wish_it_without_the_one_that_did_it() -> None:
    def device(name: str, *, push: bool) -> Device:
        subscription = PushSubscription(id="s", sealed="s") if push else None
        return Device(id=name, name=name, token_hash="h", added_at=NOW, push=subscription)

    devices = [device("phone", push=True), device("tablet", push=True), device("terminal", push=False)]
    news = News("", "", "t1", "", by="phone")
    assert [found.id for found in devices_to_tell(devices, news)] == ["tablet"]


def test_a_device_is_not_flooded_and_the_last_one_says_that_there_is_more() -> None:
    pace = Pace(3)
    news = [News(f"{number}", "", f"t{number}", "") for number in range(5)]
    told = [pace.admit("phone", each, 0.0) for each in news]
    assert [each.title if each else None for each in told] == ["0", "1", "A lot is happening", None, None]
    assert pace.admit("tablet", news[4], 0.0) == news[4], "each device has its own"
    assert pace.admit("phone", news[4], WINDOW_SECONDS) == news[4], "the next minute"


def test_what_could_not_be_sent_does_not_count() -> None:
    pace = Pace(2)
    news = News("news", "", "t1", "")
    for _ in range(5):
        assert pace.admit("phone", news, 0.0) == news
        pace.take_back("phone")
