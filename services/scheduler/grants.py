"""Tasks are given to runners here: a claim that waits gets the task that the line chooses for its slot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import anyio
import anyio.abc

from protocol.evolve import Task
from protocol.query import AttemptGranted, ClaimAttempt, NothingToClaim
from protocol.task import Decision
from services import log
from services.bus import Conflict, Unavailable
from services.clock import Clock
from services.scheduler.actors import TaskActor
from services.scheduler.claims import Claims
from services.scheduler.commits import Commits, NotActive
from services.scheduler.decide import claim, go_on, may_go_on, terms_of, time_of_claim, wait_for_day
from services.scheduler.leases import AttemptLeases
from services.scheduler.mailboxes import Mailboxes
from services.scheduler.money import Money
from services.scheduler.policy import Slot, is_queued
from services.scheduler.roster import Roster
from services.scheduler.runners import Runners
from services.scheduler.spending import left

LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Grants:
    """`claim` is how a runner asks, `keep` gives, `stir` says that something may be different for a slot."""

    def __init__(
        self,
        roster: Roster,
        commits: Commits,
        mailboxes: Mailboxes,
        leases: AttemptLeases,
        runners: Runners,
        money: Money,
        clock: Clock,
    ) -> None:
        self._roster = roster
        self._commits = commits
        self._mailboxes = mailboxes
        self._leases = leases
        self._runners = runners
        self._money = money
        self._clock = clock
        self._claims = Claims()
        self._requests: dict[str, str] = {}
        """Of the claims for which a task is being committed, by its id."""
        self._log = log.get()

    def stir(self) -> None:
        self._claims.stir()

    def give_up(self) -> None:
        """Another scheduler gives the work: who waits here asks again, and is heard there."""
        self._claims.give_up()

    async def claim(self, asked: ClaimAttempt) -> AttemptGranted | NothingToClaim:
        self._runners.hear(asked, self._clock.now())
        for actor in self._roster.held.values():
            holder = actor.task.holder
            if holder and holder.request == asked.request:
                return self._claims.granted(actor.task, actor.sequence)
        return await self._claims.wait(asked)

    async def keep(self) -> None:
        """Give, for as long as this scheduler is active."""
        async with anyio.create_task_group() as work:
            while True:
                await self._claims.stirred()
                if not self._commits.allowed:
                    return  # the election ends for the same reason, and everything of this reign with it
                await self._let_go_on()
                self._give(work)

    def _give(self, work: anyio.abc.TaskGroup) -> None:
        for waiting, actor in self._matches():
            # Side by side: each waits for the disk. Until it is committed nobody else gets the task or the slot.
            self._requests[actor.id] = waiting.asked.request
            self._roster.granting[actor.id] = actor
            self._index(actor)
            work.start_soon(self._grant, waiting, actor)

    def _matches(self) -> Iterator[tuple[Claims.Waiting, TaskActor]]:
        """Slots that wait, each with the task it gets. What is given away must be in `granting` before the next."""
        line = self._roster.line
        if not line:
            return
        served = {actor.task.holder.request for actor in self._roster.held.values() if actor.task.holder}
        served |= set(self._requests.values())
        in_vain: set[Slot] = set()
        # Those with the fewest labels first: the rare ones stay free for who needs them.
        for waiting in sorted(self._claims.waiting(), key=lambda waiting: len(waiting.asked.labels)):
            slot = Slot(waiting.asked.queue, frozenset(waiting.asked.labels))
            if waiting.asked.request in served or slot in in_vain:
                continue  # its grant is on the way, or there is nothing for one like it
            task = line.choose(slot)
            if task is None:
                in_vain.add(slot)
            else:
                yield waiting, self._roster.queued[task]

    async def _grant(self, waiting: Claims.Waiting, actor: TaskActor) -> None:
        with waiting.taken(), suppress(NotActive):
            try:
                async with self._mailboxes.alone(actor):
                    await self._commit(waiting.asked, actor)
            finally:
                self._given(actor)
            if actor.task.holder and actor.task.holder.request == waiting.asked.request:
                waiting.answer(self._claims.granted(actor.task, actor.sequence))

    def _given(self, actor: TaskActor) -> None:
        """Or not: its commit is over."""
        del self._requests[actor.id], self._roster.granting[actor.id]
        self._money.release(actor.id)
        self._index(actor)
        self.stir()

    async def _commit(self, asked: ClaimAttempt, actor: TaskActor) -> None:
        if not is_queued(actor.task):
            return
        try:
            await self._commits.commit(actor, actor.entry(self._claimed(actor.task, asked)))
        except (Conflict, Unavailable):
            return  # another look finds the task again, if it is still queued
        if actor.task.holder is None:
            return  # its user's money for the day is spent
        self._leases.grant(actor.id, actor.task.holder.attempt, anyio.current_time())
        self._log.info("claimed", runner=asked.runner, attempt=actor.task.attempt)

    def _claimed(self, task: Task, asked: ClaimAttempt) -> Decision:
        """The claim, or that the turn waits for its user's next day."""
        now = time_of_claim(task, self._clock.now())
        spending = self._money.spending(task.user, now)
        terms = terms_of(task, self._roster.user(task.user).user, spending)
        if terms is None:
            return wait_for_day(task, spending, now)
        self._money.set_aside(task.user, task.id, terms.day_usd or 0.0)
        return claim(task, asked, now, terms)

    async def _let_go_on(self) -> None:
        """Queue what waits for money that is there now: one a user, queue and labels, whose claim then shows what is
        left. One that no runner takes holds up its like alone."""
        busy = {_line_of(actor) for actor in self._roster.granting.values()}
        for actor in self._with_money():
            line = _line_of(actor)
            if line not in busy and not self._roster.line.waits(*line):
                busy.add(line)
                with suppress(Conflict, Unavailable, NotActive):
                    await self._go_on(actor)

    def _with_money(self) -> list[TaskActor]:
        """Those that may go on, in their order. Looked for at each stir: nearly all of those that are short stay so."""
        short = self._roster.short.values()
        of_users = {user: self._money.spending(user) for user in {actor.user for actor in short}}
        rich = {user: spending for user, spending in of_users.items() if left(spending) != 0}
        found = (actor for actor in short if actor.user in rich and may_go_on(actor.task, rich[actor.user]))
        return sorted(found, key=lambda actor: (actor.task.in_line_since or LONG_AGO, actor.id))

    async def _go_on(self, actor: TaskActor) -> None:
        async with self._mailboxes.alone(actor):
            if may_go_on(actor.task, self._money.spending(actor.user)):
                await self._commits.commit(actor, actor.entry(go_on(actor.task, self._clock.now())))

    def _index(self, actor: TaskActor) -> None:
        if self._roster.index(actor):
            self.stir()


def _line_of(actor: TaskActor) -> tuple[str, str, frozenset[str]]:
    return actor.user, actor.task.queue, frozenset(actor.task.labels)
