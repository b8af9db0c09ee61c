"""The time as an argument, so that a simulation can bring its own."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """This machine's."""

    def now(self) -> datetime:
        """The date and time, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that also pass while the process is frozen, and that nobody sets."""
        return time.monotonic()
