"""The log of one task as the runner that holds its attempt sees it: the task's decisions folded, the journal appended
to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import anyio
import msgspec

from agents.contract import Fenced, UserMessage
from protocol.base import encode
from protocol.evolve import Task, evolve, usage_of_turn
from protocol.journal import (
    SETUP_STEP,
    AnyJournalEvent,
    JournalEntry,
    Output,
    SetupFinished,
    StepFinished,
    StepStarted,
    decode_entry,
)
from protocol.routes import journal_subject
from protocol.task import (
    Budget,
    Decision,
    MessageSent,
    QuestionAnswered,
    TaskState,
    TaskSubmitted,
    Terms,
    TurnOpened,
    Usage,
    decode_decision,
)
from services.archive import whole_log
from services.bus import TIMEOUT_SECONDS, Bus, Conflict, Refused, Stored, Unavailable
from services.runner.movement import Movement
from services.runner.printed import Tail

RETRY_SECONDS = 0.1


class TaskLog:
    """Implements the agent's `Journal`.

    The fence: every append expects the last sequence of the whole task. A decision in between, be it a message or a
    cancel, refuses it until it was folded here; if it ended the attempt, everything raises Fenced from then on.
    """

    def __init__(self, bus: Bus, task: Task, sequence: int) -> None:
        self.task = task
        self.attempt = task.attempt
        self.terms = task.holder.terms if task.holder else Terms()
        """What the user's log said at the claim."""
        self.entries: list[JournalEntry] = []
        self.messages: list[UserMessage] = []
        self.answers: dict[str, QuestionAnswered] = {}
        """What the user answered or decided, by question."""
        self.retried = ""
        """How the turn ended that the open one repeats; empty where it repeats none."""
        self.over = anyio.Event()
        """Set when another decision ended the attempt."""
        self.movement = Movement()
        self.paused = anyio.Event()
        """Set when the user held the turn back: the attempt is to be given back."""
        self.journal_sequence = 0
        """Of the last entry that this attempt wrote."""
        self.printed = Tail()
        """What its running steps have put out so far."""
        self._bus = bus
        self._whole = f"evt.{task.user}.{task.id}.>"
        self._sequence = 0
        """Of the last message of the whole task that is folded here."""
        self._decided = 0
        """Of the last decision that is folded here."""
        self._in_doubt = False
        """An entry was sent, and whether it was stored is not known here: a decision may come after it."""
        self._granted = sequence
        self._lock = anyio.Lock()
        self._changed = anyio.Event()
        self._offsets: dict[int, int] = {}

    @property
    def usage(self) -> Usage:
        """What this turn's model calls consumed so far, lost attempts included."""
        return usage_of_turn(self.entries, self.task.turn)

    @property
    def budget(self) -> Budget:
        """As the task asks for it by now, and as its user does for all tasks."""
        return self.task.budget.over(self.terms.budget)

    async def open(self) -> None:
        """Fold what was logged before; for a task's first attempt nothing needs to be read. Raises Fenced."""
        task = self.task
        if task.attempt == 1 and task.turn == 1 and task.messages == 0:
            self.messages = [UserMessage(number=0, text=task.prompt, turn=1)]
            self._sequence = self._decided = self._granted
            return
        self.task = Task(id=task.id, user=task.user)
        async with self._lock:
            await self._catch_up()
        self._check()

    async def append(self, event: AnyJournalEvent) -> None:
        """Durable when it returns. Waits while NATS is away. Raises Fenced."""
        async with self._lock:
            entry = JournalEntry(attempt=self.attempt, at=datetime.now(UTC), event=event)
            subject = journal_subject(self.task.user, self.task.id, event)
            data = encode(entry)
            while True:
                self._check()
                if self._is_settled(event):
                    return
                self.movement.show()
                try:
                    sequence = await self._commit(subject, entry)
                except (Conflict, Unavailable) as error:
                    if isinstance(error, Unavailable):
                        await anyio.sleep(RETRY_SECONDS)
                    # It may have been stored all the same: then the log has it, byte for byte.
                    if await self._catch_up_and_find(data):
                        return
                else:
                    self._take_entry(entry, sequence)
                    self._in_doubt = False
                    return

    async def _commit(self, subject: str, entry: JournalEntry) -> int:
        """To its end, also when the work is cut off: what is on its way may be stored only after the log was read for
        the attempt's last word, which says where its journal ends and what it cost."""
        self._in_doubt = True
        with anyio.move_on_after(TIMEOUT_SECONDS, shield=True):
            return await self._bus.commit(subject, entry, log=self._whole, expected=self._sequence)
        raise Unavailable(f"NATS did not take an entry of {self.task.id} in time.")

    async def preview(self, step: int, text: str, channel: str) -> None:
        """Show a piece of a running step's output. May be lost."""
        offset = self._offsets.get(step, 0)
        self._offsets[step] = offset + len(text)
        piece = Output(attempt=self.attempt, step=step, offset=offset, text=text, channel=channel)
        self.printed.add(piece)
        await self._bus.preview(f"out.{self.task.user}.{self.task.id}", piece)

    async def on_decision(self, stored: Stored) -> None:
        """A decision as it is stored, from the live tap."""
        if stored.sequence <= self._decided:
            return
        async with self._lock:
            if stored.previous == self._decided and not self._in_doubt:
                self._take(stored)
            elif stored.sequence > self._decided:
                await self._catch_up()

    async def refresh(self) -> None:
        """Fold what a live tap may have missed."""
        async with self._lock:
            await self._catch_up()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true of this log. Raises Fenced."""
        while not holds():
            self._check()
            changed = self._changed
            await changed.wait()
        self._check()

    async def _catch_up_and_find(self, data: bytes) -> bool:
        before = len(self.entries)
        await self._catch_up()
        return any(encode(entry) == data for entry in self.entries[before:])

    def _is_settled(self, event: AnyJournalEvent) -> bool:
        """Whether its step has an outcome already: an append that was cut off, as by the turn's deadline, may have been
        stored all the same."""
        if isinstance(event, StepFinished):
            for entry in reversed(self.entries):
                match entry.event:
                    case StepFinished(step=event.step):
                        return True
                    case StepStarted(step=event.step):
                        return False
        return False

    async def _catch_up(self) -> None:
        while True:
            try:
                for stored in await whole_log(self._bus, self._whole, after=self._sequence):
                    self._take(stored)
                self._in_doubt = False
                return
            except Unavailable:
                await anyio.sleep(RETRY_SECONDS)

    def _take(self, stored: Stored) -> None:
        """Raises Refused for what cannot be read: to leave it out would change what the agent did or was told."""
        kind = stored.subject.split(".")[3]
        try:
            if kind == "journal":
                self._take_entry(decode_entry(stored.data), stored.sequence)
            else:
                self._take_decision(decode_decision(stored.data), stored.sequence)
        except msgspec.MsgspecError as error:
            raise Refused(f"Event {stored.sequence} of this task cannot be read by this release: {error}") from None

    def _take_entry(self, entry: JournalEntry, sequence: int) -> None:
        self.entries.append(entry)
        self._sequence = sequence
        if entry.attempt == self.attempt:
            self.journal_sequence = sequence
        match entry.event:
            case StepFinished(step=step):
                self.printed.end(step)
            case SetupFinished():
                self.printed.end(SETUP_STEP)

    def _take_decision(self, decision: Decision, sequence: int) -> None:
        for event in decision.events:
            self._take_words(event, decision)
            if isinstance(event, TurnOpened):
                self.retried = self._how_it_ended() if event.retries else ""
        self.task = evolve(self.task, decision)
        self._sequence = self._decided = sequence
        if sequence >= self._granted and not self._holds():
            self.over.set()
        if sequence >= self._granted and self.task.state is TaskState.PAUSED:
            self.paused.set()
        self._changed.set()
        self._changed = anyio.Event()

    def _take_words(self, event: object, decision: Decision) -> None:
        match event:
            case TaskSubmitted():
                self.messages.append(UserMessage(number=0, text=event.prompt, turn=1))
            case MessageSent():
                opens = any(isinstance(other, TurnOpened) for other in decision.events)
                self.messages.append(UserMessage(number=event.message, text=event.text, turn=self.task.turn + opens))
            case QuestionAnswered():
                self.answers[event.question] = event

    def _how_it_ended(self) -> str:
        return f"{self.task.state}: {self.task.reason}" if self.task.reason else self.task.state.value

    def _holds(self) -> bool:
        return self.task.holder is not None and self.task.holder.attempt == self.attempt

    def _check(self) -> None:
        if self.over.is_set():
            raise Fenced(f"attempt {self.attempt} of {self.task.id} is over")
