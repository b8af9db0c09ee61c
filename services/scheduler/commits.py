"""Decisions are committed here: fenced by the last sequence of their log, by the active scheduler alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from protocol.evolve import usage_of_turn
from protocol.journal import JournalEntry, decode_entry
from protocol.task import AttemptEnded, Decision, TurnEnded
from services import log
from services.archive import archived
from services.bus import Bus, Conflict, Stored, Unavailable
from services.scheduler.actors import Entry, LogActor, TaskActor
from services.scheduler.archivist import Archivist
from services.scheduler.election import Election

COMMIT_AGAIN_SECONDS = 0.05
BEHIND_SECONDS = 10.0
"""What a replica still lacks after so long was taken out of the log by hand."""


class NotActive(Exception):
    """This scheduler lost its lease: it commits nothing more."""


class Stopped(NotActive):
    """An event of the actor's log cannot be read: nothing is committed to this one, until it can be."""


class Commits:
    """`changed` is called with each actor that a commit, or what came instead of it, has changed."""

    def __init__(self, bus: Bus, election: Election, archivist: Archivist, changed: Callable[[LogActor], None]) -> None:
        self.active = False
        """Whether this scheduler is the one that decides."""
        self._bus = bus
        self._election = election
        self._archivist = archivist
        self._changed = changed
        self._log = log.get()

    @property
    def allowed(self) -> bool:
        return self.active and self._election.held

    async def commit(self, actor: LogActor, entry: Entry) -> None:
        """Commit a decision. Raises NotActive; after Conflict and Unavailable the log was folded again, and the
        decision must be made again."""
        if not self.allowed:
            raise NotActive
        if actor.unread:
            raise Stopped
        try:
            message, sequence = await self._store(actor, entry)
        except (Conflict, Unavailable) as error:
            # Whether it was stored is known only to the log.
            self._log.warning("commit_failed", error=repr(error))
            await self.fold_again(actor)
            raise
        if sequence > actor.sequence:
            actor.applied(message, sequence)
            self._changed(actor)
        if isinstance(actor, TaskActor):
            await self._archivist.clear(actor)

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
        journal: so it expects the last of the whole task. Raises Conflict when another scheduler decided since
        `decision` was made."""
        assert isinstance(actor, TaskActor), "only a task has attempts"
        turn, decided_over, whole = actor.task.turn, actor.sequence, actor.log.removesuffix("task.>") + ">"
        stored: list[Stored] = []
        # Of a long log only what is new is read once more: the runner writes faster than the whole of it is read.
        while more := await self._bus.replay(whole, after=stored[-1].sequence if stored else 0):
            # Not what is folded by now: the reader may have brought a decision of another scheduler's meanwhile.
            if any(each.sequence > decided_over for each in _of("task", more)):
                break
            stored += more
            told = _told_by(_of("journal", stored), decision, turn)
            with suppress(Conflict):
                return told, await self._bus.commit(subject, told, log=whole, expected=stored[-1].sequence)
        raise Conflict(subject)

    async def fold_again(self, actor: LogActor) -> None:
        """Drop the actor's state, and fold its log. Raises NotActive."""
        stored = await self._whole_log(actor)
        actor.forget()
        # What cannot be read was buried when it came by.
        with suppress(msgspec.MsgspecError):
            for each in stored:
                actor.fold(each)
        self._changed(actor)

    async def _whole_log(self, actor: LogActor) -> list[Stored]:
        """As it is now, and not older than what is folded. A read is answered by any of a stream's replicas, and one
        may be behind: the reader, which brings nothing twice, would go on over a hole, and no fence would show it."""
        until = anyio.current_time() + BEHIND_SECONDS
        while True:
            known = actor.sequence, actor.unread
            try:
                stored = await self._bus.replay(actor.log)
            except Unavailable:
                if not self._election.held:
                    raise NotActive from None
                await anyio.sleep(COMMIT_AGAIN_SECONDS)
                continue
            if (actor.sequence, actor.unread) != known:
                continue  # the reader has brought more meanwhile, maybe more than this
            if _end_of(stored) >= actor.sequence or anyio.current_time() > until:
                return stored
            await anyio.sleep(COMMIT_AGAIN_SECONDS)


def _end_of(stored: Sequence[Stored]) -> int:
    return stored[-1].sequence if stored else 0


def _cuts_off_runner(decision: Decision) -> bool:
    return any(isinstance(event, AttemptEnded) and event.how.cuts_off for event in decision.events)


def _of(kind: str, stored: Iterable[Stored]) -> list[Stored]:
    """The decisions (`task`) or the journal's entries (`journal`) of a whole log."""
    return [each for each in stored if each.subject.split(".")[3] == kind]


def _told_by(journal: Sequence[Stored], decision: Decision, turn: int) -> Decision:
    """`decision`, with the journal's end and with what the turn has consumed by it."""
    usage = usage_of_turn(_readable(journal), turn)
    events = (
        replace(event, usage=usage) if isinstance(event, AttemptEnded | TurnEnded) else event
        for event in decision.events
    )
    return replace(decision, journal_sequence=journal[-1].sequence if journal else 0, events=tuple(events))


def _readable(stored: Iterable[Stored]) -> Iterable[JournalEntry]:
    for each in stored:
        with suppress(msgspec.MsgspecError):
            yield decode_entry(each.data)
