"""What one socket still has to be sent, bounded in bytes. Events are never left out; previews are joined, then left
out."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from protocol.base import encode
from protocol.journal import Output
from protocol.live import OutputSeen

OUTPUT_SHARE = 4
"""Previews may fill one part in so many."""
JOIN_LIMIT_CHARS = 16 * 1024
"""Pieces of a preview are joined up to this length."""


class Full(Exception):
    """The phone takes less than there is to send."""


class Preview(Struct):
    """Output that has not been sent yet."""

    task: str
    output: Output
    frame: bytes

    def join(self, task: str, output: Output) -> bool:
        """Take in the piece that follows, if it does."""
        ours = self.output
        follows = (
            self.task == task
            and (ours.attempt, ours.step, ours.channel) == (output.attempt, output.step, output.channel)
            and ours.offset + len(ours.text) == output.offset
            and len(ours.text) < JOIN_LIMIT_CHARS
        )
        if follows:
            self.output = Output(
                attempt=ours.attempt,
                step=ours.step,
                offset=ours.offset,
                text=ours.text + output.text,
                channel=ours.channel,
            )
            self.frame = encode(OutputSeen(task=task, output=self.output))
        return follows


class Outbox:
    """Frames in the order in which they are sent.

    An idle phone has an empty one: lists and futures made when they are needed, because an empty deque or asyncio.Event
    takes 760 bytes.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._entries: list[bytes | Preview] = []
        self._size = 0
        self._filled: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    def put(self, frame: bytes) -> None:
        """Raises Full when the phone owes too much."""
        # A frame over the whole limit must still be possible, when nothing else waits.
        if self._entries and self._size + len(frame) > self._limit:
            raise Full
        self._add(frame, len(frame))

    def put_preview(self, task: str, output: Output, frame: bytes) -> None:
        """Join the piece to the one before it, add it, or leave it out."""
        last = self._entries[-1] if self._entries else None
        if isinstance(last, Preview):
            before = len(last.frame)
            if last.join(task, output):
                self._size += len(last.frame) - before
                return
        if self._size + len(frame) <= self._limit // OUTPUT_SHARE:
            self._add(Preview(task, output, frame), len(frame))

    def put_last(self, frame: bytes) -> None:
        """Instead of all that waits."""
        self._entries.clear()
        self._size = 0
        self._add(frame, len(frame))

    async def room(self, frame: bytes) -> None:
        """Return when the frame leaves half of the limit to what is live, or when nothing else waits. One waits here
        or many; each looks again for itself."""
        while self._entries and self._size + len(frame) > self._limit // 2:
            if self._drained is None or self._drained.done():
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    async def get(self) -> bytes:
        """The next frame. One waits here at a time."""
        while not self._entries:
            self._filled = asyncio.get_running_loop().create_future()
            await self._filled
        entry = self._entries.pop(0)
        frame = entry if isinstance(entry, bytes) else entry.frame
        self._size -= len(frame)
        _wake(self._drained)
        return frame

    def _add(self, entry: bytes | Preview, size: int) -> None:
        self._entries.append(entry)
        self._size += size
        _wake(self._filled)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
