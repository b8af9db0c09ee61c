"""A small cache: answers that hold for a while, so that the usual way needs no round trip."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")

LIMIT = 10_000


class Remembered(Generic[V]):
    """At most `LIMIT` values, each for `seconds`; the oldest go first."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._values: OrderedDict[tuple[str, str], tuple[float, V]] = OrderedDict()

    def get(self, user: str, name: str) -> V | None:
        until, value = self._values.get((user, name), (0.0, None))
        return value if self._now() < until else None

    def put(self, user: str, name: str, value: V) -> None:
        self._values[user, name] = (self._now() + self._seconds, value)
        self._values.move_to_end((user, name))
        if len(self._values) > LIMIT:
            self._values.popitem(last=False)
