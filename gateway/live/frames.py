"""A stored message as the frame that every socket of its user is sent: checked once, encoded once."""

from __future__ import annotations

import msgspec

from gateway.live.splice import UNKNOWN, Event
from protocol.base import encode
from protocol.journal import JournalEntry, Noticed, decode_entry
from protocol.live import JournalSeen
from protocol.task import Decision, TaskState, decode_decision
from services.bus import Stored


def of_journal(task: str, stored: Stored) -> Event:
    """The message goes into the frame as it is: to encode again what was just decoded would cost more than the rest of
    the way.

    Raises msgspec.MsgspecError for what is no journal entry.
    """
    decode_entry(stored.data)
    head = b'{"type":"journal_seen","task":"%b","sequence":%d,"previous":%d,"entry":'
    frame = head % (task.encode(), stored.sequence, stored.previous) + stored.data + b"}"
    return Event(stored.sequence, stored.previous, frame, is_running=True)


def of_decision(task: str, stored: Stored) -> tuple[Event, Decision]:
    """Raises msgspec.MsgspecError for what is no decision."""
    decision = decode_decision(stored.data)
    head = b'{"type":"decision_seen","task":"%b","sequence":%d,"previous":%d,"decision":'
    frame = head % (task.encode(), stored.sequence, stored.previous) + stored.data + b"}"
    return Event(stored.sequence, UNKNOWN, frame, is_running=decision.state is TaskState.RUNNING), decision


def of_unreadable(task: str, stored: Stored) -> Event:
    """What stands in its place, so that the phone sees no gap."""
    notice = Noticed(text="An event of this task cannot be read and is left out.", level="warning")
    entry = JournalEntry(attempt=0, at=stored.at, event=notice)
    frame = encode(JournalSeen(task=task, sequence=stored.sequence, previous=stored.previous, entry=entry))
    return Event(stored.sequence, UNKNOWN, frame)


def is_decision(stored: Stored) -> bool:
    """Whether it comes from the task's decision log rather than from an attempt's journal."""
    return stored.subject.split(".", 4)[3] == "task"


def of_stored(task: str, stored: Stored) -> Event:
    """Any event of a task; a notice for what cannot be read."""
    try:
        return of_decision(task, stored)[0] if is_decision(stored) else of_journal(task, stored)
    except msgspec.MsgspecError:
        return of_unreadable(task, stored)
