"""A stored message as a frame: what the phone reads is what was stored."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.live import frames
from gateway.live.splice import UNKNOWN
from protocol.base import Message, Part, encode
from protocol.journal import JournalEntry, Noticed, StepStarted, ToolCall
from protocol.live import DecisionSeen, JournalSeen, decode_server_frame
from protocol.task import Decision, TaskState, TaskSubmitted
from services.bus import Stored

AT = datetime(2026, 11, 1, tzinfo=UTC)


def stored(subject: str, message: Message | Part | bytes) -> Stored:
    return Stored(subject, 17, message if isinstance(message, bytes) else encode(message), AT, previous=12)


@pytest.mark.parametrize(
    "event",
    [
        Noticed(text='quotes " and \\, ünïcode, \u2028 and \x00'),
        StepStarted(step=3, action=ToolCall(id="c", name="bash", input={"command": "ls }"})),
    ],
)
def test_a_journal_entry_arrives_as_it_was_written(event: Noticed | StepStarted) -> None:
    entry = JournalEntry(attempt=2, at=AT, event=event)
    found = frames.of_stored("t1", stored("evt.u.t1.journal.x", entry))
    assert decode_server_frame(found.frame) == JournalSeen(task="t1", sequence=17, previous=12, entry=entry)
    assert (found.sequence, found.follows, found.is_running) == (17, 12, True)


@pytest.mark.parametrize(("state", "is_running"), [(TaskState.QUEUED, False), (TaskState.RUNNING, True)])
def test_a_decision_arrives_as_it_was_written_and_proves_nothing_of_the_journal(
    state: TaskState, is_running: bool
) -> None:
    submitted = TaskSubmitted(prompt="Do it", repository="https://git.example/a", title="It")
    decision = Decision(at=AT, state=state, events=(submitted,))
    found = frames.of_stored("t1", stored("evt.u.t1.task.queued", decision))
    assert decode_server_frame(found.frame) == DecisionSeen(task="t1", sequence=17, previous=12, decision=decision)
    assert (found.sequence, found.follows, found.is_running) == (17, UNKNOWN, is_running)


@pytest.mark.parametrize("subject", ["evt.u.t1.task.queued", "evt.u.t1.journal.noticed"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"type":"unknown"}', b"\xff", b'{"attempt":1}}'])
def test_what_cannot_be_read_is_said_in_its_place(subject: str, data: bytes) -> None:
    seen = decode_server_frame(frames.of_stored("t1", stored(subject, data)).frame)
    assert isinstance(seen, JournalSeen)
    assert (seen.sequence, seen.previous) == (17, 12)
    assert isinstance(seen.entry.event, Noticed)
