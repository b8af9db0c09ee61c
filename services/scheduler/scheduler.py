"""The shell in which the actors live: it reads what comes, lets the pure core decide, commits, and does what follows.

One ordered read of commands and decisions keeps every actor's state and mailbox, on the standby too. Only the active
scheduler answers the mailboxes. Nothing is acknowledged or redelivered: a decision names the command it answers, so
whoever takes over sees which commands have none.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated

import anyio
import anyio.abc
import anyio.lowlevel
import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from protocol.evolve import Task, usage_of_turn
from protocol.ids import OWNER
from protocol.journal import JournalEntry, decode_entry
from protocol.query import (
    AskHealth,
    AskSpending,
    ClaimAttempt,
    Health,
    ListTasks,
    QueueShown,
    ShowQueue,
    Spending,
    TaskList,
    TaskSummary,
    summarize,
)
from protocol.routes import Service, Stream
from protocol.task import AttemptEnded, Decision, TurnEnded
from services import log
from services.actor import healthy
from services.archive import archived
from services.bus import Bus, Conflict, Reader, Refused, Stored, Unavailable
from services.clock import Clock
from services.config import Count, Days, LogLevel, Seconds
from services.scheduler.actors import Entry, LogActor, TaskActor, UserActor
from services.scheduler.archivist import Archivist
from services.scheduler.claims import Claims
from services.scheduler.decide import (
    Limits,
    claim,
    fold_log,
    go_on,
    is_short,
    lose_lease,
    may_go_on,
    put_away,
    terms_of,
    time_of_claim,
    wait_for_day,
)
from services.scheduler.election import Election
from services.scheduler.leases import AttemptLeases
from services.scheduler.line import Line
from services.scheduler.log_keeper import LogKeeper
from services.scheduler.outbox import Outbox
from services.scheduler.policy import Rules, Slot, is_queued
from services.scheduler.reached import NotYet, Reached
from services.scheduler.runners import Runners
from services.scheduler.search import search
from services.scheduler.show import Scene, reason, show
from services.scheduler.snapshots import FOLDS, KeptTask, KeptUser, Snapshot, load, save
from services.scheduler.spending import Ledger
from services.scheduler.timers import Timers

VERSION = "0.1.0"
COMMIT_AGAIN_SECONDS = 0.05
SWEEP_SECONDS = 86_400.0
"""Between two looks for objects that belong to nothing."""
UNREAD_AGAIN_SECONDS = 60.0
"""Between two looks whether what stopped an actor can be read by now, or was taken out of its log."""
STOPPED = "An event in its log cannot be read by this release: it goes on after an update."
LOOK_AT_ONCE = 1_000
"""Tasks that are looked at before others have their turn."""


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
    daily_usd_per_user: Annotated[float, Meta(ge=0)] | None = None
    """What one user's tasks may spend in a day, in dollars, where the owner has not set another limit for the user;
    nothing means unlimited. A user may set a lower one."""
    attempts_per_turn: Count = 5
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


LONG_AGO = datetime.min.replace(tzinfo=UTC)


class NotActive(Exception):
    """This scheduler lost its lease: it commits nothing more."""


class Stopped(NotActive):
    """An event of the actor's log cannot be read: nothing is committed to this one, until it can be."""


