"""Which task a free slot gets and why the others wait: a table of cases with a reason each."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from protocol.evolve import Holder, QueueSettings, Task
from protocol.query import Why
from protocol.task import TaskState
from services.scheduler.line import Line
from services.scheduler.policy import Load, Rules, Slot, Wait, effective_priority, plan, sentence
from tests.unit.desk import NOW

PLAIN = Slot("default")
ARM = Slot("default", frozenset({"arm64"}))
GPU = Slot("gpu", frozenset({"cuda", "gpu"}))


def queued(name: str, user: str = "ann", seconds: float = 0, **more: Any) -> Task:
    """A task that came `seconds` after the first."""
    since = NOW + timedelta(seconds=seconds)
    more = {"repository": f"r-{name}", **more}
    return Task(id=name, user=user, turn=1, queued_at=since, in_line_since=since, **more)


def running(name: str, user: str = "ann", served: float = 0, **more: Any) -> Task:
    """A task that got its slot `served` seconds after the first came."""
    at = NOW + timedelta(seconds=served)
    return Task(
        id=name,
        user=user,
        turn=1,
        attempt=1,
        claimed_at=at,
        holder=Holder(attempt=1, runner="r1", request=name),
        **{"state": TaskState.RUNNING, "repository": f"r-{name}", **more},
    )


def done(name: str, user: str, served: float) -> Task:
    return Task(
        id=name, user=user, turn=1, state=TaskState.SUCCEEDED, claimed_at=NOW + timedelta(seconds=served), attempt=1
    )


@pytest.mark.parametrize(
    ("why", "tasks", "slots", "rules", "given"),
    [
        ("the one that waits longest", [queued("b", seconds=1), queued("a", seconds=2)], [PLAIN], {}, "b"),
        ("no slot, no work", [queued("a")], [], {}, ""),
        ("as many as there are slots", [queued("a"), queued("b"), queued("c")], [PLAIN, PLAIN], {}, "a b"),
        (
            "the user with fewer running first, however new the task",
            [running("x"), queued("a"), queued("b", "bob", 99)],
            [PLAIN],
            {},
            "b",
        ),
        (
            "of users with as many, the one served longest ago",
            [done("x", "ann", 5), done("y", "bob", 4), queued("a"), queued("b", "bob", 99)],
            [PLAIN],
            {},
            "b",
        ),
        (
            "who was never served, before who was",
            [done("x", "ann", 5), queued("a"), queued("b", "bob", 99)],
            [PLAIN],
            {},
            "b",
        ),
        (
            "a thousand tasks of one user hold up no other: they take turns",
            [*(queued(f"a{number}") for number in range(9)), queued("b1", "bob", 9), queued("b2", "bob", 9)],
            [PLAIN] * 4,
            {},
            "a0 b1 a1 b2",
        ),
        (
            "a higher priority first, of one's own",
            [queued("a"), queued("b", seconds=9, priority=1)],
            [PLAIN],
            {},
            "b",
        ),
        (
            "a high priority gains nothing over other users",
            [done("x", "ann", 5), queued("a", priority=10), queued("b", "bob", 99, priority=-10)],
            [PLAIN],
            {},
            "b",
        ),
        (
            "an old one of low priority, after a wait that is worth more",
            [queued("a", priority=-10), queued("b", seconds=20 * 300 + 1, priority=10)],
            [PLAIN],
            {},
            "a",
        ),
        (
            "the high one, just before that",
            [queued("a", priority=-10), queued("b", seconds=20 * 300 - 1, priority=10)],
            [PLAIN],
            {},
            "b",
        ),
        (
            "nobody over the user's limit",
            [running("x"), running("y"), queued("a"), running("z", "bob"), running("w", "bob"), running("v", "bob")],
            [PLAIN],
            {"running_per_user": 2},
            "",
        ),
        (
            "another task of the user's, where a repository has its limit",
            [running("x", "bob", repository="r"), queued("a", repository="r"), queued("b", seconds=9)],
            [PLAIN],
            {"running_per_repository": 1},
            "b",
        ),
        (
            "nothing more of a queue that has its limit",
            [running("x", "bob", queue="gpu"), queued("a", queue="gpu")],
            [GPU],
            {"queues": {"gpu": QueueSettings(running_limit=1)}},
            "",
        ),
        ("nothing of a paused queue", [queued("a")], [PLAIN], {"queues": {"default": QueueSettings(paused=True)}}, ""),
        ("only of its own queue", [queued("a"), queued("b", seconds=9, queue="gpu")], [GPU], {}, "b"),
        ("only to a runner with all the labels", [queued("a", labels=("arm64", "gpu"))], [PLAIN, ARM], {}, ""),
        ("to a runner with more labels too", [queued("a", queue="gpu", labels=("gpu",))], [GPU], {}, "a"),
        (
            "what asks for nothing goes to the plain slot, and leaves the rare one free",
            [queued("a"), queued("b", seconds=9, labels=("arm64",))],
            [ARM, PLAIN],
            {},
            "a b",
        ),
        (
            "a task that waits for its user holds its slot",
            [running("x", state=TaskState.WAITING), queued("a")],
            [PLAIN],
            {"running_per_user": 1},
            "",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_a_free_slot_gets(why: str, tasks: list[Task], slots: list[Slot], rules: dict[str, Any], given: str) -> None:
    found = plan(tasks, slots, set(slots), Rules(**rules))
    assert " ".join(task.id for _, task in found.grants) == given, why
    assert all(slot.fits(task) for slot, task in found.grants)
    assert len({task.id for _, task in found.grants}) == len(found.grants)
    assert " ".join(given_by_line(tasks, slots, Rules(**rules))) == given, "the line that serves gives the same"


def given_by_line(tasks: list[Task], slots: list[Slot], rules: Rules) -> Iterator[str]:
    line, by_id = Line(rules), {task.id: task for task in tasks}
    for task in tasks:
        line.update(task)
    for number, slot in enumerate(sorted(slots, key=lambda slot: len(slot.labels))):
        if chosen := line.choose(slot):
            task = by_id[chosen]
            line.update(
                running(
                    task.id, task.user, 1e6 + number, queue=task.queue, labels=task.labels, repository=task.repository
                )
            )
            yield chosen


@pytest.mark.parametrize(
    ("why", "sentence_", "tasks", "serving", "rules"),
    [
        (Why.NO_SLOT, "waits for a free slot of the queue default", [queued("a")], {PLAIN}, {}),
        (
            Why.NO_SLOT,
            "waits for a free slot of the queue default; 2 are before it",
            [queued("a", seconds=9), queued("b"), queued("c", seconds=1)],
            {PLAIN},
            {},
        ),
        (
            Why.NO_SLOT,
            "waits for a free slot of the queue default; 1 is before it",
            [queued("a", seconds=9), queued("b"), queued("c", labels=("arm64",))],
            {PLAIN},
            {},
        ),
        (Why.NO_SLOT, "waits for a free slot of the queue gpu", [queued("a", queue="gpu")], None, {}),
        (Why.NOT_SERVED, "no runner serves the queue gpu", [queued("a", queue="gpu")], {PLAIN}, {}),
        (
            Why.NO_LABELS,
            "no runner of the queue default has the labels arm64, gpu",
            [queued("a", labels=("arm64", "gpu"))],
            {PLAIN, ARM, GPU},
            {},
        ),
        (
            Why.PAUSED,
            "the queue default is paused",
            [queued("a")],
            set(),
            {"queues": {"default": QueueSettings(paused=True)}},
        ),
        (
            Why.USER_LIMIT,
            "you have 2 tasks running, the limit",
            [queued("a"), running("x"), running("y", queue="gpu")],
            {PLAIN},
            {"running_per_user": 2},
        ),
        (
            Why.REPOSITORY_LIMIT,
            "the repository has 1 running, its limit",
            [queued("a", repository="r"), running("x", "bob", repository="r")],
            {PLAIN},
            {"running_per_repository": 1},
        ),
        (
            Why.QUEUE_LIMIT,
            "the queue default has 1 running, its limit",
            [queued("a"), running("x", "bob")],
            {PLAIN},
            {"running_per_queue": 1},
        ),
    ],
)
def test_a_task_that_waits_is_told_why(
    why: Why, sentence_: str, tasks: list[Task], serving: set[Slot] | None, rules: dict[str, Any]
) -> None:
    given = Rules(**rules)
    [wait] = [wait for wait in plan(tasks, [], serving, given).waits if wait.task.id == "a"]
    assert wait.why is why
    assert sentence(wait, Load.of(tasks), given, asker="ann") == sentence_


def test_of_another_users_task_it_is_not_said_that_you_have_it_running() -> None:
    tasks, rules = [queued("a"), running("x")], Rules(running_per_user=1)
    wait = Wait(tasks[0], Why.USER_LIMIT, 0)
    assert sentence(wait, Load.of(tasks), rules, asker="owner") == "its user has 1 task running, the limit"


def test_a_priority_grows_with_the_wait() -> None:
    task = queued("a", priority=-2)
    assert effective_priority(task, Rules(priority_seconds=60), NOW + timedelta(seconds=90)) == -0.5
