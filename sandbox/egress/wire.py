"""Streams as the proxy uses them: with an eye on whether anything moves, and as HTTP."""

from __future__ import annotations

import anyio
import h11
from anyio.abc import SocketStream

CHUNK_BYTES = 256 * 1024
LINGER_SECONDS = 1.0
LINGER_BYTES = 1024 * 1024
"""A client takes an answer although it still sends for so long and so much: closed before, the answer would be lost
(RFC 9112, 9.6)."""
BROKEN = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
"""The other side is gone."""


class Movement:
    """Cancels its scope when nothing has moved for so long."""

    def __init__(self, idle_seconds: float) -> None:
        self.scope = anyio.CancelScope()
        self._idle_seconds = idle_seconds

    def show(self) -> None:
        self.scope.deadline = anyio.current_time() + self._idle_seconds


class Stream:
    """One side of a connection."""

    def __init__(self, socket: SocketStream, movement: Movement) -> None:
        self._socket = socket
        self._movement = movement

    async def receive(self) -> bytes:
        """Empty at the end."""
        try:
            data = await self._socket.receive(CHUNK_BYTES)
        except anyio.EndOfStream:
            return b""
        self._movement.show()
        return data

    async def send(self, data: bytes) -> None:
        if data:
            await self._socket.send(data)
            self._movement.show()

    async def send_eof(self) -> None:
        try:
            await self._socket.send_eof()
        except RuntimeError:  # uvloop's word for a transport that is gone
            raise anyio.BrokenResourceError from None

    async def linger(self) -> None:
        """Say that nothing more comes, and take what the other side still says, within limits."""
        await self.send_eof()
        left = LINGER_BYTES
        with anyio.move_on_after(LINGER_SECONDS):
            while left > 0 and (data := await self.receive()):
                left -= len(data)


class Http:
    """One side of a connection that speaks HTTP."""

    def __init__(self, stream: Stream, role: type[h11.CLIENT] | type[h11.SERVER], header_bytes: int) -> None:
        """`role` is ours."""
        self.stream = stream
        self.protocol = h11.Connection(role, max_incomplete_event_size=header_bytes)

    async def next(self) -> h11.Event | None:
        """None when this exchange is over. RemoteProtocolError for what is no HTTP, or too long."""
        while (event := self.protocol.next_event()) is h11.NEED_DATA:
            self.protocol.receive_data(await self.stream.receive())
        return event if isinstance(event, h11.Event) else None

    async def send(self, event: h11.Event) -> None:
        await self.stream.send(self.protocol.send(event) or b"")
