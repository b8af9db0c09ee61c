"""Copies of the history for readers: made only when one is asked for, and no more often than they are worth."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

COST_SHARE = 0.05
"""The part of the writer's time that copies may take for freshness alone. A reader that must see a certain event waits
for a copy that has it, whatever it costs."""


class Snapshots:
    """The latest copy, at `path`. `copy` makes it and returns the sequence that it has reached; `now` is in seconds."""

    def __init__(
        self, path: Path, copy: Callable[[Path], Awaitable[int]], now: Callable[[], float] = anyio.current_time
    ) -> None:
        self.path = path
        self._copy = copy
        self._now = now
        self._one_at_a_time = anyio.Lock()
        self._sequence = -1  # a copy that an earlier process left is not trusted to be whole or new
        self._fresh_until = 0.0

    async def reach(self, wanted: int, newest: int) -> None:
        """Return when the copy has reached `wanted`, and is as near to the writer's `newest` as is worth its cost.

        The caller has waited until the writer reached `wanted`.
        """
        async with self._one_at_a_time:
            if self._sequence >= newest or (self._sequence >= wanted and self._now() < self._fresh_until):
                return
            began = self._now()
            self._sequence = await self._copy(self.path)
            ended = self._now()
            self._fresh_until = ended + (ended - began) / COST_SHARE
