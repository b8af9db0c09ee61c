"""The writer's DuckDB file. One thread at a time; only one process can have it open, readers get copies.

Each batch is one transaction with the sequence it reaches, so a restart finds either all of a batch or nothing of it.
Rows go in by the appender: `executemany` is a hundred times slower.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from protocol.evolve import Task
from services.history.fold import Batch, Columns, Key, Row, Rows

CATALOG = "history"
STORAGE_VERSION = "v1.5.0"
"""The newest format that the `duckdb` command line on PyPI (1.5) can open; VARIANT is in it."""
MEMORY_LIMIT = "192MB"
STATES_LIMIT = 5_000
"""Task states kept in memory. When there are more all are dropped: each is in its task's row."""

APPENDED = ("events", "receipts", "refusals")
"""Tables whose rows never change."""
KEYS: Mapping[str, tuple[str, ...]] = {
    "users": ("user_id",),
    "tasks": ("task_id",),
    "turns": ("task_id", "turn"),
    "attempts": ("task_id", "attempt"),
    "steps": ("task_id", "step"),
}
OPEN: Mapping[str, str] = {
    "users": "true",
    "tasks": "true",
    "turns": "turns.ended_at IS NULL",
    "attempts": "attempts.ended_at IS NULL",
    "steps": "steps.finished_at IS NULL",
}
"""Which rows of a table can still change. DuckDB's block statistics then spare an update the millions that cannot."""

_decode_task = msgspec.json.Decoder(Task).decode


class Database:
    """Open from the constructor until `close`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One thread: a batch is small, and each thread has its own buffers.
        self._connection = duckdb.connect(config={"threads": 1, "memory_limit": MEMORY_LIMIT})
        try:
            self._open(path)
        except BaseException:
            self._connection.close()
            raise
        self._path = path
        self._states: dict[str, Task] = {}
        self._columns = {table: self._columns_of(table) for table in (*APPENDED, *KEYS)}
        row = self._connection.execute("SELECT sequence FROM progress").fetchone()
        self.sequence: int = row[0] if row else 0
        """The last message applied and on disk."""

    def _open(self, path: Path) -> None:
        quoted = str(path).replace("'", "''")
        self._connection.execute(f"ATTACH '{quoted}' AS {CATALOG} (STORAGE_VERSION '{STORAGE_VERSION}')")
        self._connection.execute(f"USE {CATALOG}; SET TimeZone = 'UTC'")
        here = resources.files("services.history")
        self._connection.begin()
        self._connection.execute(here.joinpath("schema.sql").read_text())
        self._connection.execute("INSERT INTO progress SELECT 0 WHERE NOT EXISTS (FROM progress)")
        for name, statement in shipped_views():
            self._connection.execute(f"CREATE OR REPLACE VIEW {name} AS {statement}")
            comment = comment_of(statement).replace("'", "''")
            self._connection.execute(f"COMMENT ON VIEW {name} IS '{comment}'")
        self._connection.commit()

    def _columns_of(self, table: str) -> dict[str, str]:
        rows = self._connection.execute(
            "SELECT column_name, data_type FROM duckdb_columns() "
            "WHERE database_name = ? AND table_name = ? ORDER BY column_index",
            [CATALOG, table],
        ).fetchall()
        return dict(rows)

    def close(self) -> None:
        """Everything committed is on disk; may be called twice."""
        self._connection.close()

    # State and rows

    def states(self, tasks: Iterable[str]) -> Mapping[str, Task]:
        """Those of `tasks` that the history knows, as they are now."""
        if len(self._states) > STATES_LIMIT:
            self._states.clear()
        unknown = [task for task in tasks if task not in self._states]
        if unknown:
            found = self._connection.execute(
                "SELECT task_id, fold FROM tasks WHERE task_id IN (SELECT unnest(?::VARCHAR[]))", [unknown]
            ).fetchall()
            self._states.update((task, _decode_task(text)) for task, text in found)
        return self._states

    def last_of(self, task: str) -> int:
        """The sequence of the last event of a task that the history has; 0 when it has none."""
        row = self._connection.execute("SELECT max(sequence) FROM events WHERE task_id = ?", [task]).fetchone()
        return (row[0] if row else None) or 0

    def write(self, batch: Batch) -> None:
        """Add a batch, or nothing of it: raises duckdb.DataError for a value that no column can hold."""
        self._connection.begin()
        try:
            for table in APPENDED:
                self._append(table, getattr(batch, table))
            for table in KEYS:
                self._store(table, getattr(batch, table))
            self._connection.execute("UPDATE progress SET sequence = ?", [batch.sequence])
            self._connection.commit()
        except BaseException:
            self._connection.rollback()
            raise
        self.sequence = batch.sequence
        self._states = batch.states

    def _store(self, table: str, rows: Rows) -> None:
        columns = self._columns[table]
        key = KEYS[table]
        missing = dict.fromkeys(columns)
        begun = rows.begun.items()
        self._append(table, [tuple({**missing, **dict(zip(key, k, strict=True)), **row}.values()) for k, row in begun])
        for changed, values in _by_columns(rows.changed).items():
            self._update(table, changed, values)

    def _append(self, table: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        columns = self._columns[table]
        # JSON text turns into a VARIANT only by a cast: appended as it is it would be a VARIANT that holds one string.
        casts = [f"{name}::JSON::VARIANT AS {name}" for name, kind in columns.items() if kind == "VARIANT"]
        select = f"SELECT * REPLACE ({', '.join(casts)})" if casts else "SELECT *"
        declared = {name: "VARCHAR" if kind == "VARIANT" else kind for name, kind in columns.items()}
        with self._connection.query_appender(f"INSERT INTO {table} {select} FROM appender_data", declared) as appender:
            appender.append_rows(rows)

    def _update(self, table: str, changed: tuple[str, ...], values: Sequence[Row]) -> None:
        key = KEYS[table]
        declared = {name: self._columns[table][name] for name in (*key, *changed)}
        sets = ", ".join(f"{name} = staged.{name}" for name in changed)
        same = " AND ".join(f"{table}.{name} = staged.{name}" for name in key)
        update = f"UPDATE {table} SET {sets} FROM appender_data AS staged WHERE {same} AND {OPEN[table]}"
        with self._connection.query_appender(update, declared) as appender:
            appender.append_rows(values)

    # Copies

    def copy_to(self, path: Path) -> int:
        """Put a copy of this moment at `path`, at once and whole; return the sequence that it has reached."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._connection.execute(f"CHECKPOINT {CATALOG}")
        # With its log folded in, and no one else to write, the file alone is the whole database.
        unfinished = path.with_suffix(".new")
        shutil.copyfile(self._path, unfinished)
        unfinished.chmod(0o400)
        unfinished.replace(path)
        return self.sequence


def _by_columns(rows: Mapping[Key, Columns]) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """Changes of the same columns together: one statement each."""
    groups: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    for key, columns in rows.items():
        groups.setdefault(tuple(columns), []).append((*key, *columns.values()))
    return groups


def shipped_views() -> list[tuple[str, str]]:
    """The analytics views: name and statement, comment first."""
    folder = resources.files("services.history").joinpath("views")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [(file.name.removesuffix(".sql"), file.read_text()) for file in files]


def comment_of(statement: str) -> str:
    """The lines of comment that a view begins with."""
    lines = []
    for line in statement.splitlines():
        if not line.startswith("--"):
            break
        lines.append(line.removeprefix("--").strip())
    return " ".join(lines)
