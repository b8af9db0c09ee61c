"""When a device whose push service does not take it is tried again. Pure."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

LONGEST_SECONDS = 600.0
DEVICES_LIMIT = 10_000
"""Devices in trouble that are remembered; the oldest trouble is forgotten first."""


class Trouble(Struct, frozen=True):
    failures: int
    until: float


class Patience:
    """Of one gateway: who is slow costs the others no time. The wait doubles with each failure in a row."""

    def __init__(self) -> None:
        self._troubles: OrderedDict[str, Trouble] = OrderedDict()

    def left(self, device: str, now: float) -> float:
        """Seconds until the device may be tried; 0 when it may be now."""
        trouble = self._troubles.get(device)
        return max(0.0, trouble.until - now) if trouble else 0.0

    def failed(self, device: str, seconds: float, now: float) -> float:
        """Seconds until the next try, `seconds` after the first failure."""
        before = self._troubles.pop(device, None)
        failures = before.failures + 1 if before else 1
        wait = min(seconds * 2 ** min(failures - 1, 10), LONGEST_SECONDS)
        self._troubles[device] = Trouble(failures, now + wait)
        if len(self._troubles) > DEVICES_LIMIT:
            self._troubles.popitem(last=False)
        return wait

    def worked(self, device: str) -> None:
        self._troubles.pop(device, None)
