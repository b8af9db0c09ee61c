"""Asks the SQL process: one a question, started for it and ended with it. An idle history holds no memory for
questions, and nothing of one is left for the next."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from protocol.base import MESSAGE_LIMIT_BYTES
from protocol.history import ROWS_LIMIT, SQL_LIMIT_CHARS, RunSql, SqlAnswer
from services.bus import Refused

PROGRAM = Path(__file__).with_name("sql_process.py")
ANSWER_LIMIT_BYTES = MESSAGE_LIMIT_BYTES - 16 * 1024
"""Of rows in one answer: the rest is for columns and the message around them."""
PROCESS_MIB = 512
"""Address space besides a query's memory: Python, DuckDB's code and the threads' stacks take half of it."""


class Limits(Struct, frozen=True, kw_only=True):
    """What one query may use."""

    seconds: float = 10.0
    memory_mib: int = 512


class _Answer(Struct):
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    sequence: int
    more: bool
    refused: str


async def ask_snapshot(snapshot: Path, question: RunSql, limits: Limits) -> SqlAnswer:
    """The answer to `question` from the file `snapshot`. Raises Refused with DuckDB's sentence or the limit it hit."""
    if len(question.sql) > SQL_LIMIT_CHARS:
        raise Refused(f"The query has {len(question.sql)} characters; the limit is {SQL_LIMIT_CHARS}.")
    began = time.monotonic()
    written = await _run_process(_question(snapshot, question, limits), limits)
    answer = msgspec.json.decode(written, type=_Answer)
    if answer.refused:
        raise Refused(answer.refused)
    return SqlAnswer(
        columns=answer.columns,
        rows=answer.rows,
        sequence=answer.sequence,
        more=answer.more,
        duration_seconds=round(time.monotonic() - began, 6),
    )


def _question(snapshot: Path, question: RunSql, limits: Limits) -> bytes:
    return msgspec.json.encode(
        {
            "path": str(snapshot),
            "sql": question.sql,
            "rows": min(max(question.limit, 0), ROWS_LIMIT),
            "answer_bytes": ANSWER_LIMIT_BYTES,
            "memory_mib": limits.memory_mib,
            "address_space_mib": limits.memory_mib + PROCESS_MIB,
            # The kill timer holds first; this one holds when the timer's process is gone.
            "cpu_seconds": 2 * int(limits.seconds) + 2,
        }
    )


async def _run_process(question: bytes, limits: Limits) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",  # neither the environment nor the working folder decides what is imported
        str(PROGRAM),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        # One arena: each more reserves 64 MiB of address space a thread, which is what is limited.
        env={"MALLOC_ARENA_MAX": "1"},
        cwd="/",
    )
    try:
        with anyio.fail_after(limits.seconds):
            written, _ = await process.communicate(question)
    except TimeoutError:
        raise Refused(f"The query was stopped after {limits.seconds:g} s.") from None
    finally:
        if process.returncode is None:
            process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
    if process.returncode != 0:
        raise Refused(f"The query was stopped: it needed more than {limits.memory_mib} MiB of memory or too much time.")
    return written
