"""What the model is told of the task that its own was forked from. Pure.

It is told, not shown: the other conversation's messages would be calls and thoughts that this model never made.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.contract import UserMessage
from protocol.evolve import Task
from protocol.journal import JournalEntry, StepStarted, ToolCall

SAID_LIMIT_CHARS = 8_000
SUMMARY_LIMIT_CHARS = 4_000
CALLS_LIMIT = 40
CALL_LIMIT_CHARS = 160


def story(task: Task, messages: Sequence[UserMessage], entries: Sequence[JournalEntry]) -> str:
    """A few paragraphs, of at most some 20,000 characters."""
    said = "\n---\n".join(message.text for message in messages)
    calls = [_line(e.event.action) for e in entries if isinstance(e.event, StepStarted) and _is_call(e.event)]
    parts = [
        f'This task was forked from another one of the user\'s, "{task.title}" ({task.id}); that one is '
        f"{task.state.value} now. Another agent did that one, not you. The workspace is as it left it: look before you "
        "rely on it.",
        f"What the user said there:\n{_cut(said, SAID_LIMIT_CHARS)}",
    ]
    if calls:
        left_out = f"(the last {CALLS_LIMIT} of {len(calls)})\n" if len(calls) > CALLS_LIMIT else ""
        parts.append(f"What was done there:\n{left_out}" + "\n".join(calls[-CALLS_LIMIT:]))
    if task.summary or task.reason:
        parts.append(f"How it ended:\n{_cut(task.summary or task.reason, SUMMARY_LIMIT_CHARS)}")
    # None of it can end the notice in which it stands.
    return "\n\n".join(parts).replace("errand-notice>", "errand-notice >")


def _is_call(event: StepStarted) -> bool:
    return isinstance(event.action, ToolCall)


def _line(action: object) -> str:
    assert isinstance(action, ToolCall)
    given = " ".join(str(action.input.get(name, "")) for name in ("command", "path", "pattern")).split()
    return f"- {action.name}: {' '.join(given)}"[:CALL_LIMIT_CHARS]


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + " …"
