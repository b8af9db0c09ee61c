"""The bus without NATS: one server in memory, and a connection a process through which the weather blows.

What it promises is what the real one promises, by `tests/contract/test_bus.py`; what it may do to a caller is more than
a real one does in a year: answers get lost after the effect, requests before it, connections are cut, the server
restarts and forgets its leases, hints get lost, schedules fire late and twice.
"""

from __future__ import annotations

import asyncio
import heapq
import io
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import anyio
import anyio.abc
import msgspec
from msgspec import Struct

from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.query import Refusal
from protocol.routes import Service, Stream
from services.bus import (
    BLOBS,
    LEASE_SECONDS,
    LEASES,
    REPLIES,
    TIMEOUT_SECONDS,
    Conflict,
    NoAnswer,
    Refused,
    Stored,
    Unavailable,
    writer,
)
from services.bus.bus import PUBLISH_TRIES
from services.bus.headers import EXPECTED, EXPECTED_LOG, MESSAGE_ID, WRONG_LAST_SEQUENCE
from services.bus.writer import Fault, Writer
from services.clock import Clock

DUPLICATE_WINDOW_SECONDS = 120.0
TIMER_SECONDS = 0.13
SINGLES = 2
"""So few writes on their way make the next ones wait and travel as a batch: storms are of a few tasks."""
T = TypeVar("T")
Answer = Callable[[Any], Awaitable[Any]]


