"""Queries to the history: SQL over everything that happened."""

from __future__ import annotations

from typing import Any

from protocol.base import Message

ROWS_LIMIT = 10_000
"""Rows one query answers at most."""


class RunSql(Message, frozen=True):
    """One SELECT over a snapshot that has reached `at_least`. The owner's only."""

    sql: str
    at_least: int = 0
    """The last stream sequence the asker has seen; the answer waits for it."""
    wait_seconds: float = 10.0
    limit: int = 1_000


class SqlAnswer(Message, frozen=True):
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    sequence: int
    """The stream sequence that the snapshot has reached."""
    more: bool = False
    """True when `limit` cut the answer."""
    duration_seconds: float = 0.0
