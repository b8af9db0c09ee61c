"""The fold of the stream into rows. Pure: messages and the tasks' states before them in, a `Batch` of rows out.

Only what a row needs from before its message is kept as state: the task, folded by `protocol.evolve`. Turns, attempts
and steps begin with one message and are changed by later ones, in this batch or in another; `Rows` tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, assert_never

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from protocol.base import encode, tag_of
from protocol.evolve import Task, evolve
from protocol.journal import (
    AttemptStarted,
    CheckpointMade,
    HostRefused,
    JournalEntry,
    ModelCall,
    ModelReply,
    Noticed,
    SandboxRestored,
    SetupFinished,
    SetupStarted,
    StepFinished,
    StepLost,
    StepStarted,
    ToolCall,
    ToolResult,
    decode_entry,
)
from protocol.task import (
    AnyTaskEvent,
    AttemptClaimed,
    AttemptEnded,
    Decision,
    MessageSent,
    Published,
    Receipt,
    TaskArchived,
    TaskSubmitted,
    TurnEnded,
    TurnOpened,
    Usage,
    decode_decision,
)
from protocol.user import AnyUserEvent, UserAdded, UserDecision, UserRemoved, decode_user_decision
from services.bus import Stored

ERROR_LIMIT_CHARS = 2_000
"""Of a failed step's text; the whole is in its event."""
USER_FIELDS_KEPT = frozenset(
    {
        "type",
        "bulk",
        "action",
        "tasks",
        "name",
        "role",
        "device",
        "device_name",
        "host",
        "kind",
        "username",
        "login",
        "repository",
        "expires_at",
        "queue",
        "paused",
        "running_limit",
        "schedule",
        "cron",
        "time_zone",
        "catch_up",
        "next_at",
        "task",
        "outcome",
    }
)
"""What a user's event keeps in the history. A list of what may stay: a new field is out until somebody has thought
about it, and token hashes, codes and sealed credentials never come in."""

Row = tuple[Any, ...]
Key = tuple[str | int, ...]
Columns = dict[str, Any]


class Undecodable(Struct, frozen=True):
    """A message that is no part of the history."""

    stored: Stored
    reason: str


class Rows:
    """The rows of one table that a batch touches, by their key."""

    def __init__(self) -> None:
        self.begun: dict[Key, Columns] = {}
        self.changed: dict[Key, Columns] = {}
        """New values for rows that began in an earlier batch."""

    def begin(self, *key: str | int, **columns: Any) -> None:
        self.begun[key] = columns

    def change(self, *key: str | int, **columns: Any) -> None:
        row = self.begun.get(key)
        if row is None:
            row = self.changed.setdefault(key, {})
        row.update(columns)


