"""One SELECT over a snapshot, in a process of its own that holds nothing worth stealing and dies of its limits.

Run by path (`python -I sql_process.py`), with no environment of ours. Reads a question from stdin, writes an answer to
stdout, both JSON; `services/history/sql.py` is the other side, and kills it when its time is up.

What protects the rest is layered: the file is opened read-only, DuckDB may reach no other file and no network, its
configuration is locked, the process has hard limits and can write no file at all. DuckDB's own memory_limit gives the
readable error; the limit on address space is the one that holds.
"""

from __future__ import annotations

import resource
import sys
from typing import Any

import duckdb
import msgspec

MEBIBYTE = 1024 * 1024


class Question(msgspec.Struct):
    path: str
    sql: str
    rows: int
    answer_bytes: int
    memory_mib: int
    address_space_mib: int
    cpu_seconds: int


class Answer(msgspec.Struct):
    columns: list[str] = []
    rows: list[Any] = []
    sequence: int = 0
    more: bool = False
    refused: str = ""


class RefusedSql(Exception):
    """The reason is for whoever wrote the SQL."""


def main() -> None:
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    limit_process(question)
    try:
        answer = run(question)
    except (RefusedSql, duckdb.Error) as error:
        # DuckDB goes on with advice to change settings that are locked here.
        answer = Answer(refused=str(error).partition("\n\nPossible solutions:")[0])
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def limit_process(question: Question) -> None:
    """From here on this process can only compute."""
    address_space = question.address_space_mib * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    resource.setrlimit(resource.RLIMIT_CPU, (question.cpu_seconds, question.cpu_seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))


def run(question: Question) -> Answer:
    with open_snapshot(question) as connection:
        [(sequence,)] = connection.execute("SELECT sequence FROM progress").fetchall()
        statements = connection.extract_statements(question.sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise RefusedSql("Only one SELECT is answered here.")
        result = connection.execute(statements[0])
        columns = [column[0] for column in result.description or ()]
        rows, more = take_rows(result, question)
        return Answer(columns=columns, rows=rows, sequence=sequence, more=more)


def open_snapshot(question: Question) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(question.path, read_only=True)
    # In this order: each of the last two forbids changes to some of those before it.
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET threads = 2")
    connection.execute(f"SET memory_limit = '{question.memory_mib}MiB'")
    connection.execute("SET temp_directory = ''")
    connection.execute("SET python_enable_replacements = false")  # else `FROM name` finds Python's own variables
    connection.execute("SET autoload_known_extensions = false")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def take_rows(result: duckdb.DuckDBPyConnection, question: Question) -> tuple[list[msgspec.Raw], bool]:
    """Rows as JSON, until there are as many, or as many bytes, as may be answered; and whether there are more."""
    rows: list[msgspec.Raw] = []
    left = question.answer_bytes
    while (row := result.fetchone()) is not None:
        encoded = msgspec.json.encode([json_value(value) for value in row])
        left -= len(encoded) + 1
        if left < 0 and not rows:
            raise RefusedSql(f"One row has {len(encoded)} bytes, and an answer can have {question.answer_bytes}.")
        if left < 0 or len(rows) == question.rows:
            return rows, True
        rows.append(msgspec.Raw(encoded))
    return rows, False


def json_value(value: Any) -> Any:
    """A form that JSON can hold. msgspec itself knows times (ISO 8601), decimals (as text) and bytes (as base64)."""
    match value:
        case int() if abs(value) >= 2**63:
            return str(value)
        case list() | tuple() | set():
            return [json_value(item) for item in value]
        case dict():
            return {str(key): json_value(item) for key, item in value.items()}
        case float() if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        case _:
            return value


if __name__ == "__main__":
    main()
