"""Which runners there are. What is heard is a hint: a runner with a free slot claims every few seconds, one that is
full is known by the attempts that it holds. The policy gives work to claims alone; this is for who asks why a task
waits."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from msgspec import Struct

from protocol.evolve import Task
from protocol.query import ClaimAttempt
from services.scheduler.policy import Slot

SILENCE = timedelta(seconds=5)
"""After the end of its last claim a runner is taken to be there for so long."""
RUNNERS_LIMIT = 10_000


class Seen(Struct):
    """A runner."""

    name: str
    slot: Slot
    slots: int = 1
    busy: int = 0
    heard_at: datetime | None = None
    until: datetime | None = None
    """For how long the last claim shows that it is there."""


class Runners:
    """Those that this scheduler heard of since it is the active one."""

    def __init__(self) -> None:
        self._heard: dict[str, Seen] = {}
        self._known_from: datetime | None = None

    def begin(self, now: datetime) -> None:
        """Nothing was heard before: for a while, silence proves nothing."""
        self._heard.clear()
        self._known_from = now + SILENCE

    def hear(self, asked: ClaimAttempt, now: datetime) -> None:
        if len(self._heard) >= RUNNERS_LIMIT:
            self._heard = {name: seen for name, seen in self._heard.items() if _is_there(seen, now)}
        self._heard[asked.runner] = Seen(
            name=asked.runner,
            slot=Slot(asked.queue, frozenset(asked.labels)),
            slots=asked.slots,
            heard_at=now,
            until=now + timedelta(seconds=asked.wait_seconds) + SILENCE,
        )

    def present(self, held: Iterable[Task], now: datetime) -> list[Seen]:
        """`held` are the tasks that runners hold."""
        found: dict[str, Seen] = {}
        for task in held:
            if task.holder is not None:
                seen = found.setdefault(task.holder.runner, self._holding(task))
                seen.busy += 1
        for name, seen in self._heard.items():
            if name not in found and _is_there(seen, now):
                found[name] = Seen(seen.name, seen.slot, seen.slots, 0, seen.heard_at)
        for seen in found.values():
            seen.slots = max(seen.slots, seen.busy)
        return sorted(found.values(), key=lambda seen: (seen.slot.queue, sorted(seen.slot.labels), seen.name))

    def serving(self, held: Iterable[Task], now: datetime) -> set[Slot] | None:
        """What is served, for `policy.why`; None as long as that is not known."""
        if self._known_from is None or now < self._known_from:
            return None
        return {seen.slot for seen in self.present(held, now)}

    def _holding(self, task: Task) -> Seen:
        assert task.holder is not None
        name, labels = task.holder.runner, frozenset(task.holder.labels)
        heard = self._heard.get(name)
        slots, heard_at = (heard.slots, heard.heard_at) if heard else (1, None)
        return Seen(name, Slot(task.queue, labels), slots, 0, heard_at)


def _is_there(seen: Seen, now: datetime) -> bool:
    return seen.until is not None and now < seen.until
