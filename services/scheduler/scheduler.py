"""The scheduler's life: it reads what comes, is elected or stands by, and while it is the active one the actors answer.

One ordered read of commands and decisions keeps every actor's state and mailbox, on the standby too. Only the active
scheduler answers the mailboxes. Nothing is acknowledged or redelivered: a decision names the command it answers, so
whoever takes over sees which commands have none.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Annotated

import anyio
import anyio.abc
import msgspec
from msgspec import Meta, Struct

from protocol.query import AskHealth, AskSpending, ClaimAttempt, Health, ListTasks, ShowQueue
from protocol.routes import Service
from services import log
from services.actor import healthy
from services.bus import Bus, Handler, Reader, Stored
from services.clock import Clock
from services.config import Count, Days, LogLevel, Seconds
from services.scheduler.actors import LogActor
from services.scheduler.archiving import Archiving, Pace
from services.scheduler.archivist import Archivist
from services.scheduler.commits import Commits, NotActive
from services.scheduler.decide import Limits
from services.scheduler.election import Election
from services.scheduler.grants import Grants
from services.scheduler.lease_watch import LeaseWatch
from services.scheduler.leases import AttemptLeases
from services.scheduler.log_keeper import LogKeeper
from services.scheduler.mailboxes import Mailboxes
from services.scheduler.money import Money
from services.scheduler.outbox import Outbox
from services.scheduler.policy import Rules
from services.scheduler.queries import Queries
from services.scheduler.reached import Reached
from services.scheduler.roster import Roster
from services.scheduler.runners import Runners
from services.scheduler.snapshot_keeper import SnapshotKeeper
from services.scheduler.timers import Timers

VERSION = "0.1.0"
READ = ("cmd.*.*.*", "evt.*.*.task.>", "evt.*.user.>", "timer.*.*")
UNREAD_AGAIN_SECONDS = 60.0
"""Between two looks whether what stopped an actor can be read by now, or was taken out of its log."""


class Config(Struct, frozen=True, kw_only=True):
    """The scheduler's settings."""

    running_per_user: Count = 4
    """Tasks of one user that run at one time; the others wait."""
    running_per_repository: Count = 100
    """Tasks of one repository that run at one time, whoever sent them."""
    running_per_queue: Count = 1_000
    """Tasks of one queue that run at one time, where the owner has set no other number (`errand queue limit`)."""
    priority_seconds: Seconds = 300.0
    """A waiting task gains one priority each time it has waited for so long."""
    daily_usd_per_user: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    """What one user's tasks may spend in a day, in dollars, where the owner has not set another limit for the user;
    nothing means unlimited. A user may set a lower one."""
    attempts_per_turn: Annotated[int, Meta(ge=1, le=100)] = 5
    """How often a turn is tried when its runner dies or it fails for a passing reason."""
    snapshot_messages: Count = 10_000
    """After so many messages the states are kept aside: a start then reads only what came since, and the commands
    before, all of which have their receipts, are taken away."""
    archive_after_days: Days = 30.0
    """A task that ended so long ago goes into the archive and out of the stream, which lives in memory and is read at
    each start of NATS. It can be opened again at any time. 0: only what a user archives."""
    user_log_messages: Count = 1_000
    """Once a user's log has so many messages that came by the clock (a schedule's runs, changed tokens) or only refuse,
    one message says what they came to, and they are taken away."""
    log_level: LogLevel = "info"


