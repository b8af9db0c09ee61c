"""Attempts are taken back from runners that are heard of no more."""

from __future__ import annotations

import anyio

from services import log
from services.bus import Bus, Conflict, Unavailable
from services.clock import Clock
from services.scheduler.actors import TaskActor
from services.scheduler.commits import COMMIT_AGAIN_SECONDS, Commits, NotActive
from services.scheduler.decide import Limits, lose_lease
from services.scheduler.leases import AttemptLeases, held_attempt
from services.scheduler.mailboxes import Mailboxes
from services.scheduler.roster import Roster


class LeaseWatch:
    """`keep` looks after them."""

    def __init__(
        self,
        bus: Bus,
        roster: Roster,
        commits: Commits,
        mailboxes: Mailboxes,
        leases: AttemptLeases,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._bus = bus
        self._roster = roster
        self._commits = commits
        self._mailboxes = mailboxes
        self._leases = leases
        self._clock = clock
        self._limits = limits
        self._at_it: set[str] = set()
        """The tasks whose attempt is being taken back."""

    async def keep(self) -> None:
        async with anyio.create_task_group() as work:
            while True:
                await anyio.sleep(self._leases.check_seconds)
                held = {actor.id: held_attempt(actor.task) for actor in self._roster.held.values()}
                for task in self._leases.ended(held, anyio.current_time(), connected=self._bus.connected):
                    actor = self._roster.held.get(task)
                    if actor is not None and task not in self._at_it:
                        self._at_it.add(task)
                        work.start_soon(self._take_back, actor, held[task])

    async def _take_back(self, actor: TaskActor, attempt: int) -> None:
        try:
            await self._commit(actor, attempt)
        finally:
            self._at_it.discard(actor.id)

    async def _commit(self, actor: TaskActor, attempt: int) -> None:
        async with self._mailboxes.alone(actor):
            while held_attempt(actor.task) == attempt:
                decision = lose_lease(actor.task, self._clock.now(), self._limits)
                try:
                    await self._commits.commit(actor, actor.entry(decision))
                    log.get().warning("lease_lost", attempt=attempt)
                except (Conflict, Unavailable):
                    await anyio.sleep(COMMIT_AGAIN_SECONDS)
                except NotActive:
                    break