def matches(pattern: str, subject: str) -> bool:
    """As NATS compares a subject with a wildcard."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for index, token in enumerate(wanted):
        if token == ">":
            return len(tokens) > index
        if index == len(tokens) or token not in ("*", tokens[index]):
            return False
    return len(wanted) == len(tokens)


class Lease(NamedTuple):
    data: bytes
    revision: int
    until: float


class Timer(NamedTuple):
    due: datetime
    subject: str
    target: str
    data: bytes


class Written(NamedTuple):
    subject: str
    data: bytes
    key: str
    log: str
    expected: int


class Server:
    """What the streams hold. Every method is one step: nothing comes between."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.messages: list[Stored] = []
        self.sequence = 0
        self.timers: dict[str, Timer] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.told: dict[str, list[Stored]] = {}
        """Every decision over each user, also those that are gone from the stream."""
        self.buried: list[tuple[Stored, str]] = []
        self.handlers: dict[Service, list[tuple[MemoryBus, Mapping[type, Answer]]]] = {}
        self.connections: list[MemoryBus] = []
        self.stored = anyio.Event()
        self._logs: dict[str, list[Stored]] = {}
        self._leases: dict[str, Lease] | None = {}
        self._lease_revision = 0
        self._seen: dict[str, tuple[float, int]] = {}

    def store(self, subject: str, data: bytes, *, key: str = "", log: str = "", expected: int = 0) -> int:
        """Raises Conflict when the last message on `log` has another sequence than `expected`."""
        if len(data) > MESSAGE_LIMIT_BYTES:
            raise Refused(f"A message of {len(data)} bytes is over the limit of {MESSAGE_LIMIT_BYTES}.")
        if log and self.last(log) != expected:
            raise Conflict(subject)
        at, sequence = self._seen.get(key, (-DUPLICATE_WINDOW_SECONDS, 0))
        if key and self.clock.monotonic() - at < DUPLICATE_WINDOW_SECONDS:
            return sequence
        self.sequence += 1
        if key:
            self._seen[key] = self.clock.monotonic(), self.sequence
        stored = Stored(subject, self.sequence, data, self.clock.now(), expected)
        self.messages.append(stored)
        self._logs.setdefault(_log_of(subject), []).append(stored)
        self.stored.set()
        self.stored = anyio.Event()
        if matches("evt.*.user.*", subject):
            self.told.setdefault(subject.split(".")[1], []).append(stored)
        if subject.startswith("evt."):
            self._tell("live." + subject.removeprefix("evt."), stored)
        return self.sequence

    def write(self, writes: list[Written]) -> writer.Answer:
        """One write, or a batch: all of it or nothing."""
        refused = [each.subject for each in writes if self._refuses(each, alone=len(writes) == 1)]
        if refused:
            return writer.Answer(error=Fault(refused[0], WRONG_LAST_SEQUENCE))
        sequences = [self.store(w.subject, w.data, key=w.key, log=w.log, expected=w.expected) for w in writes]
        return writer.Answer(seq=sequences[-1])

    def _refuses(self, write: Written, *, alone: bool) -> bool:
        # A message id that was seen is answered with its sequence, but not in a batch.
        seen_at, _ = self._seen.get(write.key, (-DUPLICATE_WINDOW_SECONDS, 0))
        again = bool(write.key) and self.clock.monotonic() - seen_at < DUPLICATE_WINDOW_SECONDS
        return (again and not alone) or bool(write.log and self.last(write.log) != write.expected)

    def find(self, subject: str, after: int = 0) -> list[Stored]:
        log = self._logs.get(_log_of(subject))
        candidates = self.messages if log is None and "*" in _log_of(subject) + subject else log or ()
        return [each for each in candidates if each.sequence > after and matches(subject, each.subject)]

    def after(self, sequence: int) -> list[Stored]:
        return self.messages[bisect_right(self.messages, sequence, key=lambda stored: stored.sequence) :]

    def last(self, subject: str) -> int:
        found = self.find(subject)
        return found[-1].sequence if found else 0

    def purge(self, subject: str, below: int) -> None:
        for armed in [armed for armed in self.timers if matches(subject, armed)]:
            del self.timers[armed]
        for messages in (self.messages, *self._logs.values()):
            messages[:] = [m for m in messages if not matches(subject, m.subject) or 0 < below <= m.sequence]

    def arm(self, timer: Timer) -> int:
        """A schedule is a message of the stream until it fires; the same subject again takes its place."""
        self.purge(timer.subject, 0)
        sequence = self.store(timer.subject, timer.data)
        self.timers[timer.subject] = timer
        return sequence

    def fire(self, timer: Timer) -> None:
        """A schedule is due. One that was replaced or purged meanwhile does nothing."""
        if self.timers.get(timer.subject) is timer:
            self.purge(timer.subject, 0)
            self.store(timer.target, timer.data)

    # Leases, which a restart forgets

    def make_streams(self) -> None:
        self._leases = {} if self._leases is None else self._leases

    def forget_leases(self) -> None:
        self._leases = None

    def lease(self, name: str) -> Lease | None:
        found = self._kept.get(name)
        return found if found and found.until > self.clock.monotonic() else None

    def take_lease(self, name: str, data: bytes, revision: int | None) -> int:
        held = self.lease(name)
        if revision is not None and (held.revision if held else 0) != revision:
            raise Conflict(name)
        self._lease_revision += 1
        self._kept[name] = Lease(data, self._lease_revision, self.clock.monotonic() + LEASE_SECONDS)
        self._tell(f"$KV.{LEASES}.{name}", Stored(f"$KV.{LEASES}.{name}", self._lease_revision, data, self.clock.now()))
        return self._lease_revision

    def drop_lease(self, name: str) -> None:
        self._kept.pop(name, None)

    @property
    def _kept(self) -> dict[str, Lease]:
        if self._leases is None:
            raise Unavailable("no stream has this subject")
        return self._leases

    def _tell(self, subject: str, stored: Stored) -> None:
        for connection in self.connections:
            connection.hear(subject, stored)


def _log_of(subject: str) -> str:
    """All messages of one task or user lie together: the tests look them up by millions."""
    return ".".join(subject.split(".")[:3])


class Weather:
    """What can happen on the way, drawn from a seed. `calm` ends it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.calm = False

    def delay(self) -> float:
        """Seconds one way: a millisecond mostly, now and then a tenth of a second."""
        if self.calm:
            return 0.001
        return self.chance.expovariate(1000) if self.chance.random() < 0.97 else self.chance.uniform(0, 0.2)

    def loses(self) -> bool:
        return not self.calm and self.chance.random() < 0.03


class Link:
    """One process's way to the server: it can be cut, and the process itself frozen or dead."""

    def __init__(self) -> None:
        self.dead = False
        self._thawed = anyio.Event()
        self._thawed.set()
        self._joined = anyio.Event()
        self._joined.set()

    @property
    def is_cut(self) -> bool:
        return not self._joined.is_set()

    async def thawed(self) -> None:
        while not self._thawed.is_set():
            await self._thawed.wait()

    async def joined(self) -> None:
        while self.is_cut:
            await self._joined.wait()

    def freeze(self) -> None:
        self._thawed = anyio.Event()

    def thaw(self) -> None:
        self._thawed.set()

    def cut(self) -> None:
        self._joined = anyio.Event()

    def join(self) -> None:
        self._joined.set()


