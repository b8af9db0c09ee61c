"""The gate alone: what a sandbox does with the socket that it lent harms nobody out here."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from sandbox.egress.gate import NAME, Gate
from sandbox.egress.outside import Outside
from sandbox.egress.policy import Egress, Refusal
from sandbox.egress.proxy import Proxy

pytestmark = pytest.mark.anyio
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: a close that resets."""
GONE = 30


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_who_connects_and_is_gone_again_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    refused, told = [], anyio.Event()

    def tell(refusal: Refusal) -> None:
        refused.append(refusal.host)
        told.set()

    async with opened(tmp_path, tell) as (gate, listener):
        await anyio.to_thread.run_sync(connect_and_reset, listener.getsockname())
        async with await anyio.connect_tcp(*listener.getsockname()) as client:
            await client.send(b"CONNECT last.example.com:443 HTTP/1.1\r\nHost: last.example.com\r\n\r\n")
            with anyio.fail_after(5):
                await told.wait()
    assert (refused, failures, gate.connections) == (["last.example.com"], [], 0)


async def test_a_gate_closes_although_the_sandbox_lets_its_socket_listen_again_and_again(tmp_path: Path) -> None:
    for _ in range(5):
        async with opened(tmp_path, lambda _: None) as (gate, listener):
            with listening_again(listener), anyio.fail_after(5):
                await gate.close()


@asynccontextmanager
async def opened(folder: Path, tell: Callable[[Refusal], None]) -> AsyncIterator[tuple[Gate, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0), backlog=2 * GONE) as listener:
        gate = Gate(Proxy(Egress(), Outside(), tell), connections=4)
        await gate.open(folder, 0, lender(folder / NAME, listener))
        yield gate, listener
        await gate.close()


def lender(place: Path, listener: socket.socket) -> Callable[[], Awaitable[None]]:
    async def lend() -> None:
        with socket.socket(socket.AF_UNIX) as host:
            host.connect(str(place))
            socket.send_fds(host, [b"x"], [listener.fileno()])

    return lend


def connect_and_reset(place: tuple[str, int]) -> None:
    for _ in range(GONE):
        with socket.create_connection(place) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@contextmanager
def listening_again(listener: socket.socket) -> Iterator[None]:
    """In a thread, as fast as it can."""
    ended = threading.Event()

    def listen() -> None:
        while not ended.is_set():
            with suppress(OSError):
                listener.listen(1)

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
