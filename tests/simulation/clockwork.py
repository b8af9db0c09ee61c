"""An event loop in which waiting costs nothing: when all tasks wait, its clock jumps to whoever waits the shortest."""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any

from services.clock import Clock

EPOCH = datetime(2026, 11, 1, 0, 0, 40, tzinfo=UTC)
"""A minute begins while things break."""


class Stuck(Exception):
    """Every task waits for something that nobody will do."""


class _Selector(selectors.SelectSelector):
    seconds = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck
        self.seconds += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.seconds


class VirtualClock(Clock):
    """A process's clock: `skew` is how wrong its date is."""

    def __init__(self, skew: timedelta = timedelta()) -> None:
        self._skew = skew

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.monotonic()) + self._skew

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()
