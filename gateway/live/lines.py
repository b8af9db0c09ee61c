"""A task list's lines: a task that changed is folded again, from where it was left, and summed up."""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from protocol.evolve import Task, evolve
from protocol.query import TaskSummary, summarize
from protocol.task import decode_decision
from services.bus import Bus

TASKS_LIMIT = 256
"""Folded tasks that are kept; another one is folded from its beginning."""


class Lines:
    """Of one user."""

    def __init__(self, bus: Bus, user: str) -> None:
        self._bus = bus
        self._user = user
        self._folded: OrderedDict[str, tuple[Task, int]] = OrderedDict()

    async def line(self, task: str) -> TaskSummary | None:
        """The task as it is now; None for one whose submission was refused. Raises Unavailable."""
        state, sequence = self._folded.pop(task, (Task(id=task, user=self._user), 0))
        for stored in await self._bus.replay(f"evt.{self._user}.{task}.task.>", after=sequence):
            sequence = stored.sequence
            try:
                state = evolve(state, decode_decision(stored.data))
            except msgspec.MsgspecError:
                continue  # reported by whoever acts on it; a list can do without
        self._folded[task] = (state, sequence)
        if len(self._folded) > TASKS_LIMIT:
            self._folded.popitem(last=False)
        return summarize(state) if state.turn else None
