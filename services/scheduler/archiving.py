"""Tasks that have grown old are put away, one after the other."""

from __future__ import annotations

import anyio
from msgspec import Struct

from services import log
from services.bus import Conflict, Refused, Unavailable
from services.clock import Clock
from services.scheduler.actors import TaskActor
from services.scheduler.archivist import Archivist
from services.scheduler.commits import Commits, NotActive
from services.scheduler.decide import put_away
from services.scheduler.mailboxes import Mailboxes
from services.scheduler.reached import NotYet
from services.scheduler.roster import Roster
from services.scheduler.unhurried import unhurried

SWEEP_SECONDS = 86_400.0
"""Between two looks for objects that belong to nothing."""


class Pace(Struct):
    """How fast things leave the stream."""

    pause_seconds: float = 0.05
    """Between two purges: the stream stands still during one."""
    look_seconds: float = 60.0
    """Between two looks for what is to leave."""


class Archiving:
    """`keep` and `keep_swept`, for as long as this scheduler is active."""

    def __init__(
        self,
        archivist: Archivist,
        roster: Roster,
        commits: Commits,
        mailboxes: Mailboxes,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self._archivist = archivist
        self._roster = roster
        self._commits = commits
        self._mailboxes = mailboxes
        self._clock = clock
        self._pace = pace
        self._log = log.get()

    async def keep(self) -> None:
        """Put away what has grown old, and clear what another scheduler put away. Then it rests."""
        while True:
            async for actor in unhurried(list(self._roster.tasks.values())):
                if actor.is_at_rest and actor.is_cleared:
                    continue
                now = self._clock.now()
                if not actor.is_cleared or self._archivist.is_due(actor.task, now):
                    await self._put_away(actor)
                    await anyio.sleep(self._pace.pause_seconds)
                actor.rest(now)
            await anyio.sleep(self._pace.look_seconds)

    async def _put_away(self, actor: TaskActor) -> None:
        async with self._mailboxes.alone(actor):
            await self._archivist.clear(actor)
            now = self._clock.now()
            if actor.mailbox or not self._archivist.is_due(actor.task, now):
                return
            try:
                await self._commits.commit(actor, actor.entry(put_away(actor.task, now)))
                self._log.info("archived")
            except NotActive:
                pass
            except (Conflict, Unavailable, NotYet, Refused) as error:
                self._archivist.postpone(actor.task, now)
                self._log.info("not_archived", reason=str(error))

    async def keep_swept(self) -> None:
        while True:
            try:
                actors = {actor.id: actor for actor in self._roster.tasks.values()}
                if swept := await self._archivist.sweep(actors, self._clock.now()):
                    self._log.info("swept", objects=swept)
            except (Unavailable, Refused) as error:
                self._log.warning("not_swept", error=str(error))
            await anyio.sleep(SWEEP_SECONDS)
