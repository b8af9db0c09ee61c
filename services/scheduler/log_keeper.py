"""Keeps the users' logs short: what came by the clock leaves them, once one message says what it came to.

That message is the point of no return, as with the archive: before it, nothing has left the log; after it, what is to
leave is derived from the log, so whoever takes over goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anyio

from protocol.routes import Stream
from protocol.user import ROUTINE
from services.bus import Bus, Stored
from services.scheduler.actors import UserActor
from services.scheduler.reached import Reached

PURGED_AT_ONCE = 50
"""Messages of one purge: everybody's publishes wait for it."""


class LogKeeper:
    """What the scheduler does about the users' logs, without its decisions."""

    def __init__(self, bus: Bus, reached: Reached, limit: int) -> None:
        self._bus = bus
        self._reached = reached
        self._limit = limit

    def is_due(self, actor: UserActor) -> bool:
        return actor.routine >= self._limit and actor.is_cleared and not actor.unread

    async def clear(self, actor: UserActor, pace_seconds: float) -> None:
        """Take out of the log what it says elsewhere, a few messages at a time. Raises NotYet and Unavailable; again it
        does nothing."""
        until = actor.folded
        await self._reached.wait(until)
        gone = superseded(await self._bus.replay(actor.log), until)
        for first in range(0, len(gone), PURGED_AT_ONCE):
            await self._purge(gone[first : first + PURGED_AT_ONCE])
            await anyio.sleep(pace_seconds)
        actor.is_cleared = actor.folded == until

    async def _purge(self, portion: Sequence[Stored]) -> None:
        for subject in sorted({stored.subject for stored in portion}):
            await self._bus.purge(Stream.TASKS, subject, below=portion[-1].sequence + 1)


def superseded(log: Iterable[Stored], until: int) -> list[Stored]:
    """What the message with the sequence `until` says in the place of others before it."""
    return [each for each in log if each.sequence < until and each.subject.rpartition(".")[2] in ROUTINE]
