"""The history's shell: follows the stream, writes the database in a thread of its own, answers from copies of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, TypeVar, TypeVarTuple

import anyio
import duckdb
from msgspec import Meta, Struct

from protocol.history import WAIT_LIMIT_SECONDS, AskReached, HistoryReached, RunSql, SqlAnswer
from protocol.query import AskHealth, Health
from protocol.routes import Service, Stream
from services import log
from services.actor import healthy
from services.archive import Gone, with_archived
from services.background import background
from services.bus import Bus, Reader, Refused, Stored, Unavailable
from services.config import LogLevel, Seconds
from services.history import code
from services.history.database import Database
from services.history.fold import Batch, decided_tasks, fold
from services.history.snapshots import Snapshots
from services.history.sql import Limits, ask_snapshot

VERSION = "0.1.0"
PACE_SECONDS = 0.2
"""Between the starts of two batches: a commit costs ten milliseconds of work however small it is."""
BATCH_LIMIT_MESSAGES = 16_000
BATCH_LIMIT_BYTES = 16 * 1024 * 1024
"""Of messages in one transaction."""
REST_AFTER_SECONDS = 1.0
"""Without a message, the memory that only work needs is given back."""
RETRY_SECONDS = 1.0
"""After a failure of the disk or of NATS, before the database is opened again."""
QUERIES_AT_ONCE = 2
"""SQL processes side by side; more of them wait their turn."""

ARCHIVES = b'"task_archived"'
"""In the decision that puts a task away; seldom in another message."""
UNWRITABLE = (duckdb.DataError, duckdb.InvalidInputException)
"""What DuckDB says of a value that a column cannot hold."""

Args = TypeVarTuple("Args")
T = TypeVar("T")


class Config(Struct, frozen=True, kw_only=True):
    """The history's settings, besides those of the bus."""

    data: str = "data"
    """Errand's data folder; the history is in `history/` under it."""
    sql_seconds: Seconds = 10.0
    """How long one SQL query may take."""
    sql_memory_mib: Annotated[int, Meta(ge=16, le=16_777_215)] = 512
    """How much memory one SQL query may use."""
    log_level: LogLevel = "info"


