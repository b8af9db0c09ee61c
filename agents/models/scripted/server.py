"""The server's start and stop, for `__main__` and for tests."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext

import anyio
import uvicorn

from agents.models.scripted.app import App


class Server:
    """A running server."""

    def __init__(self, url: str, uvicorn_server: uvicorn.Server, ended: anyio.Event) -> None:
        self.url = url
        self._server = uvicorn_server
        self._ended = ended

    async def ended(self) -> None:
        await self._ended.wait()

    def stop(self) -> None:
        self._server.should_exit = True


@asynccontextmanager
async def serving(
    *, host: str = "127.0.0.1", port: int = 0, pace_seconds: float = 0.0, signals: bool = False
) -> AsyncIterator[Server]:
    """Serve inside the block. `signals` makes SIGTERM and SIGINT end it."""
    config = uvicorn.Config(
        App(pace_seconds), log_config=None, access_log=False, lifespan="off", ws="none", timeout_graceful_shutdown=2
    )
    config.load()
    server = _Quiet(config)
    listener = _listen(host, port)
    ended = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await server.serve(sockets=[listener])
            ended.set()

        tasks.start_soon(run)
        handle = Server(f"http://{host}:{listener.getsockname()[1]}", server, ended)
        if signals:
            tasks.start_soon(_stop_on_signal, handle)
        try:
            yield handle
        finally:
            handle.stop()
            await _shielded(ended)
            tasks.cancel_scope.cancel()


def _listen(host: str, port: int) -> socket.socket:
    """asyncio sets TCP_NODELAY only where the socket names its protocol; without it each answer waits 40 ms."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


async def _shielded(ended: anyio.Event) -> None:
    with anyio.CancelScope(shield=True):
        await ended.wait()


async def _stop_on_signal(server: Server) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async for _ in received:
            server.stop()
            return


class _Quiet(uvicorn.Server):
    """Signals are the caller's business."""

    def capture_signals(self) -> AbstractContextManager[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return nullcontext()
