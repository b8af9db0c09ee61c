"""Queries to the history: SQL over everything that happened."""

from __future__ import annotations

from typing import Any

from protocol.base import Message

ROWS_LIMIT = 10_000
"""Rows one query answers at most; fewer when they are large, for an answer is one message."""
SQL_LIMIT_CHARS = 100_000
"""The longest query."""
WAIT_LIMIT_SECONDS = 60.0
"""The longest that an answer waits for the history."""


class AskReached(Message, frozen=True):
    """How far the history has folded the stream: what it has is not lost with the stream's."""

    at_least: int = 0
    """The answer waits until it has reached this, as long as `wait_seconds`."""
    wait_seconds: float = 0.0


class HistoryReached(Message, frozen=True):
    sequence: int
    """Everything up to this is on the history's disk."""


class RunSql(Message, frozen=True):
    """One SELECT over a snapshot that has reached `at_least`. The owner's only."""

    sql: str
    at_least: int = 0
    """The last stream sequence the asker has seen, of an event or of a command; the answer waits until the history
    has reached it."""
    wait_seconds: float = 10.0
    """How long it may wait; then the refusal's code is `unavailable`. The query's own time comes on top."""
    limit: int = 1_000


class SqlAnswer(Message, frozen=True):
    """Rows as JSON: times in ISO 8601 (UTC), decimals and integers of more than 64 bits as text, bytes in base64."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    sequence: int
    """The stream sequence that the snapshot has reached."""
    more: bool = False
    """True when `limit`, or the size of one message, cut the answer."""
    duration_seconds: float = 0.0