class Scheduler:
    """The service."""

    def __init__(self, bus: Bus, config: Config, clock: Clock | None = None) -> None:
        clock = clock or Clock()
        limits = Limits(attempts_per_turn=config.attempts_per_turn)
        self.pace = Pace()
        self.roster = roster = Roster(_rules(config))
        self._bus = bus
        self._clock = clock
        self._draining = False
        self._log = log.get()
        self._election = Election(bus, clock)
        reached = Reached(bus)
        archivist = Archivist(bus, reached, timedelta(days=config.archive_after_days))
        self._commits = commits = Commits(bus, self._election, archivist, self._changed)
        self._mailboxes = mailboxes = Mailboxes(bus, clock, limits, commits)
        self._timers = Timers(bus, clock, limits)
        self._outbox = Outbox(bus, roster.user, roster.task)
        self._runners = Runners()
        self._leases = leases = AttemptLeases()
        money = Money(roster, clock, config.daily_usd_per_user)
        self._grants = Grants(roster, commits, mailboxes, leases, self._runners, money, clock)
        self._lease_watch = LeaseWatch(bus, roster, commits, mailboxes, leases, clock, limits)
        self._archiving = Archiving(archivist, roster, commits, mailboxes, clock, self.pace)
        self._log_keeper = LogKeeper(
            bus, reached, roster, commits, mailboxes, clock, self.pace, config.user_log_messages
        )
        self._snapshots = SnapshotKeeper(bus, roster, config.snapshot_messages)
        self._queries = Queries(roster, self._runners, money, clock)

    # Life

    async def run(self, started: Callable[[], None]) -> None:
        await self._bus.make_streams()
        with _no_garbage():
            await self._snapshots.load()
            for actor in self.roster.all():
                self._changed(actor)
        async with (
            self._bus.read(*READ, after=self._snapshots.taken) as reader,
            anyio.create_task_group() as group,
        ):
            group.start_soon(self._follow, reader)
            await reader.caught_up.wait()
            started()
            while not self._draining:
                await self._stand_by()
                await self._be_active()

    async def drain(self, *, for_good: bool = False) -> None:
        self._draining = True
        self._commits.active = False
        await self._election.release()

    def health(self) -> Health:
        detail = "active" if self._commits.active else "standby"
        return healthy(Service.SCHEDULER, self._bus, notices=self._queries.notices(), detail=detail)

    async def _stand_by(self) -> None:
        # Listed among the services, and silent: how the scheduler is, the active one knows.
        service = await self._bus.serve({}, version=VERSION)
        await self._election.wait_until_elected()
        await service.stop()

    async def _be_active(self) -> None:
        """Answer every mailbox until the lease is lost."""
        self._log.info("active", tasks=len(self.roster.tasks), queued=len(self.roster.queued))
        self._leases.grant_all(anyio.current_time())
        self._runners.begin(self._clock.now())
        stop_listening = await self._bus.listen("$KV.lease.attempt.>", self._leases.hear)
        service = await self._bus.serve(self._handlers(), version=VERSION, at_once=10_000)
        async with anyio.create_task_group() as group:
            self._begin(group)
            await self._election.hold()
            self._commits.active = False
            self._grants.give_up()
            self._log.info("standby")
            group.cancel_scope.cancel()
        await stop_listening()
        await service.stop()

    def _handlers(self) -> dict[type, Handler]:
        return {
            ClaimAttempt: self._grants.claim,
            ListTasks: self._queries.tasks,
            ShowQueue: self._queries.queue,
            AskSpending: self._queries.spending,
            AskHealth: self._answer_health,
        }

    def _begin(self, group: anyio.abc.TaskGroup) -> None:
        """Everything that the active scheduler does, until the group is cancelled."""
        self._mailboxes.begin(group)
        self._commits.active = True
        group.start_soon(self._grants.keep)
        group.start_soon(self._lease_watch.keep)
        for actor in self.roster.all():
            self._mailboxes.wake(actor)
        group.start_soon(self._timers.keep, self.roster.all)
        group.start_soon(self._outbox.keep, self.roster.all)
        for keep in (self._snapshots.keep, self._archiving.keep, self._archiving.keep_swept, self._log_keeper.keep):
            group.start_soon(keep)
        group.start_soon(self._keep_looking_at_stopped)

    async def _answer_health(self, asked: AskHealth) -> Health:
        return self.health()

    # What comes in

    async def _follow(self, reader: Reader) -> None:
        async for batch in reader.batches():
            for stored in batch:
                try:
                    self._take_in(stored)
                except msgspec.MsgspecError as error:
                    await self._mailboxes.bury(stored, f"The event cannot be read: {error}")
                self._snapshots.taken = stored.sequence
            self._snapshots.look()

    def _take_in(self, stored: Stored) -> None:
        if stored.subject.startswith("timer."):
            if self._commits.active:
                self._timers.hear(stored)
            return
        actor = self.roster.of_subject(stored.subject)
        if stored.subject.startswith("cmd."):
            actor.mailbox.append(stored)
            self._mailboxes.wake(actor)
            return
        known = actor.sequence, actor.unread
        try:
            actor.fold(stored)
        finally:
            if (actor.sequence, actor.unread) != known:
                self._changed(actor)
        if not self._commits.active:
            # Another scheduler answered these; without this a standby would keep every command for ever.
            while actor.mailbox and actor.mailbox[0].sequence <= actor.answered:
                actor.mailbox.popleft()

    def _changed(self, actor: LogActor) -> None:
        if self._commits.active:
            self._timers.look_at(actor)
            self._outbox.look_at(actor)
        if self.roster.index(actor):
            self._grants.stir()

    async def _keep_looking_at_stopped(self) -> None:
        """A snapshot may have kept it as stopped, and somebody may have taken the event away by hand."""
        while True:
            for actor in list(self.roster.stopped.values()):
                with suppress(NotActive):
                    async with self._mailboxes.alone(actor):
                        await self._commits.fold_again(actor)
            await anyio.sleep(UNREAD_AGAIN_SECONDS)


def _rules(config: Config) -> Rules:
    return Rules(
        running_per_user=config.running_per_user,
        running_per_repository=config.running_per_repository,
        running_per_queue=config.running_per_queue,
        priority_seconds=config.priority_seconds,
    )


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What is made meanwhile stays: to look through it for garbage again and again would take most of a long start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