class Scheduler:
    """The service."""

    archive_pace_seconds = 0.05
    """Between two tasks that are put away: the stream stands still while one is taken out."""
    archive_look_seconds = 60.0
    """Between two looks for tasks that have grown old."""

    def __init__(self, bus: Bus, config: Config, clock: Clock | None = None) -> None:
        self._bus = bus
        self._config = config
        self._clock = clock or Clock()
        self._limits = Limits(attempts_per_turn=config.attempts_per_turn)
        self._election = Election(bus, self._clock)
        self._tasks: dict[str, TaskActor] = {}
        self._users: dict[str, UserActor] = {}
        self._queued: dict[str, TaskActor] = {}
        self._held: dict[str, TaskActor] = {}
        self._short: dict[str, TaskActor] = {}
        """Those whose user's money for the day is spent."""
        self._stopped: dict[str, LogActor] = {}
        """Those with an event that cannot be read, by their logs."""
        self._ledger = Ledger()
        self._timers = Timers(bus, self._clock, self._limits)
        self._outbox = Outbox(bus, self._user, self._task)
        self._granting: dict[str, tuple[Claims.Waiting, TaskActor]] = {}
        """Tasks that are being given to a slot, by their ids."""
        self._line = Line(
            Rules(
                running_per_user=config.running_per_user,
                running_per_repository=config.running_per_repository,
                running_per_queue=config.running_per_queue,
                priority_seconds=config.priority_seconds,
            )
        )
        self._runners = Runners()
        reached = Reached(bus)
        self._archivist = Archivist(bus, reached, timedelta(days=config.archive_after_days))
        self._log_keeper = LogKeeper(bus, reached, config.user_log_messages)
        self._set_aside: dict[str, tuple[str, float]] = {}
        """Their users, and what each may spend of its user's money for the day."""
        self._claims = Claims()
        self._leases = AttemptLeases()
        self._taken = 0
        """The last message that was taken in."""
        self._kept = 0
        """The sequence of the last snapshot."""
        self._snapshot_due = anyio.Event()
        self._active = False
        self._draining = False
        self._log = log.get()

    # Life

    async def run(self, started: Callable[[], None]) -> None:
        await self._bus.make_streams()
        with _no_garbage():
            self._restore(await load(self._bus))
        async with (
            self._bus.read("cmd.>", "evt.*.*.task.>", "evt.*.user.>", after=self._taken) as reader,
            anyio.create_task_group() as group,
        ):
            group.start_soon(self._follow, reader)
            await reader.caught_up.wait()
            started()
            while not self._draining:
                await self._stand_by()
                await self._be_active()

    async def drain(self) -> None:
        self._draining = True
        self._active = False
        await self._election.release()

    def health(self) -> Health:
        return healthy(Service.SCHEDULER, self._bus, detail="active" if self._active else "standby")

    async def _stand_by(self) -> None:
        service = await self._bus.serve({AskHealth: self._answer_health}, version=VERSION)
        await self._election.wait_until_elected()
        await service.stop()

    async def _be_active(self) -> None:
        """Answer every mailbox until the lease is lost."""
        self._log.info("active", tasks=len(self._tasks), queued=len(self._queued), held=len(self._held))
        handlers = {
            ClaimAttempt: self._claim_attempt,
            ListTasks: self._list_tasks,
            ShowQueue: self._show_queue,
            AskSpending: self._tell_spending,
            AskHealth: self._answer_health,
        }
        self._leases.grant_all(time_now())
        self._runners.begin(self._clock.now())
        stop_listening = await self._bus.listen("$KV.lease.attempt.>", self._leases.hear)
        service = await self._bus.serve(handlers, version=VERSION, at_once=10_000)
        async with anyio.create_task_group() as group:
            self._work = group
            self._active = True
            group.start_soon(self._grant_claims)
            group.start_soon(self._watch_leases)
            for actor in self._all_actors():
                self._wake(actor)
            group.start_soon(self._timers.keep, self._all_actors)
            group.start_soon(self._outbox.keep, self._all_actors)
            group.start_soon(self._keep_snapshots)
            group.start_soon(self._keep_archived)
            group.start_soon(self._keep_swept)
            group.start_soon(self._keep_logs_short)
            group.start_soon(self._keep_looking_at_stopped)
            await self._election.hold()
            self._active = False
            self._claims.give_up()
            self._log.info("standby")
            group.cancel_scope.cancel()
        await stop_listening()
        await service.stop()

    # What comes in

    async def _follow(self, reader: Reader) -> None:
        async for batch in reader.batches():
            for stored in batch:
                try:
                    self._take_in(stored)
                except msgspec.MsgspecError as error:
                    await self._bury(stored, f"The event cannot be read: {error}")
                self._taken = stored.sequence
            if self._taken - self._kept >= self._messages_between_snapshots:
                self._snapshot_due.set()

    def _take_in(self, stored: Stored) -> None:
        kind, user, name, *_ = stored.subject.split(".")
        actor = self._user(user) if name == "user" else self._task(user, name)
        if kind == "cmd":
            actor.mailbox.append(stored)
            self._wake(actor)
        else:
            known = actor.sequence, actor.unread
            try:
                actor.fold(stored)
            finally:
                if (actor.sequence, actor.unread) != known:
                    self._index(actor)
            if not self._active:
                # Another scheduler answered these; without this a standby would keep every command for ever.
                while actor.mailbox and actor.mailbox[0].sequence <= actor.answered:
                    actor.mailbox.popleft()

    def _task(self, user: str, task: str) -> TaskActor:
        # Two users cannot share a task id: it is a hash over the user. A forged subject must not find another's actor.
        actor = self._tasks.get(f"{user}.{task}")
        if actor is None:
            actor = self._tasks[f"{user}.{task}"] = TaskActor(user, task)
        return actor

    def _user(self, user: str) -> UserActor:
        actor = self._users.get(user)
        if actor is None:
            actor = self._users[user] = UserActor(user)
        return actor

    def _all_actors(self) -> Iterable[LogActor]:
        return [*self._tasks.values(), *self._users.values()]

    def _index(self, actor: LogActor) -> None:
        """What is queued, what is held and what waits by the clock, kept beside the states."""
        self._note_stopped(actor)
        if self._active:
            self._timers.look_at(actor)
            self._outbox.look_at(actor)
        if isinstance(actor, UserActor):
            self._heed(actor)
        if not isinstance(actor, TaskActor):
            self._claims.stir()  # what the user's tasks may spend may have changed
            return
        self._ledger.take(actor.task)
        for index, belongs in (
            (self._queued, is_queued(actor.task) and actor.id not in self._granting and not actor.unread),
            (self._held, actor.task.holder is not None),
            (self._short, is_short(actor.task) and not actor.unread),
        ):
            if belongs == (actor.id in index):
                continue
            if belongs:
                index[actor.id] = actor
            else:
                del index[actor.id]
        if self._line.update(actor.task, is_granted=actor.id in self._granting, is_stopped=actor.unread > 0):
            # A task more in the queue, or a slot more in its user's limit.
            self._claims.stir()

    def _note_stopped(self, actor: LogActor) -> None:
        if actor.unread and actor.log not in self._stopped:
            self._stopped[actor.log] = actor
            self._log.error("stopped", log=actor.log, sequence=actor.unread)
        elif not actor.unread and self._stopped.pop(actor.log, None):
            self._log.info("goes_on", log=actor.log)

    async def _keep_looking_at_stopped(self) -> None:
        """A snapshot may have kept it as stopped, and somebody may have taken the event away by hand."""
        while True:
            for actor in list(self._stopped.values()):
                with suppress(NotActive):
                    async with actor.lock:
                        await self._fold_again(actor)
                self._wake(actor)
            await anyio.sleep(UNREAD_AGAIN_SECONDS)

    def _heed(self, actor: UserActor) -> None:
        """The owner's log says how the queues are served."""
        if actor.id == OWNER and actor.user.queues != self._line.rules.queues:
            self._line.rules = replace(self._line.rules, queues=actor.user.queues)
            self._claims.stir()

    # Mailboxes

    def _wake(self, actor: LogActor) -> None:
        if self._active and actor.mailbox and not actor.unread and not actor.lock.locked():
            self._work.start_soon(self._empty_mailbox, actor)

    async def _empty_mailbox(self, actor: LogActor) -> None:
        """Answer the actor's commands, one after the other."""
        async with actor.lock:
            while actor.mailbox and self._active and not actor.unread:
                command = actor.mailbox[0]
                with log.bound(task=actor.id if isinstance(actor, TaskActor) else "", subject=command.subject):
                    try:
                        await self._answer(actor, command)
                    except NotActive:
                        return
                if actor.mailbox and actor.mailbox[0] is command:
                    actor.mailbox.popleft()
        # A command that came between the last look and the release of the lock.
        self._wake(actor)

    async def _answer(self, actor: LogActor, command: Stored) -> None:
        """Give the command its receipt. Raises NotActive; until then nothing but a receipt ends the trying."""
        while True:
            try:
                entry = actor.answer(command, self._clock.now(), self._limits)
                if entry is None:
                    return
                await self._commit(actor, entry)
                self._log.info("decided", state=entry.subject.rpartition(".")[2])
                return
            except (Conflict, Unavailable):
                await anyio.sleep(COMMIT_AGAIN_SECONDS)
            except NotActive:
                raise
            except NotYet as error:
                await self._reject(actor, command, str(error))
                return
            except msgspec.MsgspecError as error:
                await self._give_up(actor, command, f"The command cannot be read: {error}")
                return
            except Exception as error:
                # A poisonous command must stop neither its actor nor all the others.
                self._log.exception("command_failed")
                await self._give_up(actor, command, f"The command cannot be handled: {error}")
                return

    async def _give_up(self, actor: LogActor, command: Stored, reason: str) -> None:
        """Reject a command that cannot be handled, and park it where people look for such."""
        await self._bury(command, reason)
        await self._reject(actor, command, reason)

    async def _reject(self, actor: LogActor, command: Stored, reason: str) -> None:
        while (entry := actor.reject(command, self._clock.now(), reason)) is not None:
            try:
                await self._commit(actor, entry)
                return
            except (Conflict, Unavailable):
                await anyio.sleep(COMMIT_AGAIN_SECONDS)

    def _may_commit(self) -> bool:
        return self._active and self._election.held

    async def _commit(self, actor: LogActor, entry: Entry) -> None:
        """Commit a decision and do what follows from it. Raises NotActive; after Conflict and Unavailable the log was
        folded again, and the decision must be made again."""
        if not self._may_commit():
            raise NotActive
        if actor.unread:
            raise Stopped
        try:
            message, sequence = await self._store(actor, entry)
        except (Conflict, Unavailable) as error:
            # Whether it was stored is known only to the log.
            self._log.warning("commit_failed", error=repr(error))
            await self._fold_again(actor)
            raise
        if sequence > actor.sequence:
            actor.applied(message, sequence)
            self._index(actor)
        if isinstance(actor, TaskActor):
            await self._clear(actor)

    async def _store(self, actor: LogActor, entry: Entry) -> tuple[Struct, int]:
        """The decision as it was stored, and its sequence."""
        match entry.message:
            case Decision() as decision if _cuts_off_runner(decision):
                return await self._commit_over_runner(actor, entry.subject, decision)
            case Decision() as decision if isinstance(actor, TaskActor) and archived(decision):
                return await self._archivist.commit(actor, entry.subject, decision)
            case message:
                return message, await self._bus.commit(entry.subject, message, log=actor.log, expected=actor.sequence)

    async def _commit_over_runner(self, actor: LogActor, subject: str, decision: Decision) -> tuple[Decision, int]:
        """Commit a decision that ends an attempt without its runner's word, naming the last sequence of the runner's
        journal: so it expects the last of the whole task. Raises Conflict when the runner, or another scheduler, wrote
        since `decision` was made."""
        assert isinstance(actor, TaskActor), "only a task has attempts"
        decided_over, whole = actor.sequence, actor.log.removesuffix("task.>") + ">"
        stored = await self._bus.replay(whole)
        entries = [each for each in stored if each.subject.split(".")[3] == "journal"]
        last = stored[-1].sequence if stored else 0
        # Not what is folded by now: the reader may have brought a decision of another scheduler's meanwhile.
        if any(each.sequence > decided_over for each in stored if each.subject.split(".")[3] == "task"):
            raise Conflict(subject)
        journal = entries[-1].sequence if entries else 0
        events = tuple(
            replace(event, usage=usage_of_turn(_readable(entries), actor.task.turn))
            if isinstance(event, AttemptEnded | TurnEnded)
            else event
            for event in decision.events
        )
        decision = replace(decision, journal_sequence=journal, events=events)
        sequence = await self._bus.commit(subject, decision, log=whole, expected=last)
        return decision, sequence

    async def _fold_again(self, actor: LogActor) -> None:
        while True:
            try:
                stored = await self._bus.replay(actor.log)
            except Unavailable:
                if not self._election.held:
                    raise NotActive from None
                await anyio.sleep(COMMIT_AGAIN_SECONDS)
                continue
            actor.forget()
            # What cannot be read was buried when it came by.
            with suppress(msgspec.MsgspecError):
                for each in stored:
                    actor.fold(each)
            self._index(actor)
            return

    async def _bury(self, stored: Stored, reason: str) -> None:
        try:
            await self._bus.bury(Stream.TASKS, stored, reason)
        except Unavailable:
            self._log.error("not_buried", subject=stored.subject, sequence=stored.sequence, reason=reason)

    # The archive

    async def _clear(self, actor: TaskActor) -> None:
        """What is in the archive leaves the stream."""
        if actor.is_cleared:
            return
        try:
            await self._archivist.clear(actor)
            actor.is_cleared = True
        except (Unavailable, Refused) as error:
            self._log.warning("not_cleared", task=actor.id, error=str(error))

    async def _keep_archived(self) -> None:
        """Put away what has grown old, and clear what another scheduler put away, one task after the other."""
        while True:
            for number, actor in enumerate(list(self._tasks.values())):
                if number % LOOK_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()
                if not actor.is_cleared or self._archivist.is_due(actor.task, self._clock.now()):
                    await self._put_away(actor)
                    await anyio.sleep(self.archive_pace_seconds)
            await anyio.sleep(self.archive_look_seconds)

    async def _put_away(self, actor: TaskActor) -> None:
        async with actor.lock:
            with log.bound(task=actor.id):
                await self._clear(actor)
                now = self._clock.now()
                if not actor.mailbox and self._archivist.is_due(actor.task, now):
                    try:
                        await self._commit(actor, actor.entry(put_away(actor.task, now)))
                        self._log.info("archived")
                    except NotActive:
                        pass
                    except (Conflict, Unavailable, NotYet, Refused) as error:
                        self._archivist.postpone(actor.task, now)
                        self._log.info("not_archived", reason=str(error))
        self._wake(actor)

    async def _keep_swept(self) -> None:
        while True:
            try:
                if swept := await self._archivist.sweep({actor.id: actor for actor in self._tasks.values()}):
                    self._log.info("swept", objects=swept)
            except (Unavailable, Refused) as error:
                self._log.warning("not_swept", error=str(error))
            await anyio.sleep(SWEEP_SECONDS)

    async def _keep_logs_short(self) -> None:
        while True:
            for actor in list(self._users.values()):
                if self._log_keeper.is_due(actor):
                    await self._fold_log(actor)
                if not actor.is_cleared:
                    await self._clear_log(actor)
            await anyio.sleep(self.archive_look_seconds)

    async def _fold_log(self, actor: UserActor) -> None:
        async with actor.lock:
            with log.bound(user=actor.id):
                try:
                    await self._commit(actor, actor.entry(fold_log(actor.user, self._clock.now())))
                    self._log.info("log_folded")
                except NotActive:
                    pass
                except (Conflict, Unavailable, Refused) as error:
                    self._log.warning("log_not_folded", error=repr(error))
        self._wake(actor)

    async def _clear_log(self, actor: UserActor) -> None:
        try:
            await self._log_keeper.clear(actor, self.archive_pace_seconds)
        except (NotYet, Unavailable, Refused) as error:
            self._log.info("log_not_cleared", user=actor.id, reason=str(error))

    # Snapshots

    def _restore(self, snapshot: Snapshot) -> None:
        self._taken = self._kept = snapshot.sequence
        for kept in snapshot.tasks:
            actor = self._task(kept.task.user, kept.task.id)
            actor.task, actor.sequence = kept.task, kept.sequence
            actor.archived, actor.is_cleared, actor.unread = kept.archived, kept.is_cleared, kept.unread
            self._index(actor)
        for kept in snapshot.users:
            known = self._user(kept.user.id)
            known.user, known.sequence, known.unread = kept.user, kept.sequence, kept.unread
            known.folded, known.routine, known.is_cleared = kept.folded, kept.routine, kept.is_cleared
            self._index(known)

    @property
    def _messages_between_snapshots(self) -> int:
        """A snapshot has every task: its cost for each message stays the same, however many there are."""
        return max(self._config.snapshot_messages, len(self._tasks))

    async def _keep_snapshots(self) -> None:
        while True:
            await self._snapshot_due.wait()
            self._snapshot_due = anyio.Event()
            snapshot = self._snapshot()
            if snapshot.sequence - self._kept < self._messages_between_snapshots:
                continue  # a command waits; what it leads to makes another one due
            try:
                await save(self._bus, snapshot)
                # Each has its receipt, by which the same command is known should it come again.
                await self._bus.purge(Stream.TASKS, "cmd.>", below=snapshot.sequence + 1)
                self._kept = snapshot.sequence
                self._log.info("snapshot", sequence=snapshot.sequence, tasks=len(snapshot.tasks))
            except (Unavailable, Refused) as error:
                self._log.warning("no_snapshot", error=str(error))

    def _snapshot(self) -> Snapshot:
        """As of the last message before which no command waits. One that another scheduler makes later of an older
        state does no harm: what was taken away in between was answered, and the answers are in the log."""
        unanswered = (actor.mailbox[0].sequence - 1 for actor in self._all_actors() if actor.mailbox)
        return Snapshot(
            folds=FOLDS,
            sequence=min((self._taken, *unanswered)),
            tasks=tuple(KeptTask(a.task, a.sequence, a.archived, a.is_cleared, a.unread) for a in self._tasks.values()),
            users=tuple(
                KeptUser(a.user, a.sequence, a.unread, a.folded, a.routine, a.is_cleared) for a in self._users.values()
            ),
        )

    # Claims and leases

    async def _claim_attempt(self, asked: ClaimAttempt) -> object:
        self._runners.hear(asked, self._clock.now())
        for actor in self._held.values():
            holder = actor.task.holder
            if holder and holder.request == asked.request:
                return self._claims.granted(actor.task, actor.sequence)
        return await self._claims.wait(asked)

    async def _grant_claims(self) -> None:
        while True:
            await self._claims.stirred()
            if not self._may_commit():
                return  # `hold` ends for the same reason, and everything of this reign with it
            await self._let_go_on()
            for waiting, actor in self._matches():
                # Side by side: each waits for the disk. Until it is committed nobody else gets the task or the slot.
                self._granting[actor.id] = waiting, actor
                self._index(actor)
                self._work.start_soon(self._grant, waiting, actor)

    def _matches(self) -> Iterator[tuple[Claims.Waiting, TaskActor]]:
        """Slots that wait, each with the task it gets. What is given away must be in `_granting` before the next."""
        if not self._line:
            return
        held = {actor.task.holder.request for actor in self._held.values() if actor.task.holder}
        held |= {waiting.asked.request for waiting, _ in self._granting.values()}
        in_vain: set[Slot] = set()
        # Those with the fewest labels first: the rare ones stay free for who needs them.
        for waiting in sorted(self._claims.waiting(), key=lambda waiting: len(waiting.asked.labels)):
            slot = Slot(waiting.asked.queue, frozenset(waiting.asked.labels))
            if waiting.asked.request in held or slot in in_vain:
                continue  # its grant is on the way, or there is nothing for one like it
            task = self._line.choose(slot)
            if task is None:
                in_vain.add(slot)
            else:
                yield waiting, self._queued[task]

    async def _grant(self, waiting: Claims.Waiting, actor: TaskActor) -> None:
        with waiting.taken(), log.bound(task=actor.id), suppress(NotActive):
            try:
                async with actor.lock:
                    await self._commit_grant(waiting.asked, actor)
            finally:
                del self._granting[actor.id]
                self._set_aside.pop(actor.id, None)
                self._index(actor)
                self._claims.stir()
            if actor.task.holder and actor.task.holder.request == waiting.asked.request:
                waiting.answer(self._claims.granted(actor.task, actor.sequence))
        self._wake(actor)

    async def _commit_grant(self, asked: ClaimAttempt, actor: TaskActor) -> None:
        if not is_queued(actor.task):
            return
        try:
            await self._commit(actor, actor.entry(self._claimed(actor.task, asked)))
        except (Conflict, Unavailable):
            return  # another look finds the task again, if it is still queued
        if actor.task.holder is None:
            return  # its user's money for the day is spent
        self._leases.grant(actor.id, held_attempt(actor.task), time_now())
        self._log.info("claimed", runner=asked.runner, attempt=actor.task.attempt)

    # What users may spend in a day

    def _claimed(self, task: Task, asked: ClaimAttempt) -> Decision:
        """The claim, or that the turn waits for its user's next day. What it may spend is set aside at once: other
        claims are decided before it is committed."""
        now = time_of_claim(task, self._clock.now())
        spending = self._spending(task.user, now)
        terms = terms_of(task, self._user(task.user).user, spending)
        if terms is None:
            return wait_for_day(task, spending, now)
        self._set_aside[task.id] = task.user, terms.day_usd or 0.0
        return claim(task, asked, now, terms)

    def _spending(self, user: str, now: datetime | None = None) -> Spending:
        held = (actor.task.holder for actor in self._held.values() if actor.user == user)
        reserved = sum(holder.terms.day_usd or 0.0 for holder in held if holder)
        reserved += sum(
            dollars for task, (of, dollars) in self._set_aside.items() if of == user and task not in self._held
        )
        limit = self._config.daily_usd_per_user
        return self._ledger.spending(self._user(user).user, reserved, limit, now or self._clock.now())

    async def _let_go_on(self) -> None:
        """Queue what waits for money that is there now: one a user, queue and labels, whose claim then shows what is
        left. One that no runner takes holds up its like alone."""
        held_back = sorted(self._short.values(), key=lambda actor: (actor.task.in_line_since or LONG_AGO, actor.id))
        if not held_back:
            return
        in_line = (*self._queued.values(), *(actor for _, actor in self._granting.values()))
        busy = {_line_of(actor) for actor in in_line}
        for actor in held_back:
            line = _line_of(actor)
            if line not in busy and may_go_on(actor.task, self._spending(actor.user)):
                busy.add(line)
                with suppress(Conflict, Unavailable, NotActive):
                    await self._go_on(actor)

    async def _go_on(self, actor: TaskActor) -> None:
        async with actor.lock:
            if may_go_on(actor.task, self._spending(actor.user)):
                with log.bound(task=actor.id):
                    await self._commit(actor, actor.entry(go_on(actor.task, self._clock.now())))
        self._wake(actor)

    async def _tell_spending(self, asked: AskSpending) -> Spending:
        return self._spending(asked.user)

    # Leases

    async def _watch_leases(self) -> None:
        while True:
            await anyio.sleep(self._leases.check_seconds)
            held = {a.id: held_attempt(a.task) for a in self._held.values()}
            for task in self._leases.ended(held, time_now(), connected=self._bus.connected):
                actor = self._held.get(task)
                if actor is not None:
                    self._work.start_soon(self._take_back, actor, held[task])

    async def _take_back(self, actor: TaskActor, attempt: int) -> None:
        async with actor.lock:
            with log.bound(task=actor.id):
                while held_attempt(actor.task) == attempt:
                    decision = lose_lease(actor.task, self._clock.now(), self._limits)
                    try:
                        await self._commit(actor, actor.entry(decision))
                        self._log.warning("lease_lost", attempt=attempt)
                    except (Conflict, Unavailable):
                        await anyio.sleep(COMMIT_AGAIN_SECONDS)
                    except NotActive:
                        break
        self._wake(actor)

    # Queries

    async def _answer_health(self, asked: AskHealth) -> Health:
        return self.health()

    async def _list_tasks(self, asked: ListTasks) -> TaskList:
        mine = (a.task for a in self._tasks.values() if a.user == asked.user and a.task.turn > 0)
        tasks, more = search(mine, asked)
        return TaskList(tasks=self._summaries(tasks), more=more)

    def _summaries(self, tasks: list[Task]) -> tuple[TaskSummary, ...]:
        scene = self._scene() if any(map(is_queued, tasks)) else None
        return tuple(summarize(task, self._waits(task, scene) if scene and is_queued(task) else "") for task in tasks)

    def _waits(self, task: Task, scene: Scene) -> str:
        return STOPPED if self._task(task.user, task.id).unread else reason(task, scene)

    async def _show_queue(self, asked: ShowQueue) -> QueueShown:
        return show(asked, self._scene())

    def _scene(self) -> Scene:
        held, now = [actor.task for actor in self._held.values()], self._clock.now()
        return Scene(
            line=self._line,
            task=lambda task: self._queued[task].task,
            held=held,
            runners=self._runners.present(held, now),
            serving=self._runners.serving(held, now),
            now=now,
        )


@contextmanager
def _no_garbage() -> Iterator[None]:
    """What is made meanwhile stays: to look through it for garbage again and again would take most of a long start."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _cuts_off_runner(decision: Decision) -> bool:
    return any(isinstance(event, AttemptEnded) and event.how.cuts_off for event in decision.events)


def _readable(stored: Iterable[Stored]) -> Iterable[JournalEntry]:
    for each in stored:
        with suppress(msgspec.MsgspecError):
            yield decode_entry(each.data)


def _line_of(actor: TaskActor) -> tuple[str, str, frozenset[str]]:
    return actor.user, actor.task.queue, frozenset(actor.task.labels)


def held_attempt(task: Task) -> int:
    return task.holder.attempt if task.holder else 0


def time_now() -> float:
    return anyio.current_time()
