"""The timers that states ask for, kept as message schedules of JetStream: the server holds them over any process's
death and sends them as commands.

What is set follows from the states alone: set once a due time, replaced when the due time changes, taken away when
nothing waits any more, compared with what the server has at a takeover, and set again when one should have fired long
ago. Nobody waits for it: a commit that asks for no timer costs no round trip, and one that does costs its caller none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
from msgspec import MsgspecError, Struct

from protocol.base import reader
from protocol.routes import Stream, timer_subject
from services import log
from services.bus import Bus, Refused, Stored, Unavailable
from services.clock import Clock
from services.scheduler.actors import LogActor
from services.scheduler.decide import Limits

AT_ONCE = 256
"""Timers that are being set side by side."""
AGAIN_SECONDS = 1.0
UNKNOWN = datetime.max.replace(tzinfo=UTC)
"""When a timer is due of which it is not known: it is not what a state asks for."""
OVERDUE = timedelta(seconds=5)
"""A timer that has not fired so long after its time is set again."""


class _Timer(Struct):
    """As far as all of them are the same."""

    due: datetime


_decode = reader(msgspec.json.Decoder(_Timer).decode)


class Timers:
    """The timers of all actors. `look_at` tells it of a change, `keep` sets what is to be set."""

    def __init__(self, bus: Bus, clock: Clock, limits: Limits) -> None:
        self._bus = bus
        self._clock = clock
        self._limits = limits
        self._armed: dict[str, dict[str, datetime]] = {}
        """What is set at the server: due times by name, by the actor's id."""
        self._changed: dict[str, LogActor] = {}
        """Actors whose timers are not what their states ask for."""
        self._doubted: set[str] = set()
        """Owners for whom somebody else has set one."""
        self._stirred = anyio.Event()
        self._log = log.get()

    def look_at(self, actor: LogActor) -> None:
        """The actor's state may ask for other timers than before."""
        if actor.timers(self._limits) != self._armed.get(actor.id, {}):
            self._changed[actor.id] = actor
            self._stirred.set()

    def hear(self, stored: Stored) -> None:
        """One was set, not always by us: what a scheduler sent before it was frozen may come when another has its
        place."""
        owner, name, due = _read(stored)
        armed = self._armed.setdefault(owner, {})
        if armed.get(name) not in (due, UNKNOWN):  # unknown: we are at it
            self._doubted.add(owner)
        armed[name] = due

    async def keep(self, actors: Callable[[], Iterable[LogActor]]) -> None:
        """Set what the actors' states ask for and take the rest away, for as long as this scheduler is active."""
        self._changed.clear()
        await self._ask_what_is_set()
        known = {actor.id: actor for actor in actors()}
        for owner in set(self._armed) - set(known):
            with suppress(Unavailable, Refused):
                await self._take_away(owner, "*")
        for actor in known.values():
            self.look_at(actor)
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, actors)
            while True:
                await self._stirred.wait()
                self._stirred = anyio.Event()
                while self._changed:
                    await self._set_some()

    async def _ask_what_is_set(self) -> None:
        """Another scheduler may have died between a commit and its timers."""
        while True:
            try:
                stored = await self._bus.replay(timer_subject("*", "*"))
                break
            except Unavailable:
                await anyio.sleep(AGAIN_SECONDS)
        self._armed = {}
        for each in stored:
            owner, name, due = _read(each)
            self._armed.setdefault(owner, {})[name] = due

    async def _watch(self, actors: Callable[[], Iterable[LogActor]]) -> None:
        """What should have fired long ago was lost on the way, or came when it changed nothing: it is set again. What
        another has set is taken away, or made what it should be."""
        while True:
            await anyio.sleep(OVERDUE.total_seconds())
            latest = self._clock.now() - OVERDUE
            late = {o for o, armed in self._armed.items() if any(due < latest for due in armed.values())}
            doubted, self._doubted = self._doubted, set()
            for actor in actors() if late or doubted else ():
                if actor.id in doubted:
                    self.look_at(actor)
                # A command that waits may be the timer's own.
                if actor.id in late and not actor.mailbox:
                    self._armed[actor.id] = {n: due for n, due in self._armed[actor.id].items() if due >= latest}
                    self.look_at(actor)

    async def _set_some(self) -> None:
        some = list(self._changed.values())[:AT_ONCE]
        for actor in some:
            del self._changed[actor.id]
        async with anyio.create_task_group() as group:
            for actor in some:
                group.start_soon(self._follow, actor)

    async def _follow(self, actor: LogActor) -> None:
        """Make the actor's timers what its state asks for, as it is now."""
        armed, wanted = self._armed.get(actor.id, {}), actor.timers(self._limits)
        try:
            for name in armed.keys() - wanted.keys():
                if armed[name] > self._clock.now():
                    await self._take_away(actor.id, name)
                else:
                    self._forget(actor.id, name)  # it has fired, or will, and changes nothing
            for name, due in wanted.items():
                if armed.get(name) != due:
                    await self._set(actor, name, due)
        except (Unavailable, Refused) as error:
            self._log.warning("timer_not_set", task=actor.id, error=str(error))
            await anyio.sleep(AGAIN_SECONDS)
        self.look_at(actor)

    async def _set(self, actor: LogActor, name: str, due: datetime) -> None:
        target, command = actor.timer(name, due)
        # Until the server has said so: where its answer is lost, it may be set all the same.
        self._armed.setdefault(actor.id, {})[name] = UNKNOWN
        await self._bus.schedule(timer_subject(actor.id, name), command, at=due, target=target)
        self._armed.setdefault(actor.id, {})[name] = due

    async def _take_away(self, owner: str, name: str) -> None:
        await self._bus.purge(Stream.TASKS, timer_subject(owner, name))
        self._forget(owner, name)

    def _forget(self, owner: str, name: str) -> None:
        left = {kept: due for kept, due in self._armed.pop(owner, {}).items() if name not in (kept, "*")}
        if left:
            self._armed[owner] = left


def _read(stored: Stored) -> tuple[str, str, datetime]:
    """Whose it is, its name, and when it is due."""
    _, owner, name = stored.subject.split(".")
    try:
        return owner, name, _decode(stored.data).due
    except MsgspecError:
        return owner, name, UNKNOWN