class MemoryBus:
    """A connection, with the methods of `services.bus.Bus` that services use. Made by `connect`."""

    def __init__(
        self, server: Server, service: Service, weather: Weather, link: Link, tasks: anyio.abc.TaskGroup
    ) -> None:
        self.link = link
        self._server = server
        self._service = service
        self._weather = weather
        self._tasks = tasks
        self._taps: list[tuple[str, Callable[[Stored], Awaitable[None]]]] = []
        self._heard: asyncio.Queue[tuple[str, Stored]] = asyncio.Queue()
        self._on_interruption: list[Callable[[], None]] = []
        self._under_way: dict[bytes, list[asyncio.Future[bytes]]] = {}
        self._joined: set[type] = set()
        self._sent: list[Written] = []
        """The parts of a batch, until its last one."""
        self._writer = Writer(self._send, singles=SINGLES, timeout_seconds=TIMEOUT_SECONDS)

    @property
    def connected(self) -> bool:
        return not self.link.is_cut

    def stalled(self) -> list[str]:
        return []

    def on_interruption(self, call: Callable[[], None]) -> None:
        self._on_interruption.append(call)

    def rejoin(self) -> None:
        """The connection is back."""
        self.link.join()
        for call in self._on_interruption:
            call()

    # Publish and commit

    async def publish(self, subject: str, message: Struct, *, key: str = "") -> int:
        data = encode(message)
        for _ in range(PUBLISH_TRIES - 1 if key else 0):
            with suppress(Unavailable):
                return await self._store(subject, data, {MESSAGE_ID: key})
        return await self._store(subject, data, {MESSAGE_ID: key} if key else {})

    async def commit(self, subject: str, message: Struct, *, log: str, expected: int) -> int:
        return await self._store(subject, encode(message), {EXPECTED: str(expected), EXPECTED_LOG: log})

    async def _store(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        if len(data) > MESSAGE_LIMIT_BYTES:
            raise Refused(f"A message of {len(data)} bytes is over the limit of {MESSAGE_LIMIT_BYTES}.")
        try:
            answer = await self._writer.store(subject, data, headers)
        except TimeoutError:
            raise Unavailable("no answer came") from None
        if answer.error is not None:
            raise Conflict(subject)
        return answer.seq

    async def _send(self, subject: str, data: bytes, headers: dict[str, str], token: str) -> None:
        expected = int(headers.get(EXPECTED, 0))
        written = Written(subject, data, headers.get(MESSAGE_ID, ""), headers.get(EXPECTED_LOG, ""), expected)
        self._sent.append(written)
        if token:
            writes, self._sent = self._sent, []
            self._tasks.start_soon(self._write, writes, token)

    async def _write(self, writes: list[Written], token: str) -> None:
        with suppress(Unavailable):  # nobody is told: the writer waits no longer than this
            self._writer.answer(token, await self._ask_server(lambda: self._server.write(writes)))

    async def schedule(self, subject: str, message: Struct, *, at: datetime, target: str) -> int:
        timer = Timer(at, subject, target, encode(message))
        return await self._ask_server(lambda: self._server.arm(timer))

    async def purge(self, stream: Stream, subject: str, *, below: int = 0) -> None:
        await self._ask_server(lambda: self._server.purge(subject, below))

    async def preview(self, subject: str, message: Struct) -> None:
        pass

    async def bury(self, stream: str, stored: Stored, reason: str) -> None:
        await self._ask_server(lambda: self._server.buried.append((stored, reason)))

    # Read

    async def last(self, subject: str, stream: Stream = Stream.TASKS) -> int:
        return await self._ask_server(lambda: self._server.last(subject))

    async def replay(
        self, subject: str, *, after: int = 0, limit: int = 0, stream: Stream = Stream.TASKS
    ) -> list[Stored]:
        found = await self._ask_server(lambda: self._server.find(subject, after))
        return found[:limit] if limit else found

    @asynccontextmanager
    async def read(self, *filters: str, after: int, stream: Stream = Stream.TASKS) -> AsyncIterator[MemoryReader]:
        yield MemoryReader(self, self._server, self._weather, filters, after)

    async def tap(self, subject: str, handle: Callable[[Stored], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        return await self._subscribe("live." + subject.removeprefix("evt."), handle)

    async def listen(
        self, subject: str, handle: Callable[[str, bytes], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        async def take(stored: Stored) -> None:
            await handle(stored.subject, stored.data)

        return await self._subscribe(subject, take)

    async def attend(
        self, subject: str, answer: Callable[[], Awaitable[Struct | None]]
    ) -> Callable[[], Awaitable[None]]:
        """Nobody asks here."""

        async def leave() -> None:
            pass

        return leave

    async def _subscribe(
        self, pattern: str, handle: Callable[[Stored], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        place = pattern, handle
        await self._ask_server(lambda: self._taps.append(place))

        async def end() -> None:
            self._taps.remove(place)

        return end

    def hear(self, subject: str, stored: Stored) -> None:
        """What the server sends without being asked: in order, and not at all while the connection is cut."""
        if not self.link.is_cut and any(matches(pattern, subject) for pattern, _ in self._taps):
            self._heard.put_nowait((subject, stored))

    async def keep_writing(self) -> None:
        await self._writer.run()

    async def keep_hearing(self) -> None:
        while True:
            subject, stored = await self._heard.get()
            await self._pause()
            for pattern, handle in list(self._taps):
                if matches(pattern, subject):
                    await handle(stored)

    # Ask and serve

    async def ask(
        self,
        service: Service,
        question: Struct,
        reply: type[T],
        *,
        timeout_seconds: float = 10.0,
        again_seconds: float = 0.0,
    ) -> T:
        until = anyio.current_time() + timeout_seconds
        while True:
            try:
                answer = await self.ask_any(service, question, timeout_seconds=again_seconds or timeout_seconds)
                break
            except NoAnswer:
                if not again_seconds or anyio.current_time() > until:
                    raise
        assert isinstance(answer, reply)
        return answer

    async def ask_any(self, service: Service, question: Struct, *, timeout_seconds: float = 10.0) -> Any:
        data = encode(question)
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        lost = self._weather.loses()

        def send() -> None:
            serving = [
                (bus, handlers)
                for bus, handlers in self._server.handlers.get(service, [])
                if type(question) in handlers and not bus.link.is_cut
            ]
            if not serving:
                raise Unavailable(f"No {service} is running.")
            bus, handlers = self._weather.chance.choice(serving)
            bus.take_question(msgspec.json.decode(data, type=type(question)), handlers[type(question)], answered)

        await self._ask_server(send)
        await asyncio.wait((answered,), timeout=timeout_seconds)
        if not answered.done() or lost or self.link.is_cut:
            raise NoAnswer(f"{service} did not answer within {timeout_seconds:g} s.")
        await self._pause()
        answer = msgspec.json.decode(answered.result(), type=_any_of(*REPLIES[type(question)], Refusal))
        if isinstance(answer, Refusal):
            raise Refused(answer.reason, answer.code)
        return answer

    def take_question(self, question: Any, handler: Answer, answered: asyncio.Future[bytes]) -> None:
        """Answer a question; an equal one that is under way, and joined, is answered with it."""
        data = encode(question)
        if data in self._under_way:
            self._under_way[data].append(answered)
            return
        askers = [answered]
        if type(question) in self._joined:
            self._under_way[data] = askers
        self._tasks.start_soon(self._answer, question, handler, askers)

    async def _answer(self, question: Any, handler: Answer, askers: list[asyncio.Future[bytes]]) -> None:
        await self._pause()
        try:
            reply = encode(await handler(question))
        except Refused as error:
            reply = encode(Refusal(reason=error.reason, code=error.code))
        except Unavailable as error:
            reply = encode(Refusal(reason=str(error), code="unavailable"))
        self._under_way.pop(encode(question), None)
        await self._pause()
        for answered in askers:
            if not answered.done() and not self.link.is_cut:
                answered.set_result(reply)

    async def serve(
        self, handlers: Mapping[type, Answer], *, version: str, at_once: int = 64, joined: Collection[type] = ()
    ) -> _Served:
        self._joined.update(joined)
        place = self, handlers
        serving = self._server.handlers.setdefault(self._service, [])
        serving.append(place)
        return _Served(lambda: serving.remove(place) if place in serving else None)

    # Blobs, leases, streams

    async def put_blob(self, name: str, data: bytes | io.BytesIO, bucket: str = BLOBS) -> None:
        whole = data if isinstance(data, bytes) else data.getvalue()
        await self._ask_server(lambda: self._server.blobs.__setitem__((bucket, name), whole))

    async def get_blob(self, name: str, bucket: str = BLOBS) -> bytes:
        return await self._ask_server(lambda: self._server.blobs[bucket, name])

    async def delete_blob(self, name: str, bucket: str = BLOBS) -> None:
        await self._ask_server(lambda: self._server.blobs.pop((bucket, name), None))

    async def drop_leftovers(self, bucket: str, *, before: datetime) -> int:
        """A blob here is there or is not."""
        return await self._ask_server(lambda: 0)

    async def blob_names(self, bucket: str = BLOBS) -> list[str]:
        return await self._ask_server(lambda: [name for kept, name in self._server.blobs if kept == bucket])

    async def take_lease(self, name: str, holder: Struct, revision: int = 0) -> int:
        return await self._ask_server(lambda: self._server.take_lease(name, encode(holder), revision))

    async def lease_holder(self, name: str) -> bytes:
        held = await self._ask_server(lambda: self._server.lease(name))
        return held.data if held else b""

    async def renew_hint(self, name: str, holder: Struct) -> None:
        await self._ask_server(lambda: self._server.take_lease(name, encode(holder), None))

    async def drop_lease(self, name: str) -> None:
        await self._ask_server(lambda: self._server.drop_lease(name))

    async def make_streams(self) -> None:
        await self._ask_server(self._server.make_streams)

    async def wait_for_streams(self) -> None:
        pass

    # The way there and back

    async def _ask_server(self, act: Callable[[], T]) -> T:
        """Have `act` done at the server, if the request gets there, and return its result, if that gets here."""
        await self._pause()
        if self.link.is_cut or self._weather.loses():
            await self._no_answer()
        result = act()
        await self._pause()
        if self.link.is_cut or self._weather.loses():
            await self._no_answer()
        return result

    async def _no_answer(self) -> None:
        await anyio.sleep(TIMEOUT_SECONDS)
        raise Unavailable("no answer came")

    async def _pause(self) -> None:
        if self.link.dead:
            raise Unavailable("this process is dead")  # only what cleans up after a kill gets here
        await anyio.sleep(self._weather.delay())
        await self.link.thawed()


class _Served:
    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    async def stop(self) -> None:
        self._end()


def _any_of(*types: type) -> Any:
    union: Any = types[0]
    for each in types[1:]:
        union = union | each
    return union


class MemoryReader:
    """Ordered, whole, and as late as the weather has it."""

    def __init__(self, bus: MemoryBus, server: Server, weather: Weather, filters: tuple[str, ...], after: int) -> None:
        self.position = after
        self.caught_up = anyio.Event()
        self._bus = bus
        self._server = server
        self._weather = weather
        self._filters = filters
        self._seen = 0
        """Everything up to here was looked at."""

    async def batches(self) -> AsyncIterator[list[Stored]]:
        while True:
            await anyio.sleep(self._weather.delay())
            await self._bus.link.joined()
            await self._bus.link.thawed()
            waiting = self._server.stored
            new = [m for m in self._server.after(max(self.position, self._seen)) if self._wanted(m.subject)]
            batch = new if self._weather.calm else new[: self._weather.chance.randint(1, 50)]
            if batch:
                self.position = batch[-1].sequence
                yield batch
                continue
            self._seen = self._server.sequence
            self.caught_up.set()
            await waiting.wait()

    def _wanted(self, subject: str) -> bool:
        return not self._filters or any(matches(pattern, subject) for pattern in self._filters)


@asynccontextmanager
async def connect(
    server: Server, service: Service, weather: Weather, link: Link | None = None
) -> AsyncIterator[MemoryBus]:
    async with anyio.create_task_group() as tasks:
        bus = MemoryBus(server, service, weather, link or Link(), tasks)
        server.connections.append(bus)
        tasks.start_soon(bus.keep_hearing)
        tasks.start_soon(bus.keep_writing)
        try:
            yield bus
        finally:
            server.connections.remove(bus)
            for serving in server.handlers.values():
                serving[:] = [place for place in serving if place[0] is not bus]
            tasks.cancel_scope.cancel()


async def run_timers(server: Server, weather: Weather) -> None:
    """Fire what is due: a little late always, seconds late at times, and now and then twice."""
    while True:
        due = [timer for timer in server.timers.values() if timer.due <= server.clock.now()]
        for timer in heapq.nsmallest(len(due), due):
            if weather.calm or weather.chance.random() < 0.7:
                server.fire(timer)
                if weather.loses():
                    server.store(timer.target, timer.data)
        await anyio.sleep(TIMER_SECONDS)
