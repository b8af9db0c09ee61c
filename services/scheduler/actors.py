"""The actors: one a task, one a user. Each has its state, its place in the log and its mailbox, and does one thing at
a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from sys import intern
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from protocol.base import reader
from protocol.evolve import Task, User, evolve, evolve_user
from protocol.ids import KEY_LIMIT_BYTES
from protocol.routes import (
    as_named,
    command_subject,
    decision_subject,
    user_command_subject,
    user_decision_kind,
    user_decision_subject,
)
from protocol.task import Decision, FireTimer, decode_decision, decode_task_command
from protocol.user import ROUTINE, FireSchedule, LogFolded, UserDecision, decode_user_command, decode_user_decision
from services.archive import archived
from services.bus import Stored
from services.scheduler.decide import Limits, answer, answer_user, reject, reject_user, timers, user_timers
from services.scheduler.packed import Kept, Packed, is_at_rest, pack, whole


class Entry(NamedTuple):
    """What is to be stored, and where."""

    subject: str
    message: Struct


class Mailbox(list[Stored]):
    """The commands that wait. Nearly all are empty, and an empty `deque` takes ten times the memory."""

    __slots__ = ()

    def popleft(self) -> Stored:
        return self.pop(0)


class LogActor(Protocol):
    """What the scheduler's shell asks of an actor, be it a task's or a user's."""

    id: str
    sequence: int
    """Of its last decision."""
    unread: int
    """The sequence of the first event of its log that cannot be read, 0 for none. Behind it nothing is folded and
    nothing decided: what the event says, an attempt's number even, would be given out again."""
    mailbox: Mailbox

    @property
    def lock(self) -> asyncio.Lock: ...

    @property
    def log(self) -> str:
        """The wildcard of its decisions."""
        ...

    @property
    def commands(self) -> str:
        """The wildcard of what is sent to it."""
        ...

    @property
    def answered(self) -> int:
        """The sequence of the last command that has its receipt."""
        ...

    def fold(self, stored: Stored) -> None:
        """Take in a decision that was stored; one that is known already changes nothing. Raises msgspec.MsgspecError
        when it cannot be read."""
        ...

    def applied(self, decision: Any, sequence: int) -> None:
        """Take in our own decision once it is stored; the reader may have brought it before its acknowledgement."""
        ...

    def forget(self) -> None:
        """Drop the state, to fold the log again."""
        ...

    def answer(self, command: Stored, now: datetime, limits: Limits) -> Entry | None:
        """The decision on a command, None when it has its receipt. Raises msgspec.MsgspecError when it cannot be
        read."""
        ...

    def reject(self, command: Stored, now: datetime, reason: str) -> Entry | None:
        """The receipt of a command that cannot be handled; None when it has one, or not even a key."""
        ...

    def timers(self, limits: Limits) -> dict[str, datetime]:
        """When each timer that the state asks for is due, by its name."""
        ...

    def timer(self, name: str, due: datetime) -> Entry:
        """The command that a timer sends when it is due."""
        ...


class TaskActor:
    """A task. There may be a hundred thousand in memory."""

    __slots__ = ("_lock", "archived", "id", "is_cleared", "kept", "mailbox", "sequence", "unread", "user")

    def __init__(self, user: str, task: str) -> None:
        self.id = task
        self.user = intern(user)
        self.mailbox = Mailbox()
        self._lock: asyncio.Lock | None = None
        self.forget()

    @property
    def task(self) -> Task:
        return whole(self.kept)

    @property
    def is_at_rest(self) -> bool:
        """Whether its state is packed: nothing follows from it."""
        return isinstance(self.kept, Packed)

    def rest(self, now: datetime) -> None:
        """Take less room, where nothing follows from the state."""
        if isinstance(self.kept, Task) and is_at_rest(self.kept, now):
            self.kept = pack(self.kept)

    @property
    def lock(self) -> asyncio.Lock:
        """Made when it is first asked for: most tasks have ended."""
        if self._lock is None:
            self._lock = asyncio.Lock()
        return self._lock

    @property
    def log(self) -> str:
        return f"evt.{self.user}.{self.id}.task.>"

    @property
    def commands(self) -> str:
        return f"cmd.{self.user}.{self.id}.>"

    @property
    def answered(self) -> int:
        return self.task.answered

    def forget(self) -> None:
        self.kept: Kept = Task(id=self.id, user=self.user)
        self.sequence = self.unread = 0
        self.archived = 0
        """The sequence of the decision that put it away last."""
        self.is_cleared = True
        """Whether what the archive has is gone from the stream."""

    def fold(self, stored: Stored) -> None:
        if stored.sequence > self.sequence and not self.unread:
            with _noted(self, stored):
                decision = decode_decision(stored.data)
            self.applied(decision, stored.sequence)

    def applied(self, decision: Decision, sequence: int) -> None:
        if sequence > self.sequence:
            if archived(decision) is not None:
                # Whoever finds nothing before it in the log finds it cleared.
                self.archived, self.is_cleared = sequence, self.sequence == 0
            self.kept = evolve(self.task, decision)
            self.rest(decision.at)
            self.sequence = sequence

    def answer(self, command: Stored, now: datetime, limits: Limits) -> Entry | None:
        said = as_named(decode_task_command(command.data), command.subject)
        decision = answer(self.task, said, command.sequence, now, limits)
        return self.entry(decision) if decision else None

    def reject(self, command: Stored, now: datetime, reason: str) -> Entry | None:
        key = key_of(command)
        task = self.task
        if not key or command.sequence <= task.answered or key in task.receipts:
            return None
        return self.entry(reject(task, key, command.sequence, now, reason))

    def timers(self, limits: Limits) -> dict[str, datetime]:
        return {} if self.is_at_rest else timers(self.task, limits)

    def timer(self, name: str, due: datetime) -> Entry:
        # With the sequence: one that fired when it changed nothing, and is asked for again, is another command.
        fired = FireTimer(key=f"{name} {due.isoformat()} {self.sequence}", name=name, due=due)
        return Entry(command_subject(self.user, self.id, fired), fired)

    def entry(self, decision: Decision) -> Entry:
        return Entry(decision_subject(self.user, self.id, decision.state), decision)


