"""Takes snapshots, and takes away the commands that are not needed after one."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterable

import anyio

from protocol.routes import Stream
from services import log
from services.bus import Bus, Refused, Unavailable
from services.scheduler.actors import LogActor, TaskActor, UserActor
from services.scheduler.packed import Packed
from services.scheduler.roster import Roster
from services.scheduler.snapshots import KeptTask, KeptUser, Snapshot, load, save, write
from services.scheduler.unhurried import unhurried


class SnapshotKeeper:
    """`load` at the start, `look` when `taken` has grown, `keep` while active."""

    def __init__(self, bus: Bus, roster: Roster, messages: int) -> None:
        """`messages`: at least so many between two snapshots."""
        self.taken = 0
        """The last message that was taken in."""
        self._bus = bus
        self._roster = roster
        self._messages = messages
        self._kept = 0
        """The sequence of the last snapshot."""
        self._due = anyio.Event()
        self._log = log.get()

    async def load(self) -> None:
        """Make the roster's actors what they were; they are not indexed. Raises Unavailable."""
        self._restore(await load(self._bus))
        for actor in self._roster.all():
            if actor.unread:
                stored = await self._bus.replay(actor.commands)
                actor.mailbox += [each for each in stored if actor.answered < each.sequence <= self.taken]

    def _restore(self, snapshot: Snapshot) -> None:
        self.taken = self._kept = snapshot.sequence
        for kept in snapshot.actors:
            if isinstance(kept, KeptTask):
                actor = self._roster.task(kept.user, kept.kept.id)
                actor.kept, actor.sequence, actor.unread = kept.kept, kept.sequence, kept.unread
                actor.archived, actor.is_cleared = kept.archived, kept.is_cleared
            else:
                known = self._roster.user(kept.user.id)
                known.user, known.sequence, known.unread = kept.user, kept.sequence, kept.unread
                known.folded, known.routine, known.is_cleared = kept.folded, kept.routine, kept.is_cleared

    def look(self) -> None:
        """A snapshot may be due."""
        if self.taken - self._kept >= self._messages_between:
            self._due.set()

    @property
    def _messages_between(self) -> int:
        """A snapshot has every task: its cost for each message stays the same, however many there are."""
        return max(self._messages, len(self._roster.tasks))

    async def keep(self) -> None:
        while True:
            await self._due.wait()
            self._due = anyio.Event()
            sequence = self._sequence()
            # Otherwise a command waits; what it leads to makes another one due.
            if sequence - self._kept >= self._messages_between:
                await self._take(sequence)

    def _sequence(self) -> int:
        """Of the last message before which no command waits. A snapshot of then that another scheduler makes later of
        an older state does no harm: what was taken away in between was answered, and the answers are in the log."""
        return min((self.taken, *(first - 1 for first in self._roster.waiting())))

    async def _take(self, sequence: int) -> None:
        """What comes while it is written is in it or not, for each actor by itself, and is read again either way."""
        stopped, going = list(self._roster.stopped), self._answered()
        file = await write(sequence, self._each())
        # What waits for one that goes on meanwhile would be neither in its state nor read again: another time.
        if all(log in self._roster.stopped for log in stopped):
            await self._save(sequence, file, going)

    async def _each(self) -> AsyncIterator[KeptTask | KeptUser]:
        async for task in unhurried(list(self._roster.tasks.values())):
            yield _kept_task(task)
        async for user in unhurried(list(self._roster.users.values())):
            yield _kept_user(user)

    async def _save(self, sequence: int, file: io.BytesIO, going: Iterable[str]) -> None:
        try:
            await save(self._bus, file)
            # Each has its receipt, by which the same command is known should it come again.
            for commands in going:
                await self._bus.purge(Stream.TASKS, commands, below=sequence + 1)
        except (Unavailable, Refused) as error:
            self._log.warning("no_snapshot", error=str(error))
            return
        self._kept = sequence
        self._log.info("snapshot", sequence=sequence, tasks=len(self._roster.tasks))

    def _answered(self) -> list[str]:
        """The wildcards of the commands that may go: all, or all but those to stopped actors."""
        stopped = [actor for actor in self._roster.stopped.values() if actor.mailbox]
        if not stopped:
            return ["cmd.>"]
        spared, users = {actor.commands for actor in stopped}, {_user_of(actor) for actor in stopped}
        others = {_user_of(actor) for actor in self._roster.all()} - users
        # What was answered before the last snapshot is gone already.
        beside = (a for a in self._roster.all() if _user_of(a) in users and a.answered > self._kept)
        return [*(f"cmd.{user}.>" for user in others), *(a.commands for a in beside if a.commands not in spared)]


def _kept_task(actor: TaskActor) -> KeptTask:
    task, packed = (None, actor.kept) if isinstance(actor.kept, Packed) else (actor.kept, None)
    return KeptTask(actor.user, task, packed, actor.sequence, actor.archived, actor.is_cleared, actor.unread)


def _kept_user(actor: UserActor) -> KeptUser:
    return KeptUser(actor.user, actor.sequence, actor.unread, actor.folded, actor.routine, actor.is_cleared)


def _user_of(actor: LogActor) -> str:
    return actor.commands.split(".")[1]
