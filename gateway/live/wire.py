"""The socket itself, over ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import anyio
from litestar.connection import WebSocket
from litestar.exceptions import WebSocketDisconnect

ABORT = "errand.abort"
"""Our extension of the ASGI scope: a function that cuts the connection. `close` would wait for a phone that reads
nothing."""

PING = "errand.ping"
"""Our extension of the ASGI scope: a coroutine function that returns when the phone has answered a ping."""


class Gone(Exception):
    """The connection has ended."""


class Wire:
    """Frames in and out. Every call but `abort` raises Gone once the connection has ended."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        extensions = cast(Any, socket.scope).get("extensions", {})
        self._abort: Callable[[], None] = extensions.get(ABORT, lambda: None)
        self._ping: Callable[[], Awaitable[None]] = extensions.get(PING, anyio.sleep_forever)

    async def receive(self) -> str | bytes:
        try:
            message = await self._socket.receive()
        except WebSocketDisconnect:
            raise Gone from None
        if message["type"] != "websocket.receive":
            raise Gone
        return message.get("text") or message.get("bytes") or ""

    async def send(self, frame: bytes) -> None:
        """Waits while the phone does not read."""
        await self._send({"type": "websocket.send", "bytes": None, "text": frame.decode()})

    async def close(self, code: int, reason: str) -> None:
        # A close frame has room for 123 bytes of reason (RFC 6455).
        short = reason.encode()[:120].decode(errors="ignore")
        await self._send({"type": "websocket.close", "code": code, "reason": short})

    async def _send(self, message: Any) -> None:
        try:
            await self._socket.send(message)
        except (WebSocketDisconnect, OSError, RuntimeError):
            # OSError: uvicorn's ClientDisconnected; RuntimeError: ours after the peer's close.
            raise Gone from None

    async def answers(self, seconds: float) -> bool:
        """Whether the phone answers a ping in time."""
        with anyio.move_on_after(seconds):
            await self._ping()
            return True
        return False

    def abort(self) -> None:
        """Cut the connection, whatever waits to be sent."""
        self._abort()