class UserActor:
    """A user."""

    def __init__(self, user: str) -> None:
        self.id = user
        self.mailbox = Mailbox()
        self.lock = asyncio.Lock()
        self.forget()

    @property
    def log(self) -> str:
        return f"evt.{self.id}.user.>"

    @property
    def commands(self) -> str:
        return f"cmd.{self.id}.user.>"

    @property
    def answered(self) -> int:
        return self.user.answered

    def forget(self) -> None:
        self.user = User(id=self.id)
        self.sequence = self.unread = 0
        self.folded = 0
        """The sequence of the decision that folded the log last."""
        self.routine = 0
        """Messages since that came by the clock."""
        self.is_cleared = True
        """Whether those before it are gone from the stream."""

    def fold(self, stored: Stored) -> None:
        if stored.sequence > self.sequence and not self.unread:
            with _noted(self, stored):
                decision = decode_user_decision(stored.data)
            self.applied(decision, stored.sequence)

    def applied(self, decision: UserDecision, sequence: int) -> None:
        if sequence > self.sequence:
            if any(isinstance(event, LogFolded) for event in decision.events):
                # Whoever finds none before it in the log finds it cleared.
                self.folded, self.is_cleared, self.routine = sequence, self.routine == 0 and self.is_cleared, 0
            elif user_decision_kind(decision) in ROUTINE:
                self.routine += 1
            self.user = evolve_user(self.user, decision)
            self.sequence = sequence

    def answer(self, command: Stored, now: datetime, limits: Limits) -> Entry | None:
        said = as_named(decode_user_command(command.data), command.subject)
        decision = answer_user(self.user, said, command.sequence, now)
        return self.entry(decision) if decision else None

    def reject(self, command: Stored, now: datetime, reason: str) -> Entry | None:
        key = key_of(command)
        if not key or command.sequence <= self.user.answered or key in self.user.receipts:
            return None
        return self.entry(reject_user(key, command.sequence, now, reason))

    def timers(self, limits: Limits) -> dict[str, datetime]:
        return user_timers(self.user)

    def timer(self, name: str, due: datetime) -> Entry:
        fired = FireSchedule(key=f"fire {name} {due.isoformat()} {self.sequence}", schedule=name, due=due)
        return Entry(user_command_subject(self.id, fired), fired)

    def entry(self, decision: UserDecision) -> Entry:
        return Entry(user_decision_subject(self.id, decision), decision)


@contextmanager
def _noted(actor: LogActor, stored: Stored) -> Iterator[None]:
    """An event that cannot be read stops its actor."""
    try:
        yield
    except msgspec.MsgspecError:
        actor.unread = stored.sequence
        raise


class _Keyed(Struct):
    key: str = ""


_decode_key = reader(msgspec.json.Decoder(_Keyed).decode)


def key_of(command: Stored) -> str:
    """The idempotency key of a command that cannot be read otherwise; empty when it has none."""
    try:
        return _decode_key(command.data).key[:KEY_LIMIT_BYTES]
    except msgspec.MsgspecError:
        return ""
