"""Which queued task a free slot gets, and why the others wait. Pure: it looks at every task. `line.py` gives the same
answers without that, and is tested against this.

Users share the slots max-min fair (Bertsekas and Gallager, Data Networks, 6.5.2): the next goes to whom holds the
fewest. Of those who hold as many, the one served longest ago has its turn: round robin, so that nobody gains by asking
for more (Nagle, RFC 970, 1985). Priorities order a user's own tasks and nothing else; a task that waits gains one each
`priority_seconds`, as much as any other, so two tasks never change places, and a place is a number that stays."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import assert_never

from msgspec import Struct, field

from protocol.evolve import QueueSettings, Task
from protocol.query import Why
from protocol.task import TaskState

LONG_AGO = datetime.fromtimestamp(0, UTC)

Turn = tuple[float, str]
"""A task's place among its user's: from when it counts as waiting, and its id."""
Rank = tuple[int, float, Turn]
"""Its place among all: what its user has running, when that user was last served, and its turn."""


class Rules(Struct, frozen=True, kw_only=True):
    """How many tasks run side by side, and how waiting counts."""

    running_per_user: int = 4
    running_per_repository: int = 100
    running_per_queue: int = 1_000
    priority_seconds: float = 300.0
    """A task gains one priority each time it has waited for so long."""
    queues: Mapping[str, QueueSettings] = {}
    """What the owner set."""

    def is_paused(self, queue: str) -> bool:
        return queue in self.queues and self.queues[queue].paused

    def limit_of(self, queue: str) -> int:
        limit = self.queues[queue].running_limit if queue in self.queues else None
        return self.running_per_queue if limit is None else limit


class Slot(Struct, frozen=True):
    """Room for one attempt at a runner."""

    queue: str
    labels: frozenset[str] = frozenset()

    def fits(self, task: Task) -> bool:
        return task.queue == self.queue and self.labels.issuperset(task.labels)


class Load(Struct):
    """What runs, counted."""

    users: dict[str, int] = field(default_factory=dict)
    repositories: dict[str, int] = field(default_factory=dict)
    queues: dict[str, int] = field(default_factory=dict)
    served: dict[str, float] = field(default_factory=dict)
    """When each user last got a slot."""

    @classmethod
    def of(cls, tasks: Iterable[Task]) -> Load:
        load = cls()
        for task in tasks:
            if task.claimed_at is not None:
                load.serve(task.user, served_at(task))
            if task.holder is not None:
                load.add(task.user, task.repository, task.queue, 1)
        return load

    def serve(self, user: str, at: float) -> None:
        self.served[user] = max(at, self.served.get(user, 0.0))

    def add(self, user: str, repository: str, queue: str, number: int) -> None:
        for counts, name in ((self.users, user), (self.repositories, repository), (self.queues, queue)):
            counts[name] = counts.get(name, 0) + number
            if not counts[name]:
                del counts[name]

    def of_user(self, user: str) -> tuple[int, float]:
        """What is compared first."""
        return self.users.get(user, 0), self.served.get(user, 0.0)

    def latest(self) -> float:
        return max(self.served.values(), default=0.0)


class Wait(Struct, frozen=True):
    """Why a task stays."""

    task: Task
    why: Why
    before: int
    """How many tasks that could have a slot get one first."""


class Plan(Struct, frozen=True):
    """What one look at everything leads to."""

    grants: tuple[tuple[Slot, Task], ...]
    waits: tuple[Wait, ...]
    """In the order in which they will be served."""


def served_at(task: Task) -> float:
    return task.claimed_at.timestamp() if task.claimed_at else 0.0


def turn_of(task: Task, rules: Rules) -> Turn:
    return (task.in_line_since or LONG_AGO).timestamp() - task.priority * rules.priority_seconds, task.id


def rank_of(task: Task, load: Load, rules: Rules) -> Rank:
    return *load.of_user(task.user), turn_of(task, rules)


def effective_priority(task: Task, rules: Rules, now: datetime) -> float:
    return task.priority + (now - (task.in_line_since or now)).total_seconds() / rules.priority_seconds


def limit_reached(task: Task, load: Load, rules: Rules) -> Why | None:
    """What keeps a task from any slot, however many are free."""
    if rules.is_paused(task.queue):
        return Why.PAUSED
    if load.queues.get(task.queue, 0) >= rules.limit_of(task.queue):
        return Why.QUEUE_LIMIT
    if load.users.get(task.user, 0) >= rules.running_per_user:
        return Why.USER_LIMIT
    if load.repositories.get(task.repository, 0) >= rules.running_per_repository:
        return Why.REPOSITORY_LIMIT
    return None


def choose(queued: Iterable[Task], slot: Slot, load: Load, rules: Rules) -> Task | None:
    """The task that a free slot gets."""
    fitting = (task for task in queued if slot.fits(task) and limit_reached(task, load, rules) is None)
    return min(fitting, key=lambda task: rank_of(task, load, rules), default=None)


def in_order(queued: Iterable[Task], load: Load, rules: Rules) -> Iterator[Task]:
    """The tasks of one queue as they will be served, should no other come and none of those that run end."""
    left, load, latest = list(queued), _copy(load), load.latest()
    for later in count(1):
        if not left:
            return
        task = min(left, key=lambda task: rank_of(task, load, rules))
        left.remove(task)
        yield task
        load.add(task.user, task.repository, task.queue, 1)
        load.serve(task.user, latest + later)


def why(task: Task, serving: Collection[Slot] | None, load: Load, rules: Rules) -> Why:
    """Why a task waits. `serving` has a slot of every runner, free or not; None while that is not known."""
    reached = limit_reached(task, load, rules)
    if reached is Why.PAUSED or serving is None:
        return reached or Why.NO_SLOT
    of_queue = [slot for slot in serving if slot.queue == task.queue]
    if not of_queue:
        return Why.NOT_SERVED
    if not any(slot.fits(task) for slot in of_queue):
        return Why.NO_LABELS
    return reached or Why.NO_SLOT


def plan(tasks: Collection[Task], slots: Sequence[Slot], serving: Collection[Slot] | None, rules: Rules) -> Plan:
    """Give the free slots away, those with the fewest labels first: the rare ones stay free for who needs them."""
    load, grants = Load.of(tasks), []
    queued = {task.id: task for task in tasks if is_queued(task)}
    for slot in sorted(slots, key=lambda slot: len(slot.labels)):
        task = choose(queued.values(), slot, load, rules)
        if task is not None:
            grants.append((slot, queued.pop(task.id)))
            load.add(task.user, task.repository, task.queue, 1)
            load.serve(task.user, load.latest() + 1)
    queues = sorted({task.queue for task in queued.values()})
    waits = (wait for queue in queues for wait in waits_of(queue, queued.values(), serving, load, rules))
    return Plan(grants=tuple(grants), waits=tuple(waits))


def waits_of(
    queue: str, queued: Iterable[Task], serving: Collection[Slot] | None, load: Load, rules: Rules
) -> Iterator[Wait]:
    return explain(in_order((task for task in queued if task.queue == queue), load, rules), serving, load, rules)


def explain(ordered: Iterable[Task], serving: Collection[Slot] | None, load: Load, rules: Rules) -> Iterator[Wait]:
    """Why the tasks of one queue wait, given in their order."""
    before = 0
    for task in ordered:
        reason = why(task, serving, load, rules)
        yield Wait(task, reason, before)
        before += reason is Why.NO_SLOT


def is_queued(task: Task) -> bool:
    return task.is_open and task.state is TaskState.QUEUED


def sentence(wait: Wait, load: Load, rules: Rules, *, asker: str) -> str:
    """What the asker reads, who may be another than the task's user."""
    task = wait.task
    match wait.why:
        case Why.PAUSED:
            return f"the queue {task.queue} is paused"
        case Why.NOT_SERVED:
            return f"no runner serves the queue {task.queue}"
        case Why.NO_LABELS:
            return f"no runner of the queue {task.queue} has the labels {', '.join(task.labels)}"
        case Why.QUEUE_LIMIT:
            return f"the queue {task.queue} has {load.queues.get(task.queue, 0)} running, its limit"
        case Why.USER_LIMIT:
            who = "you have" if asker == task.user else "its user has"
            count = load.users.get(task.user, 0)
            return f"{who} {count} {'task' if count == 1 else 'tasks'} running, the limit"
        case Why.REPOSITORY_LIMIT:
            return f"the repository has {load.repositories.get(task.repository, 0)} running, its limit"
        case Why.NO_SLOT:
            ahead = f"; {wait.before} {'is' if wait.before == 1 else 'are'} before it" if wait.before else ""
            return f"waits for a free slot of the queue {task.queue}{ahead}"
        case _:
            assert_never(wait.why)


def _copy(load: Load) -> Load:
    return Load(dict(load.users), dict(load.repositories), dict(load.queues), dict(load.served))
