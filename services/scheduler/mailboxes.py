"""Mailboxes are emptied here: each command gets its receipt, one after the other in an actor, side by side in all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc
import msgspec

from protocol.routes import Stream
from services import log
from services.bus import Bus, Conflict, Stored, Unavailable
from services.clock import Clock
from services.scheduler.actors import LogActor, TaskActor
from services.scheduler.commits import COMMIT_AGAIN_SECONDS, Commits, NotActive
from services.scheduler.decide import Limits
from services.scheduler.reached import NotYet


class Mailboxes:
    """Between `begin` and the end of its group, `wake` an actor whose mailbox may have a command."""

    def __init__(self, bus: Bus, clock: Clock, limits: Limits, commits: Commits) -> None:
        self._bus = bus
        self._clock = clock
        self._limits = limits
        self._commits = commits
        self._log = log.get()

    def begin(self, work: anyio.abc.TaskGroup) -> None:
        self._work = work

    def wake(self, actor: LogActor) -> None:
        if self._commits.allowed and actor.mailbox and not actor.unread and not actor.lock.locked():
            self._work.start_soon(self._empty, actor)

    @asynccontextmanager
    async def alone(self, actor: LogActor) -> AsyncIterator[None]:
        """The actor does nothing else meanwhile; what came for it then is done after."""
        try:
            async with actor.lock:
                with log.bound(**_named(actor)):
                    yield
        except Exception:  # not when it is cancelled: there is nobody left to wake it for
            self.wake(actor)
            raise
        self.wake(actor)

    async def _empty(self, actor: LogActor) -> None:
        # A command that comes between the last look and the release of the lock wakes it again.
        async with self.alone(actor):
            while actor.mailbox and self._commits.allowed and not actor.unread:
                command = actor.mailbox[0]
                with log.bound(subject=command.subject):
                    try:
                        await self._answer(actor, command)
                    except NotActive:
                        return
                if actor.mailbox and actor.mailbox[0] is command:
                    actor.mailbox.popleft()

    async def _answer(self, actor: LogActor, command: Stored) -> None:
        """Give the command its receipt. Raises NotActive; until then nothing but a receipt ends the trying."""
        while True:
            try:
                entry = actor.answer(command, self._clock.now(), self._limits)
                if entry is None:
                    return
                await self._commits.commit(actor, entry)
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
        await self.bury(command, reason)
        await self._reject(actor, command, reason)

    async def _reject(self, actor: LogActor, command: Stored, reason: str) -> None:
        while (entry := actor.reject(command, self._clock.now(), reason)) is not None:
            try:
                await self._commits.commit(actor, entry)
                return
            except (Conflict, Unavailable):
                await anyio.sleep(COMMIT_AGAIN_SECONDS)

    async def bury(self, stored: Stored, reason: str) -> None:
        try:
            await self._bus.bury(Stream.TASKS, stored, reason)
        except Unavailable:
            self._log.error("not_buried", subject=stored.subject, sequence=stored.sequence, reason=reason)


def _named(actor: LogActor) -> dict[str, str]:
    return {"task" if isinstance(actor, TaskActor) else "user": actor.id}
