"""Puts ended tasks away: their logs into the archive, what is left of them out of the stream.

The decision is the point of no return: before it, nothing has left the stream; after it, everything is in the archive,
and what is to leave is derived from the state, so whoever takes over goes on with it. An object that was written for a
decision that was never made is taken away by `sweep`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from protocol.base import MESSAGE_LIMIT_BYTES, encode, tag_of
from protocol.evolve import Task
from protocol.journal import CheckpointMade, decode_entry
from protocol.receipts import newest
from protocol.routes import Stream
from protocol.task import OUTCOMES, Decision, TaskArchived
from services import log
from services.archive import pack, whole_log
from services.bus import ARCHIVE, BLOBS, SNAPSHOTS, Bus, Conflict, Refused, Stored, Unavailable
from services.scheduler.actors import TaskActor
from services.scheduler.reached import Reached
from services.scheduler.unhurried import unhurried

KEPT_CHARS = {"prompt": 8_000, "summary": 4_000, "reason": 2_000}
"""Of longer texts of a task, so much stays outside of the archive."""
BESIDE_BYTES = 4 * 1024
"""What the message has beside the task."""
WRITTEN_BY_THEN = timedelta(hours=1)
"""An object that is still not whole so long after its last piece never will be."""
POSTPONED = timedelta(hours=1)
"""A task that could not be put away is tried again so much later."""


class Archivist:
    """What the scheduler does about the archive, without its decisions."""

    def __init__(self, bus: Bus, reached: Reached, after: timedelta) -> None:
        """`after`: how long a task must have rested; zero puts none away but by its user's wish."""
        self._bus = bus
        self._reached = reached
        self._after = after
        self._postponed: dict[str, datetime] = {}
        self._older: dict[str, str] = {}
        """The archive of each task before the one that was just written."""

    def is_due(self, task: Task, now: datetime) -> bool:
        """Whether the task has rested long enough. Asked of every task again and again: the cheap questions first."""
        if not self._after or task.archived_at is not None or task.state not in OUTCOMES or task.updated_at is None:
            return False
        return now - task.updated_at >= self._after and now >= self._postponed.get(task.id, now)

    def postpone(self, task: Task, now: datetime) -> None:
        self._postponed[task.id] = now + POSTPONED

    async def commit(self, actor: TaskActor, subject: str, decision: Decision) -> tuple[Decision, int]:
        """Write the archive, then the decision that names it. Raises NotYet, and Conflict when the task's log went on
        since `decision` was made."""
        # As decided over: meanwhile the reader may bring a decision of another scheduler's.
        task, decided_over, whole = actor.task, actor.sequence, f"evt.{actor.user}.{actor.id}.>"
        stored = await whole_log(self._bus, whole)
        if _last_decision(stored) != decided_over:
            raise Conflict(subject)
        await self._reached.wait(stored[-1].sequence)
        put, older = _put_away(task, stored), task.archive
        # A name of its own for each end of the log: who is late overwrites nobody's.
        await self._bus.put_blob(put.archive, pack(stored), ARCHIVE)
        events = tuple(put if isinstance(event, TaskArchived) else event for event in decision.events)
        decision = replace(decision, events=events)
        sequence = await self._bus.commit(subject, decision, log=whole, expected=put.until)
        self._postponed.pop(actor.id, None)
        if older:
            self._older[actor.id] = older
        return decision, sequence

    async def clear(self, actor: TaskActor) -> None:
        """What the archive has leaves the stream; where that fails it is left for another time."""
        if actor.is_cleared:
            return
        try:
            await self._purge(actor)
            actor.is_cleared = True
        except (Unavailable, Refused) as error:
            log.get().warning("not_cleared", task=actor.id, error=str(error))

    async def _purge(self, actor: TaskActor) -> None:
        task, below = actor.task, actor.archived
        await self._bus.purge(Stream.TASKS, f"evt.{task.user}.{task.id}.>", below=below)
        await self._bus.purge(Stream.TASKS, f"cmd.{task.user}.{task.id}.>", below=task.answered + 1)
        # Not before: until then the stream's first decision names it. What is forgotten here, `sweep` finds.
        if older := self._older.pop(task.id, ""):
            with suppress(Unavailable):
                await self._bus.delete_blob(older, ARCHIVE)

    async def sweep(self, actors: Mapping[str, TaskActor], now: datetime) -> int:
        """Take away objects that no task names, of the tasks in `actors` (by id): archives that another took the place
        of or that were never decided on, and checkpoints of archived tasks but for the last; and what is of no object.
        Return how many. Raises Unavailable."""
        archives, blobs = await self._bus.blob_names(ARCHIVE), await self._bus.blob_names(BLOBS)
        loose = [(name, ARCHIVE) async for name in unhurried(archives) if _is_loose_archive(name, actors)]
        loose += [(name, BLOBS) async for name in unhurried(blobs) if _is_loose_checkpoint(name, actors)]
        for name, bucket in loose:
            await self._bus.delete_blob(name, bucket)
        before = now - WRITTEN_BY_THEN
        return len(loose) + sum([await self._bus.drop_leftovers(b, before=before) for b in (ARCHIVE, BLOBS, SNAPSHOTS)])


def _put_away(task: Task, stored: Sequence[Stored]) -> TaskArchived:
    until, last = stored[-1].sequence, _last_checkpoint(stored)
    return TaskArchived(
        fold=msgspec.to_builtins(in_one_message(task)),
        archive=f"{task.user}.{task.id}.{until}",
        until=until,
        checkpoint=last.blob if last else "",
        ignored=last.ignored if last else "",
    )


def in_one_message(task: Task) -> Task:
    """`task` without what is too long for the message that stands for it. Only where an earlier release kept more
    receipts than have room do the oldest of them go; who asks for one again is told that the task is full."""
    texts = {name: _cut(getattr(task, name), limit) for name, limit in KEPT_CHARS.items()}
    task = replace(task, **texts)
    room = MESSAGE_LIMIT_BYTES - BESIDE_BYTES - len(encode(replace(task, receipts={})))
    return replace(task, receipts={receipt.key: receipt for receipt in newest(task.receipts.values(), room)})


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _last_decision(stored: Sequence[Stored]) -> int:
    return next((each.sequence for each in reversed(stored) if each.subject.split(".")[3] == "task"), 0)


def _last_checkpoint(stored: Sequence[Stored]) -> CheckpointMade | None:
    for each in reversed(stored):
        if each.subject.endswith(f".{tag_of(CheckpointMade)}"):
            with suppress(msgspec.MsgspecError):
                event = decode_entry(each.data).event
                return event if isinstance(event, CheckpointMade) else None
    return None


def _is_loose_archive(name: str, actors: Mapping[str, TaskActor]) -> bool:
    """One whose end of the log was gone past without naming it can be named no more."""
    _, task, until = name.split(".")
    actor = actors.get(task)
    return actor is not None and int(until) < actor.sequence and name != actor.task.archive


def _is_loose_checkpoint(name: str, actors: Mapping[str, TaskActor]) -> bool:
    actor = actors.get(name.split(".")[1]) if name.startswith("checkpoint.") else None
    task = actor.task if actor else None
    return task is not None and task.archived_at is not None and name not in (task.checkpoint, task.ignored)
