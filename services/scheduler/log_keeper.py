"""Keeps the users' logs short: what came by the clock leaves them, once one message says what it came to.

That message is the point of no return, as with the archive: before it, nothing has left the log; after it, what is to
leave is derived from the log, so whoever takes over goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import anyio

from protocol.routes import Stream
from protocol.user import ROUTINE
from services import log
from services.bus import Bus, Conflict, Refused, Stored, Unavailable
from services.clock import Clock
from services.scheduler.actors import UserActor
from services.scheduler.archiving import Pace
from services.scheduler.commits import Commits, NotActive
from services.scheduler.decide import fold_log
from services.scheduler.mailboxes import Mailboxes
from services.scheduler.reached import NotYet, Reached
from services.scheduler.roster import Roster

PURGED_AT_ONCE = 50
"""Messages of one purge: everybody's publishes wait for it."""


class LogKeeper:
    """`keep` them so, for as long as this scheduler is active."""

    def __init__(
        self,
        bus: Bus,
        reached: Reached,
        roster: Roster,
        commits: Commits,
        mailboxes: Mailboxes,
        clock: Clock,
        pace: Pace,
        limit: int,
    ) -> None:
        """`limit`: so many messages that came by the clock may be in one log."""
        self._bus = bus
        self._reached = reached
        self._roster = roster
        self._commits = commits
        self._mailboxes = mailboxes
        self._clock = clock
        self._pace = pace
        self._limit = limit
        self._log = log.get()

    async def keep(self) -> None:
        while True:
            for actor in list(self._roster.users.values()):
                if actor.routine >= self._limit and actor.is_cleared:
                    await self._fold(actor)
                if not actor.is_cleared:
                    await self._clear(actor)
            await anyio.sleep(self._pace.look_seconds)

    async def _fold(self, actor: UserActor) -> None:
        async with self._mailboxes.alone(actor):
            try:
                await self._commits.commit(actor, actor.entry(fold_log(actor.user, self._clock.now())))
                self._log.info("log_folded")
            except NotActive:
                pass
            except (Conflict, Unavailable, Refused) as error:
                self._log.warning("log_not_folded", error=repr(error))

    async def _clear(self, actor: UserActor) -> None:
        until = actor.folded
        try:
            await self._reached.wait(until)
            await self._purge(superseded(await self._bus.replay(actor.log), until))
            actor.is_cleared = actor.folded == until
        except (NotYet, Unavailable, Refused) as error:
            self._log.info("log_not_cleared", user=actor.id, reason=str(error))

    async def _purge(self, going: Sequence[Stored]) -> None:
        """A few messages at a time."""
        for first in range(0, len(going), PURGED_AT_ONCE):
            portion = going[first : first + PURGED_AT_ONCE]
            for subject in sorted({stored.subject for stored in portion}):
                await self._bus.purge(Stream.TASKS, subject, below=portion[-1].sequence + 1)
            await anyio.sleep(self._pace.pause_seconds)


def superseded(log: Iterable[Stored], until: int) -> list[Stored]:
    """What the message with the sequence `until` says in the place of others before it."""
    return [each for each in log if each.sequence < until and each.subject.rpartition(".")[2] in ROUTINE]