class History:
    """The service as an `Actor`."""

    def __init__(self, bus: Bus, config: Config) -> None:
        folder = Path(config.data).absolute() / "history"
        self._bus = bus
        self._path = folder / "history.duckdb"
        self._limits = Limits(seconds=config.sql_seconds, memory_mib=config.sql_memory_mib)
        self._snapshots = Snapshots(folder / "snapshot" / "history.duckdb", self._copy)
        self._query_slots = anyio.CapacityLimiter(QUERIES_AT_ONCE)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="duckdb")
        self._database: Database | None = None
        self._sequence = 0
        self._moved = anyio.Event()
        self._failure = "The history is still starting."
        self._running = False
        self._working = anyio.CancelScope()
        self._stopped = anyio.Event()
        self._log = log.get()

    async def run(self, started: Callable[[], None]) -> None:
        self._running = True
        try:
            with self._working:
                await self._bus.wait_for_streams()
                handlers = {RunSql: self.run_sql, AskReached: self._ask_reached, AskHealth: self._ask_health}
                await self._bus.serve(handlers, version=VERSION)
                started()
                await self._follow_for_ever()
        finally:
            with anyio.CancelScope(shield=True):
                await self._close()
            self._thread.shutdown(wait=False)
            self._stopped.set()
        await anyio.sleep_forever()  # drained; whoever did that ends us

    async def drain(self, *, for_good: bool = False) -> None:
        self._working.cancel()
        if self._running:
            await self._stopped.wait()

    def health(self) -> Health:
        if self._failure:
            return Health(healthy=False, service=Service.HISTORY.value, detail=self._failure)
        return healthy(Service.HISTORY, self._bus, detail=f"folded up to {self._sequence}")

    async def _ask_health(self, _: AskHealth) -> Health:
        return self.health()

    # The writer

    async def _follow_for_ever(self) -> None:
        """Fold what comes. After a failure everything begins again from what is on disk."""
        while True:
            try:
                await self._open()
                await self._follow()
            except (duckdb.Error, OSError, Unavailable) as error:
                self._failure = f"The history cannot be written: {error}"
                self._log.error("history_failed", error=str(error))
                await self._close()
                await anyio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        # Everything, not only `evt.>`: on a stream of many subjects the server filters four times slower than it sends.
        async with self._bus.read(after=self._sequence) as reader, background() as group:
            group.start_soon(self._note_when_caught_up, reader)
            group.start_soon(self._rest_when_quiet)
            async for messages in reader.batches():
                began = anyio.current_time()
                for portion in portions(messages):
                    await self._apply(portion)
                await anyio.sleep(max(0.0, began + PACE_SECONDS - anyio.current_time()))

    async def _note_when_caught_up(self, reader: Reader) -> None:
        await reader.caught_up.wait()
        self._move_to(self._sequence)
        self._log.info("caught_up", sequence=self._sequence)

    async def _rest_when_quiet(self) -> None:
        """Each time that nothing has come for a while."""
        while True:
            await self._moved.wait()
            quiet = False
            while not quiet:
                with anyio.move_on_after(REST_AFTER_SECONDS) as patience:
                    await self._moved.wait()
                quiet = patience.cancelled_caught
            await self._in_thread(code.let_go)

    async def _apply(self, messages: Sequence[Stored]) -> None:
        """Fold and write messages in one transaction. What cannot be decoded is buried before the history goes past."""
        messages = await self._with_archived(messages)
        try:
            batch = await self._in_thread(_fold, self._opened(), messages)
            for one in batch.undecodable:
                await self._bury(one.stored, one.reason)
            await self._write(batch)
        except UNWRITABLE as error:
            await self._apply_around(messages, str(error))

    async def _with_archived(self, messages: Sequence[Stored]) -> Sequence[Stored]:
        """`messages`, each that puts a task away preceded by what the history does not have of it: a history that is
        built anew, or from a backup, finds no more in the stream."""
        if not any(ARCHIVES in stored.data for stored in messages):
            return messages
        found: list[Stored] = []
        for stored in messages:
            _, user, task, *_ = (*stored.subject.split("."), "", "")
            log = f"evt.{user}.{task}."
            if ARCHIVES not in stored.data or not stored.subject.startswith(log):
                found.append(stored)
                continue
            here = max((each.sequence for each in found if each.subject.startswith(log)), default=0)
            after = max(here, await self._in_thread(self._opened().last_of, task))
            try:
                found += await with_archived(self._bus, f"{log}>", [stored], after)
            except Gone as gone:
                self._log.error("archive_gone", task=task, reason=gone.reason)
                found.append(stored)
        return found

    async def _apply_around(self, messages: Sequence[Stored], reason: str) -> None:
        """One of the messages has a value that no column can hold: find it by halves, bury it, and write the others."""
        if len(messages) == 1:
            await self._bury(messages[0], reason)
            await self._write(Batch({}, sequence=messages[0].sequence))
            return
        middle = len(messages) // 2
        await self._apply(messages[:middle])
        await self._apply(messages[middle:])

    async def _write(self, batch: Batch) -> None:
        await self._in_thread(self._opened().write, batch)
        self._move_to(batch.sequence)

    def _move_to(self, sequence: int) -> None:
        """Work has moved: what failed before is over, and who waits looks again."""
        self._sequence = sequence
        self._failure = ""
        self._moved.set()
        self._moved = anyio.Event()

    async def _bury(self, stored: Stored, reason: str) -> None:
        try:
            await self._bus.bury(Stream.TASKS, stored, reason)
        except Refused as error:  # too large even for the graveyard; the stream still has it
            self._log.error("not_buried", subject=stored.subject, sequence=stored.sequence, reason=error.reason)

    # Questions

    async def run_sql(self, question: RunSql) -> SqlAnswer:
        """Answer from a copy that has what the asker has seen; refuse as `unavailable` when that takes too long."""
        await self._reach(question)
        async with self._query_slots:
            await self._snapshots.reach(question.at_least, self._sequence)
            return await ask_snapshot(self._snapshots.path, question, self._limits)

    async def _ask_reached(self, question: AskReached) -> HistoryReached:
        await self._reach(question)
        return HistoryReached(sequence=self._sequence)

    async def _reach(self, question: RunSql | AskReached) -> None:
        wanted = question.at_least
        with anyio.move_on_after(min(question.wait_seconds, WAIT_LIMIT_SECONDS)):
            while self._failure or self._sequence < wanted:
                await self._moved.wait()
        if self._failure or self._sequence < wanted:
            reason = self._failure or f"The history has reached {self._sequence} and not yet {wanted}: ask again."
            raise Refused(reason, "unavailable")

    async def _copy(self, path: Path) -> int:
        try:
            return await self._in_thread(self._opened().copy_to, path)
        except (duckdb.Error, OSError) as error:
            raise Refused(f"The history cannot be copied: {error}", "unavailable") from error

    # The database and its thread

    def _opened(self) -> Database:
        if self._database is None:
            raise Refused(self._failure or "The history is stopping.", "unavailable")
        return self._database

    async def _open(self) -> None:
        self._database = await self._in_thread(Database, self._path)
        self._sequence = self._database.sequence

    async def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            await self._in_thread(database.close)

    async def _in_thread(self, function: Callable[[*Args], T], *args: *Args) -> T:
        """DuckDB's work, one piece after the other, while the event loop keeps answering."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)


def _fold(database: Database, messages: Sequence[Stored]) -> Batch:
    return fold(messages, database.states(decided_tasks(messages)))


def portions(messages: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    """The messages, cut into what goes into one transaction each."""
    first, size = 0, 0
    for index, stored in enumerate(messages):
        size += len(stored.data)
        if index - first == BATCH_LIMIT_MESSAGES or size > BATCH_LIMIT_BYTES:
            yield messages[first:index]
            first, size = index, len(stored.data)
    yield messages[first:]
