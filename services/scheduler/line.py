"""Who waits, kept in the order of `policy.py`: the next task for a slot is found in microseconds among 100,000.

A task is filed under queue and labels, there under its user, there under its repository. A user's rank changes with
each slot that it gets or gives back, its tasks' turns do not: so users are moved, tasks stay. Lists with bisection do:
an insertion into 100,000 entries moves 800 kB, 15 µs."""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from typing import TypeVar

from msgspec import Struct

from protocol.evolve import Task
from services.scheduler.policy import Load, Rank, Rules, Slot, Turn, is_queued, served_at, turn_of

T = TypeVar("T", bound=tuple)
Labels = frozenset[str]


class _Filed(Struct, frozen=True):
    """Where a task is."""

    user: str
    repository: str
    queue: str
    labels: Labels
    turn: Turn
    runs: bool


class _Own:
    """The waiting tasks of one user, by repository: one that has its limit running is passed over as a whole."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[Turn]] = {}
        self.heads: list[tuple[Turn, str]] = []
        """The first of each repository."""

    def __len__(self) -> int:
        return sum(map(len, self.repositories.values()))

    def add(self, repository: str, turn: Turn) -> None:
        turns = self.repositories.setdefault(repository, [])
        if turns:
            _remove(self.heads, (turns[0], repository))
        insort(turns, turn)
        insort(self.heads, (turns[0], repository))

    def remove(self, repository: str, turn: Turn) -> None:
        turns = self.repositories[repository]
        _remove(self.heads, (turns[0], repository))
        _remove(turns, turn)
        if turns:
            insort(self.heads, (turns[0], repository))
        else:
            del self.repositories[repository]

    def in_order(self) -> Iterator[Turn]:
        """All turns, each repository looked at only once its first comes up."""
        heap: list[tuple[Turn, str, int]] = []
        heads = iter(self.heads)
        head = next(heads, None)
        while heap or head is not None:
            if head is not None and (not heap or head[0] < heap[0][0]):
                heapq.heappush(heap, (*head, 0))
                head = next(heads, None)
                continue
            turn, repository, index = heap[0]
            yield turn
            turns = self.repositories[repository]
            if index + 1 < len(turns):
                heapq.heapreplace(heap, (turns[index + 1], repository, index + 1))
            else:
                heapq.heappop(heap)

    def first(self, load: Load, rules: Rules) -> Turn | None:
        # At most as many repositories are passed over as tasks run.
        for turn, repository in self.heads:
            if load.repositories.get(repository, 0) < rules.running_per_repository:
                return turn
        return None


class _Group:
    """The waiting tasks of one queue that ask for the same labels."""

    def __init__(self) -> None:
        self.users: dict[str, _Own] = {}
        self._order: list[tuple[Rank, str]] = []
        self._ranks: dict[str, Rank] = {}

    def of(self, user: str) -> tuple[_Own, ...]:
        return (self.users[user],) if user in self.users else ()

    def add(self, user: str, repository: str, turn: Turn, load: Load) -> None:
        self.users.setdefault(user, _Own()).add(repository, turn)
        self.rank(user, load)

    def remove(self, user: str, repository: str, turn: Turn, load: Load) -> None:
        self.users[user].remove(repository, turn)
        if not self.users[user].heads:
            del self.users[user]
        self.rank(user, load)

    def rank(self, user: str, load: Load) -> None:
        """Move the user to where it belongs now."""
        own, old = self.users.get(user), self._ranks.get(user)
        rank = (*load.of_user(user), own.heads[0][0]) if own is not None else None
        if rank == old:
            return
        if old is not None:
            del self._ranks[user]
            _remove(self._order, (old, user))
        if rank is not None:
            self._ranks[user] = rank
            insort(self._order, (rank, user))

    def first(self, load: Load, rules: Rules, best: Rank | None) -> Rank | None:
        """The first that may have a slot, or `best` when that comes before it."""
        for rank, user in self._order:
            if rank[0] >= rules.running_per_user or (best is not None and rank >= best):
                break
            turn = self.users[user].first(load, rules)
            if turn is not None and (best is None or (rank[0], rank[1], turn) < best):
                best = rank[0], rank[1], turn
        return best


class Line:
    """All tasks that wait or run. `update` with each change of a task."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.load = Load()
        self._filed: dict[str, _Filed] = {}
        self._queues: dict[str, dict[Labels, _Group]] = {}
        self._groups_of: dict[str, dict[tuple[str, Labels], _Group]] = {}
        """By user."""
        self._waiting = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._waiting

    def __contains__(self, task: str) -> bool:
        """Whether it waits."""
        return task in self._filed and not self._filed[task].runs

    def waits(self, user: str, queue: str, labels: Labels) -> bool:
        """Whether a task of the user's waits there that asks for these labels."""
        return (queue, labels) in self._groups_of.get(user, {})

    def waiting(self, user: str | None) -> Counter[str]:
        """How many wait in each queue, of one user or of all."""
        counts: Counter[str] = Counter()
        for queue, groups in self._queues.items():
            for group in groups.values():
                counts[queue] += sum(map(len, group.users.values() if user is None else group.of(user)))
        return +counts

    def update(self, task: Task, *, is_granted: bool = False, is_stopped: bool = False) -> bool:
        """Take in what the task has become; whether anything is different for a slot. `is_granted`: it is being given
        to a slot, and counts as running until that is decided. `is_stopped`: it gets no slot."""
        new, old = self._entry(task, is_granted=is_granted, is_stopped=is_stopped), self._filed.get(task.id)
        served = served_at(task)
        is_served = served > self.load.served.get(task.user, 0.0)
        if new == old and not is_served:
            return False
        if old is not None:
            self._take_out(task.id, old)
        if is_served:
            self.load.serve(task.user, served)
        if new is not None:
            self._put_in(task.id, new)
        if is_served or (new is not None and new.runs) or (old is not None and old.runs):
            for group in self._groups_of.get(task.user, {}).values():
                group.rank(task.user, self.load)
        return True

    def choose(self, slot: Slot) -> str | None:
        """The task that a free slot gets: what `policy.choose` says."""
        groups = self._queues.get(slot.queue)
        if groups is None or self.rules.is_paused(slot.queue):
            return None
        if self.load.queues.get(slot.queue, 0) >= self.rules.limit_of(slot.queue):
            return None
        best: Rank | None = None
        for labels, group in groups.items():
            if labels <= slot.labels:
                best = group.first(self.load, self.rules, best)
        return best[2][1] if best is not None else None

    def in_order(self, queue: str) -> Iterator[str]:
        """As `policy.in_order`, as far as it is asked for; nothing may be updated meanwhile."""
        users: dict[str, list[_Own]] = {}
        for group in self._queues.get(queue, {}).values():
            for user, own in group.users.items():
                users.setdefault(user, []).append(own)
        turns = {user: _turns(own) for user, own in users.items()}
        # Once served, a user's rank is no other's: the turn decides nothing more.
        heap = [(*self.load.of_user(user), _head(own), user) for user, own in users.items()]
        heapq.heapify(heap)
        latest = self.load.latest()
        for later in count(1):
            if not heap:
                return
            running, _, head, user = heap[0]
            turn = next(turns[user], None)
            if turn is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (running + 1, latest + later, head, user))
                yield turn[1]

    def _entry(self, task: Task, *, is_granted: bool, is_stopped: bool) -> _Filed | None:
        runs = task.holder is not None or (is_granted and is_queued(task))
        if not runs and (is_stopped or not is_queued(task)):
            return None
        turn = turn_of(task, self.rules)
        return _Filed(task.user, task.repository, task.queue, frozenset(task.labels), turn, runs)

    def _put_in(self, task: str, entry: _Filed) -> None:
        self._filed[task] = entry
        if entry.runs:
            self.load.add(entry.user, entry.repository, entry.queue, 1)
            return
        groups = self._queues.setdefault(entry.queue, {})
        group = groups.get(entry.labels) or groups.setdefault(entry.labels, _Group())
        group.add(entry.user, entry.repository, entry.turn, self.load)
        self._groups_of.setdefault(entry.user, {})[entry.queue, entry.labels] = group
        self._waiting += 1

    def _take_out(self, task: str, entry: _Filed) -> None:
        del self._filed[task]
        if entry.runs:
            self.load.add(entry.user, entry.repository, entry.queue, -1)
            return
        group = self._queues[entry.queue][entry.labels]
        group.remove(entry.user, entry.repository, entry.turn, self.load)
        self._waiting -= 1
        if entry.user not in group.users:
            self._forget(entry)

    def _forget(self, entry: _Filed) -> None:
        """The user has no other task there."""
        groups, own = self._queues[entry.queue], self._groups_of[entry.user]
        del own[entry.queue, entry.labels]
        if not own:
            del self._groups_of[entry.user]
        if not groups[entry.labels].users:
            del groups[entry.labels]
        if not groups:
            del self._queues[entry.queue]


def _head(own: list[_Own]) -> Turn:
    return min(each.heads[0][0] for each in own)


def _turns(own: list[_Own]) -> Iterator[Turn]:
    """Of one user in order; most are asked for the first alone."""
    yield _head(own)
    yield from islice(heapq.merge(*(each.in_order() for each in own)), 1, None)


def _remove(ordered: list[T], item: T) -> None:
    del ordered[bisect_left(ordered, item)]