class Batch:
    """What a run of messages adds to the history."""

    def __init__(self, tasks: Mapping[str, Task], sequence: int = 0) -> None:
        self.sequence = sequence
        """The last message's."""
        self.states = dict(tasks)
        """The tasks as they are after the batch."""
        self.events: list[Row] = []
        self.receipts: list[Row] = []
        self.refusals: list[Row] = []
        self.users = Rows()
        self.tasks = Rows()
        self.turns = Rows()
        self.attempts = Rows()
        self.steps = Rows()
        self.undecodable: list[Undecodable] = []

    # One message

    def take(self, stored: Stored) -> None:
        """Fold one message; raises before anything is changed when it cannot be decoded."""
        match stored.subject.split("."):
            case ["evt", user, task, "journal", _]:
                entry = decode_entry(stored.data)
                payload = str(_decode_raw_entry(stored.data).event, "utf-8")
                self._take_entry(stored.sequence, user, task, entry, payload)
            case ["evt", user, task, "task", _]:
                decision = decode_decision(stored.data)
                payloads = [str(raw, "utf-8") for raw in _decode_raw_decision(stored.data).events]
                self._take_decision(stored.sequence, user, task, decision, payloads)
            case ["evt", user, "user", _]:
                decision = decode_user_decision(stored.data)
                self._take_user_decision(stored.sequence, user, decision)
            case ["cmd" | "timer", *_]:
                pass  # a wish: what came of it is an event
            case _:
                raise msgspec.ValidationError("No event of the house travels on this subject.")

    def _take_entry(self, sequence: int, user: str, task: str, entry: JournalEntry, payload: str) -> None:
        event, at = entry.event, entry.at
        step = None
        match event:
            case StepStarted():
                step = event.step
                self.steps.begin(
                    task, step, user_id=user, attempt=entry.attempt, started_at=at, **_action_columns(event.action)
                )
            case StepFinished():
                step = event.step
                self.steps.change(
                    task, step, finished_at=at, duration_seconds=event.duration_seconds, **_result_columns(event.result)
                )
            case AttemptStarted():
                self.attempts.change(
                    task,
                    entry.attempt,
                    started_at=at,
                    base_commit=event.base_commit,
                    branch=event.branch,
                    model=event.model,
                    sandbox=event.sandbox,
                    scripted=event.scripted,
                    restored_step=event.restored_step,
                )
            case CheckpointMade():
                step = event.step
            case HostRefused(host=host, port=port, reason=reason):
                self.refusals.append((sequence, at, user, task, entry.attempt, host, port, reason))
            case SandboxRestored() | SetupStarted() | SetupFinished() | Noticed():
                pass
            case _:
                assert_never(event)
        self.events.append((sequence, 0, at, user, task, "journal", tag_of(event), entry.attempt, step, payload))

    def _take_decision(self, sequence: int, user: str, task: str, decision: Decision, payloads: list[str]) -> None:
        before = self.states.get(task) or Task(id=task, user=user)
        said = ""
        for position, (event, payload) in enumerate(zip(decision.events, payloads, strict=True)):
            if isinstance(event, MessageSent):
                said = event.text
            if isinstance(event, TaskArchived):
                payload = encode(replace(event, fold={})).decode()  # the rows have it
            self._take_task_event(user, before, event, decision.at, said)
            attempt = event.attempt if isinstance(event, AttemptClaimed | AttemptEnded) else None
            self.events.append(
                (sequence, position, decision.at, user, task, "task", tag_of(event), attempt, None, payload)
            )
        if decision.receipt is not None:
            self._take_receipt(sequence, user, task, decision, decision.receipt, decision.receipt.key)
        # Receipts are rows here; in the state they would make every task's row as long as its life.
        after = replace(evolve(before, decision), receipts={})
        if after.created_at is not None:  # what was never submitted, only rejected, is no task
            self.states[task] = after
            self.tasks.change(task, **_task_columns(after))

    def _take_task_event(self, user: str, before: Task, event: AnyTaskEvent, at: datetime, said: str) -> None:
        match event:
            case TaskSubmitted():
                self.tasks.begin(
                    before.id,
                    user_id=user,
                    title=event.title,
                    prompt=event.prompt,
                    repository=event.repository,
                    base=event.base,
                    model=event.model,
                    queue=event.queue,
                    labels=",".join(event.labels),
                    schedule=event.schedule,
                    start_at=event.start_at,
                    fork_of=event.fork_of or None,
                    created_at=at,
                )
                self.turns.begin(before.id, 1, user_id=user, message=event.prompt, opened_at=at)
            case TurnOpened():
                self.turns.begin(
                    before.id, event.turn, user_id=user, message=said, retries=event.retries or None, opened_at=at
                )
            case TurnEnded():
                self.turns.change(
                    before.id,
                    event.turn,
                    ended_at=at,
                    outcome=event.outcome.value,
                    reason=event.reason,
                    summary=event.summary,
                    **_published_columns(event.published),
                    **_usage_columns(event.usage),
                )
            case AttemptClaimed():
                self.attempts.begin(
                    before.id,
                    event.attempt,
                    user_id=user,
                    turn=event.turn,
                    runner=event.runner,
                    queued_at=before.queued_at,
                    claimed_at=at,
                )
            case AttemptEnded():
                self.attempts.change(
                    before.id,
                    event.attempt,
                    ended_at=at,
                    how=event.how,
                    reason=event.reason,
                    **_usage_columns(event.usage),
                )
            case _:
                pass  # the task's own row says it, from the state

    def _take_user_decision(self, sequence: int, user: str, decision: UserDecision) -> None:
        for position, event in enumerate(decision.events):
            if isinstance(event, UserAdded):
                self.users.begin(user, name=event.name, role=event.role.value, added_at=decision.at)
            elif isinstance(event, UserRemoved):
                self.users.change(user, role="removed")
            payload = redact(event)
            self.events.append(
                (sequence, position, decision.at, user, None, "user", tag_of(event), None, None, payload)
            )
        if decision.receipt is not None:
            # Without its key: who redeems a code may have made the key from it.
            self._take_receipt(sequence, user, None, decision, decision.receipt, None)

    def _take_receipt(
        self,
        sequence: int,
        user: str,
        task: str | None,
        decision: Decision | UserDecision,
        receipt: Receipt,
        key: str | None,
    ) -> None:
        self.receipts.append(
            (sequence, decision.at, user, task, key, receipt.status.value, receipt.reason, decision.command_sequence)
        )


