"""What a person sees of the queues: the own, and of others no more than what goes first."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.evolve import QueueSettings, Task
from protocol.query import ClaimAttempt, QueueShown, ShowQueue
from services.scheduler.line import Line
from services.scheduler.policy import Rules
from services.scheduler.queries import Queries
from services.scheduler.roster import Roster
from services.scheduler.runners import SILENCE, Runners
from services.scheduler.show import PLACES_LIMIT, Scene, reason, show
from tests.unit.desk import NOW
from tests.unit.test_line import held, waiting

TASKS = (
    waiting("a1", "ann", 0, title="secret", repository="ra"),
    waiting("a2", "ann", 1, title="secret", repository="ra", priority=-1),
    waiting("b1", "bob", 2, title="fix", repository="rb"),
    waiting("b2", "bob", 3, title="train", repository="rb", queue="gpu"),
    held(waiting("a0", "ann", 0, title="secret"), 5),
)
LATER = NOW + timedelta(minutes=10)


def scene(*tasks: Task, rules: Rules | None = None) -> Scene:
    line, runners = Line(rules or Rules()), Runners()
    for task in tasks:
        line.update(task)
    runners.begin(NOW)
    runners.hear(ClaimAttempt(request="q", runner="r2", labels=("arm64",), slots=3), LATER)
    by_id, holding = {task.id: task for task in tasks}, [task for task in tasks if task.holder]
    present, serving = runners.present(holding, LATER), runners.serving(holding, LATER)
    return Scene(line=line, task=by_id.__getitem__, held=holding, runners=present, serving=serving, now=LATER)


def shown(user: str, *, everything: bool = False, limit: int = 100) -> QueueShown:
    return show(ShowQueue(user=user, everything=everything, limit=limit), scene(*TASKS))


def test_a_user_sees_the_own_tasks_and_how_many_go_first() -> None:
    seen = shown("ann")
    assert [(task.id, task.place, task.title) for task in seen.waiting] == [("a1", 2, "secret"), ("a2", 3, "secret")]
    assert [task.reason for task in seen.waiting] == [
        "waits for a free slot of the queue default; 1 is before it",
        "waits for a free slot of the queue default; 2 are before it",
    ]
    assert seen.waiting[1].effective_priority == 1.0, "-1, and 10 minutes of waiting"
    assert [(queue.queue, queue.waiting, queue.running) for queue in seen.queues] == [("default", 2, 1)]
    assert [(task.id, task.runner) for task in seen.running] == [("a0", "")]


def test_the_owner_sees_where_everybodys_stand_and_not_what_they_are_about() -> None:
    seen = shown("owner", everything=True)
    assert [(task.id, task.user) for task in seen.waiting] == [
        ("b1", "bob"),
        ("a1", "ann"),
        ("a2", "ann"),
        ("b2", "bob"),
    ]
    assert {(task.title, task.repository) for task in (*seen.waiting, *seen.running)} == {("", "")}
    assert [(queue.queue, queue.waiting, queue.served) for queue in seen.queues] == [
        ("default", 3, True),
        ("gpu", 1, False),
    ]
    runners = [(runner.runner, runner.labels, runner.busy, runner.slots) for runner in seen.runners]
    assert runners == [("r1", (), 1, 1), ("r2", ("arm64",), 0, 3)]


def test_what_is_not_shown_is_said_to_be_there() -> None:
    seen = shown("owner", everything=True, limit=2)
    assert ([task.id for task in seen.waiting], seen.more) == (["b1", "a1"], True)
    assert not shown("owner", everything=True, limit=4).more
    many = scene(*(waiting(f"t{number}", "ann", number) for number in range(PLACES_LIMIT + 5)), waiting("b", "bob", 0))
    seen = show(ShowQueue(user="ann", limit=10 * PLACES_LIMIT), many)
    assert (len(seen.waiting), seen.more) == (PLACES_LIMIT - 1, True), "one place of those that were looked at is bob's"


def test_the_line_of_a_list_says_why_without_a_place() -> None:
    gpu = scene(*TASKS)
    assert reason(TASKS[3], gpu) == "no runner serves the queue gpu"
    assert reason(TASKS[1], gpu) == "waits for a free slot of the queue default"
    paused = scene(*TASKS, rules=Rules(queues={"gpu": QueueSettings(paused=True)}))
    assert reason(TASKS[3], paused) == "the queue gpu is paused"


def test_that_nobody_serves_a_queue_is_not_said_before_it_can_be_known() -> None:
    runners = Runners()
    runners.begin(NOW)
    assert runners.serving([], NOW) is None
    assert runners.serving([], NOW + SILENCE) == set()
    runners.hear(ClaimAttempt(request="q", runner="r", wait_seconds=2), NOW)
    assert len(runners.present([], NOW + timedelta(seconds=6))) == 1
    assert runners.present([], NOW + timedelta(seconds=8)) == []


@pytest.mark.anyio
async def test_a_number_below_one_asks_for_one_and_fails_nothing() -> None:
    roster, clock, money = Roster(Rules()), SimpleNamespace(now=lambda: NOW), SimpleNamespace()
    roster.stopped["evt.ann.user.>"] = roster.user("ann")
    fixed: Any = (money, clock)
    found = await Queries(roster, Runners(), *fixed).queue(ShowQueue(user="ann", limit=-1))
    assert [one.user for one in found.stopped] == ["ann"]
