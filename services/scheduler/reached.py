"""How far the history is: nothing leaves the stream that it does not have."""

from __future__ import annotations

from protocol.history import AskReached, HistoryReached
from protocol.routes import Service
from services.bus import Bus, Refused, Unavailable

HISTORY_SECONDS = 2.0
"""How long the history may take to catch up with a task that its user puts away at once."""


class NotYet(Exception):
    """Nothing can be put away now; the reason is for a person."""


class Reached:
    """Asks the history, and remembers what it said."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._sequence = 0

    async def wait(self, sequence: int) -> None:
        """Return when the history has all up to `sequence`. Raises NotYet."""
        if self._sequence >= sequence:
            return
        asked = AskReached(at_least=sequence, wait_seconds=HISTORY_SECONDS)
        try:
            answer = await self._bus.ask(Service.HISTORY, asked, HistoryReached, timeout_seconds=HISTORY_SECONDS + 2)
        except (Unavailable, Refused) as error:
            raise NotYet(f"The history does not have all of it yet, try again later: {error}") from None
        self._sequence = answer.sequence