def fold(messages: Iterable[Stored], tasks: Mapping[str, Task]) -> Batch:
    """The rows of `messages`, given in stream order; `tasks` has those of `decided_tasks(messages)` that are known."""
    batch = Batch(tasks)
    for stored in messages:
        try:
            batch.take(stored)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # A field that this release does not know is not decoded, and may be no UTF-8: only its payload tells.
            batch.undecodable.append(Undecodable(stored, str(error)))
        batch.sequence = stored.sequence
    return batch


def decided_tasks(messages: Iterable[Stored]) -> set[str]:
    """The tasks whose state the messages change."""
    return {tokens[2] for stored in messages if len(tokens := stored.subject.split(".")) == 5 and tokens[3] == "task"}


def redact(event: AnyUserEvent) -> str:
    """A user's event as JSON, without anything that signs in or opens."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    return encode({name: value for name, value in fields.items() if name in USER_FIELDS_KEPT}).decode()


def _task_columns(task: Task) -> Columns:
    return {
        "state": task.state.value,
        "reason": task.reason,
        "priority": task.priority,
        "question": task.question.text if task.question else None,
        "delayed_until": task.delayed_until,
        "archived_at": task.archived_at,
        "updated_at": task.updated_at,
        "tags": list(task.tags),
        "metadata": task.metadata,
        "turns": task.turn,
        "attempts": task.attempt,
        "messages": task.messages,
        "summary": task.summary,
        **_published_columns(task.published),
        **_usage_columns(task.usage),
        # The prompt, up to 100,000 characters, has its own column and never changes.
        "fold": encode(replace(task, prompt="")).decode(),
    }


def _published_columns(published: Published | None) -> Columns:
    if published is None:
        return {}
    return {
        "branch": published.branch,
        "commit": published.commit,
        "base_commit": published.base_commit,
        "pushed_to": published.pushed_to,
        "files_changed": published.files_changed,
        "insertions": published.insertions,
        "deletions": published.deletions,
        "pull_request": published.pull_request.url if published.pull_request else None,
    }


def _usage_columns(usage: Usage) -> Columns:
    return {name: getattr(usage, name) for name in usage.__struct_fields__}


def _action_columns(action: ModelCall | ToolCall) -> Columns:
    match action:
        case ModelCall():
            return {"kind": "model", "reserved_usd": action.reserved_usd}
        case ToolCall():
            return {"kind": "tool", "tool": action.name, "input": encode(action.input).decode()}
        case _:
            assert_never(action)


def _result_columns(result: ModelReply | ToolResult | StepLost) -> Columns:
    match result:
        case ModelReply():
            return {"outcome": "ok", "stop_reason": result.stop_reason, **_usage_columns(result.usage)}
        case ToolResult(is_error=True):
            return {"outcome": "error", "exit_code": result.exit_code, "error": result.text[:ERROR_LIMIT_CHARS]}
        case ToolResult():
            return {"outcome": "ok", "exit_code": result.exit_code}
        case StepLost():
            return {"outcome": "lost", "error": result.reason[:ERROR_LIMIT_CHARS], **_usage_columns(result.usage)}
        case _:
            assert_never(result)


class _RawEntry(Struct):
    event: Raw


class _RawDecision(Struct):
    events: tuple[Raw, ...] = ()


_decode_raw_entry = msgspec.json.Decoder(_RawEntry).decode
_decode_raw_decision = msgspec.json.Decoder(_RawDecision).decode
