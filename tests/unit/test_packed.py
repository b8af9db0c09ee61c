"""An archived task takes little room in the scheduler, and is the same task again when somebody asks for it."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timedelta

import pytest

from protocol.evolve import Task
from protocol.task import FinishAttempt, ReceiptStatus, SendMessage, SubmitTask, TaskState, Usage
from services.scheduler.actors import TaskActor
from services.scheduler.decide import Limits, answer, put_away
from services.scheduler.packed import is_at_rest, pack, whole
from services.scheduler.policy import Rules
from services.scheduler.roster import Roster
from tests.unit.desk import NOW, Desk

ACTORS = 300
LIMIT_BYTES = 1_200
"""One that is not packed takes 2,600."""


def archived() -> Desk:
    """Submitted, run, ended, put away a month later."""
    desk = Desk().submit().claim()
    usage = Usage(input_tokens=10_000, output_tokens=1_000, cost_usd=0.1)
    desk.give(FinishAttempt(key="f", attempt=1, journal_sequence=3, summary="It is mended.", usage=usage))
    desk.take(put_away(desk.task, NOW + timedelta(days=30)))
    return desk


def folded(desk: Desk, name: str = "t1") -> TaskActor:
    actor = TaskActor("owner", name)
    for sequence, decision in enumerate(desk.decisions, start=1):
        actor.applied(decision, sequence)
    return actor


@pytest.mark.parametrize("task", [Desk().task, Desk().submit().claim().task, archived().task])
def test_what_is_packed_is_the_same_task_again(task: Task) -> None:
    packed = pack(task)
    assert whole(packed) == task
    assert (packed.id, packed.state, packed.updated_at) == (task.id, task.state, task.updated_at)


@pytest.mark.parametrize(
    ("archived_at", "spent", "rests", "why"),
    [
        (None, {}, False, "it is not in the archive"),
        (NOW, {}, True, "it spent nothing"),
        (NOW, {NOW - timedelta(days=3): 1.0}, True, "that day is over in every time zone"),
        (NOW, {NOW - timedelta(days=1): 1.0}, False, "the day in which it was spent may go on"),
    ],
)
def test_a_task_rests_once_nothing_follows_from_it(
    archived_at: datetime | None, spent: dict[datetime, float], rests: bool, why: str
) -> None:
    assert is_at_rest(Task(id="t1", user="owner", archived_at=archived_at, spent=spent), NOW) is rests, why


def test_an_archived_task_knows_its_receipts_and_is_opened_again() -> None:
    actor = folded(archived())
    assert actor.is_at_rest
    assert actor.task.receipts["s"].status is ReceiptStatus.CONSUMED
    assert answer(actor.task, SubmitTask(key="s", prompt="do it", repository="r"), 9, NOW, Limits()) is None
    opened = answer(actor.task, SendMessage(key="two", text="Go on."), 10, NOW + timedelta(days=31), Limits())
    assert opened is not None
    actor.applied(opened, 5)
    assert not actor.is_at_rest
    assert (actor.task.state, actor.task.turn, actor.task.archived_at) == (TaskState.QUEUED, 2, None)


def test_an_archived_task_takes_less_than_half_of_the_room() -> None:
    desk = archived()
    tracemalloc.start()
    try:
        actors = [folded(desk, f"t{number}") for number in range(ACTORS)]
        size_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(actor.is_at_rest for actor in actors)
    assert size_bytes / ACTORS < LIMIT_BYTES


def test_a_task_that_another_scheduler_put_away_waits_in_no_line() -> None:
    roster, (submitted, *others) = Roster(Rules()), archived().decisions
    actor = roster.task("owner", "t1")
    actor.applied(submitted, 1)
    roster.index(actor)
    assert "t1" in roster.line
    for sequence, decision in enumerate(others, start=2):
        actor.applied(decision, sequence)
    roster.index(actor)
    assert actor.is_at_rest
    assert "t1" not in roster.line
    assert not roster.queued
