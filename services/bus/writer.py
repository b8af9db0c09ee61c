"""Writes that wait for the disk: one at a time each on its own, many at once as one atomic batch.

A single write costs the server its own sync to disk (0.4 ms, pipelined 0.2 ms), an atomic batch a fixed 2.5 to 3.3 ms
however many it carries. So up to `SINGLES` writes are on their way side by side, and only what piles up behind them
travels together. Nobody sets that: at rest nothing piles up. A batch is stored whole or not at all; of one that is
refused each write is sent again on its own, so that a conflict of one harms no other.

Knows the headers of JetStream's batches (ADR-50 of nats-architecture-and-design), and neither sockets nor subjects.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import msgspec
from msgspec import Struct

BATCH = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"

SINGLES = 16
"""Writes that are on their way on their own; so many behind them make a batch."""
BATCH_LIMIT = 256
"""Writes of one batch; the server takes a thousand."""
BATCH_LIMIT_BYTES = 4 * 1024 * 1024
"""What a batch may be before its last write."""


class Fault(Struct, frozen=True):
    """Why the server stored nothing."""

    description: str = ""
    err_code: int = 0


class Answer(Struct, frozen=True):
    """What the server says to a write."""

    seq: int = 0
    """Its sequence; of a batch the last one's."""
    error: Fault | None = None


class Write(Struct, eq=False):
    """A message on its way into a stream."""

    subject: str
    data: bytes
    headers: dict[str, str]
    answered: asyncio.Future[Answer]
    alone: bool
    """Never part of a batch."""
    token: str = ""
    """Of what it is on its way with."""


Send = Callable[[str, bytes, dict[str, str], str], Awaitable[None]]
"""Sends subject, data and headers; the last word is the token to give back with the answer, empty to want none. Raises
nothing: what cannot be sent is answered with a fault."""

_decode = msgspec.json.Decoder(Answer).decode


def read_answer(data: bytes) -> Answer:
    """What cannot be read says nothing about what was stored, which is what the fault says."""
    try:
        return _decode(data)
    except msgspec.MsgspecError:
        return Answer(error=Fault("an answer that cannot be read"))


class Writer:
    """The writes of one connection. `run` while it lasts."""

    def __init__(self, send: Send, *, singles: int = SINGLES, timeout_seconds: float) -> None:
        self._send = send
        self._singles = singles
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[Write] = deque()
        self._flying: dict[str, Sequence[Write]] = {}
        """By token."""
        self._batch = ""
        """The token of the batch that is on its way; nothing else leaves meanwhile."""
        name = uuid.uuid4().hex  # batches of all connections share one space of names
        self._tokens = (f"{name}_{number}" for number in count(1))
        self._stirred = asyncio.Event()

    async def store(self, subject: str, data: bytes, headers: dict[str, str], *, alone: bool = False) -> Answer:
        """What the server says. Raises TimeoutError: then it is not known whether the message was stored. With `alone`
        it waits for no other; messages of another stream than the others must."""
        loop = asyncio.get_running_loop()
        write = Write(subject, data, headers, loop.create_future(), alone)
        timer = loop.call_later(self._timeout_seconds, _expire, write.answered)
        try:
            if alone or (not self._waiting and self._room()):
                await self._send(subject, data, headers, self._fly((write,)))
            else:
                self._waiting.append(write)
            return await write.answered
        finally:
            timer.cancel()
            write.answered.cancel()
            if all(other.answered.done() for other in self._flying.get(write.token, ())):
                self._land(write.token)

    def answer(self, token: str, answer: Answer) -> None:
        """The server's answer; of what nobody waits for any more it changes nothing."""
        writes = self._flying.get(token, ())
        if len(writes) > 1 and answer.error is not None:
            for write in writes:
                write.alone = True
            self._waiting.extendleft(reversed(writes))
            writes = ()
        for place, write in enumerate(writes, start=answer.seq - len(writes) + 1):
            if not write.answered.done():
                write.answered.set_result(Answer(seq=place, error=answer.error))
        self._land(token)

    def give_up(self) -> None:
        """No answer comes to what is on its way: the connection is lost."""
        for write in [write for writes in self._flying.values() for write in writes]:
            _expire(write.answered)

    async def run(self) -> None:
        """Send what has to wait, as soon as it may."""
        while True:
            await self._stirred.wait()
            self._stirred.clear()
            while self._waiting and self._room():
                await self._send_some()

    def _room(self) -> bool:
        return not self._batch and (len(self._flying) < self._singles or len(self._waiting) >= self._singles)

    async def _send_some(self) -> None:
        """The next write, or a batch of all that wait."""
        group = self._group(BATCH_LIMIT if len(self._waiting) >= self._singles else 1)
        if len(group) > 1:
            self._batch = self._fly(group)
            await self._send_batch(group, self._batch)
        elif group:
            [write] = group
            await self._send(write.subject, write.data, write.headers, self._fly(group))

    def _group(self, limit: int) -> list[Write]:
        """The first of those that wait, as many as may travel together; one that may not travels alone."""
        group: list[Write] = []
        size = 0
        while self._waiting and len(group) < limit and size < BATCH_LIMIT_BYTES:
            if group and self._waiting[0].alone:
                break
            write = self._waiting.popleft()
            if not write.answered.done():
                group.append(write)
                size += len(write.data)
            if write.alone:
                break
        return group

    async def _send_batch(self, group: list[Write], token: str) -> None:
        for place, write in enumerate(group, start=1):
            headers = {**write.headers, BATCH: token, BATCH_SEQUENCE: str(place)}
            if write is group[-1]:
                await self._send(write.subject, write.data, {**headers, BATCH_COMMIT: "1"}, token)
            else:
                await self._send(write.subject, write.data, headers, "")

    def _fly(self, writes: Sequence[Write]) -> str:
        token = next(self._tokens)
        self._flying[token] = writes
        for write in writes:
            write.token = token
        return token

    def _land(self, token: str) -> None:
        self._flying.pop(token, None)
        if token == self._batch:
            self._batch = ""
        if self._waiting:
            self._stirred.set()


def _expire(answered: asyncio.Future[Answer]) -> None:
    if not answered.done():
        answered.set_exception(TimeoutError())
