"""Messages in, rows out: what the fold must get right whatever the batches are cut like."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from protocol.base import Message, encode
from protocol.evolve import Task
from protocol.journal import JournalEntry, ModelCall, StepFinished, StepStarted, ToolCall, ToolResult
from protocol.task import (
    AttemptClaimed,
    Decision,
    MessageSent,
    Receipt,
    ReceiptStatus,
    TaskState,
    TaskSubmitted,
    TurnEnded,
    TurnOpened,
)
from protocol.user import (
    AnyUserEvent,
    DeviceAdded,
    HostAdded,
    HostKind,
    SecretSet,
    SignInCodeCreated,
    SignInCodeRedeemed,
)
from services.bus import Stored
from services.history.database import comment_of, shipped_views
from services.history.fold import Batch, fold, redact
from services.history.service import portions
from services.history.sql_process import json_value

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def stored(sequence: int, subject: str, message: Any) -> Stored:
    data = message if isinstance(message, bytes) else encode(message)
    return Stored(subject, sequence, data, NOW)


def decision(sequence: int, *events: Message, state: TaskState = TaskState.QUEUED) -> Stored:
    receipt = Receipt(key="k", status=ReceiptStatus.CONSUMED)
    made = Decision(at=NOW, state=state, events=events, receipt=receipt)  # type: ignore[arg-type]
    return stored(sequence, f"evt.u.t.task.{state}", made)


def journal(sequence: int, event: Any, kind: str = "any") -> Stored:
    return stored(sequence, f"evt.u.t.journal.{kind}", JournalEntry(attempt=1, at=NOW, event=event))


SUBMITTED = TaskSubmitted(prompt="do it", repository="r", title="t")
STEP = StepStarted(step=1, action=ToolCall(id="x", name="bash", input={"command": "ls"}))
FINISHED = StepFinished(step=1, result=ToolResult(text="out", exit_code=0), duration_seconds=0.5)


def test_an_event_is_one_row_and_keeps_its_place_in_the_decision() -> None:
    batch = fold([decision(7, MessageSent(message=1, text="a"), TurnOpened(turn=2))], {})
    assert [row[:2] + row[6:7] for row in batch.events] == [(7, 0, "message_sent"), (7, 1, "turn_opened")]


def test_a_payload_is_the_event_as_it_was_written_unknown_fields_included() -> None:
    data = b'{"attempt":1,"at":"2026-11-01T00:00:00Z","event":{"type":"noticed",  "text":"x","from_the_future":[1]}}'
    [row] = fold([stored(1, "evt.u.t.journal.noticed", data)], {}).events
    assert row[-1] == '{"type":"noticed",  "text":"x","from_the_future":[1]}'


def test_a_step_that_ends_in_its_own_batch_is_one_row() -> None:
    batch = fold([journal(1, STEP), journal(2, FINISHED)], {})
    row = batch.steps.begun[("t", 1)]
    assert (row["tool"], row["outcome"], row["exit_code"]) == ("bash", "ok", 0)
    assert not batch.steps.changed


def test_a_step_that_ends_in_a_later_batch_is_a_change() -> None:
    batch = fold([journal(2, FINISHED)], {})
    assert not batch.steps.begun
    assert batch.steps.changed[("t", 1)]["outcome"] == "ok"


def test_a_model_call_has_no_tool() -> None:
    batch = fold([journal(1, StepStarted(step=1, action=ModelCall(reserved_usd=0.5)))], {})
    assert "tool" not in batch.steps.begun[("t", 1)]


def test_a_turn_is_named_by_the_message_that_opened_it() -> None:
    batch = fold([decision(1, SUBMITTED), decision(2, MessageSent(message=1, text="more"), TurnOpened(turn=2))], {})
    assert [row["message"] for row in batch.turns.begun.values()] == ["do it", "more"]


def test_a_tasks_state_goes_on_from_the_one_before() -> None:
    first = fold([decision(1, SUBMITTED)], {})
    ended = TurnEnded(turn=1, outcome=TaskState.FAILED, reason="why")
    claimed = AttemptClaimed(attempt=1, turn=1, runner="r", request="q")
    second = fold([decision(2, claimed), decision(3, ended, state=TaskState.FAILED)], first.states)
    assert second.attempts.begun[("t", 1)]["queued_at"] == NOW
    assert second.tasks.changed[("t",)]["state"] == "failed"
    assert first.states["t"].state is TaskState.QUEUED, "a batch that is never written has changed nothing"


def test_commands_and_timers_are_passed_over() -> None:
    batch = fold([stored(1, "cmd.u.t.cancel_task", b"odd"), stored(2, "timer.t.retry", b"odd")], {})
    assert (batch.sequence, batch.events, batch.undecodable) == (2, [], [])


def test_a_rejected_submit_is_a_receipt_and_no_task() -> None:
    batch = fold([decision(1)], {})
    assert len(batch.receipts) == 1
    assert not batch.tasks.begun
    assert not batch.tasks.changed
    assert "t" not in batch.states


def test_the_kept_state_has_neither_receipts_nor_the_prompt() -> None:
    batch = fold([decision(1, SUBMITTED)], {})
    kept = msgspec.json.decode(batch.tasks.begun[("t",)]["fold"], type=Task)
    assert (kept.prompt, kept.receipts, kept.turn) == ("", {}, 1)


@pytest.mark.parametrize(
    ("subject", "data", "why"),
    [
        ("evt.u.t.task.queued", b"not json", "not JSON"),
        ("evt.u.t.task.queued", b'{"type":"x"}', "an unknown tag"),
        (
            "evt.u.t.journal.noticed",
            b'{"attempt":1,"at":"2026-11-01T00:00:00Z","event":{"type":"x"}}',
            "an unknown event",
        ),
        ("evt.u.t.journal.noticed", b"[" * 100_000, "nested beyond every limit"),
        ("evt.u.t.journal.noticed", b'{"attempt":1,"at":"2026-11-01T00:00:00Z","x":"\xff"', "not UTF-8"),
        (
            "evt.u.t.journal.noticed",
            b'{"attempt":1,"at":"2026-11-01T00:00:00Z","event":{"type":"noticed","text":"\xff"}}',
            "a text that is not UTF-8",
        ),
        (
            "evt.u.t.journal.noticed",
            b'{"attempt":1,"at":"2026-11-01T00:00:00Z","event":{"type":"noticed","text":"","x":"\xff"}}',
            "an unknown field that is not UTF-8",
        ),
        ("evt.u.t.journal.a.b", b"{}", "a subject that nobody made"),
        ("evt.u", b"{}", "a subject that nobody made"),
    ],
)
def test_what_cannot_be_decoded_is_set_aside_and_counted_as_read(subject: str, data: bytes, why: str) -> None:
    batch = fold([decision(1, SUBMITTED), stored(2, subject, data), journal(3, STEP)], {})
    assert [one.stored.sequence for one in batch.undecodable] == [2], why
    assert (len(batch.events), batch.sequence) == (2, 3)


SECRET = "never-in-a-history"


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        (
            DeviceAdded(device="d", device_name="my phone", token_hash=SECRET),
            {"type": "device_added", "device": "d", "device_name": "my phone"},
        ),
        (
            HostAdded(host="h", kind=HostKind.TOKEN, sealed=SECRET, username="me"),
            {"type": "host_added", "host": "h", "kind": "token", "username": "me"},
        ),
        (
            SignInCodeCreated(code_hash=SECRET, expires_at=NOW),
            {"type": "sign_in_code_created", "expires_at": "2026-11-01T00:00:00Z"},
        ),
        (
            SecretSet(name="NPM_TOKEN", repository="https://host/app", sealed=SECRET),
            {"type": "secret_set", "name": "NPM_TOKEN", "repository": "https://host/app"},
        ),
        (SignInCodeRedeemed(code_hash=SECRET), {"type": "sign_in_code_redeemed"}),
    ],
)
def test_what_signs_in_or_opens_is_left_out(event: AnyUserEvent, kept: dict[str, Any]) -> None:
    assert json.loads(redact(event)) == kept


def test_a_batch_is_cut_by_messages_and_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.history.service.BATCH_LIMIT_MESSAGES", 3)
    monkeypatch.setattr("services.history.service.BATCH_LIMIT_BYTES", 10)
    messages = [stored(n, "evt.u", b"x" * size) for n, size in enumerate((1, 1, 1, 1, 9, 1, 50, 1))]
    assert [[len(m.data) for m in portion] for portion in portions(messages)] == [[1, 1, 1], [1, 9], [1], [50], [1]]


def test_every_view_begins_with_a_sentence_about_it() -> None:
    assert len(shipped_views()) >= 5
    assert all(comment_of(statement).endswith(".") for _, statement in shipped_views())


def test_large_numbers_and_odd_keys_survive_json() -> None:
    assert json_value({1: [2**70, float("nan"), (b"x",)]}) == {"1": [str(2**70), "nan", [b"x"]]}


def test_an_empty_batch_moves_the_sequence_alone() -> None:
    batch = Batch({}, sequence=9)
    assert (batch.sequence, batch.events) == (9, [])
