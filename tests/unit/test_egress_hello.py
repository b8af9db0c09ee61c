"""A tunnel carries TLS to the host that it is to, and to no other one behind the same address."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream

from sandbox.egress.hello import NoHello, server_name
from sandbox.egress.outside import Outside
from sandbox.egress.policy import Egress, Refusal, parse
from sandbox.egress.proxy import ESTABLISHED, Proxy

pytestmark = pytest.mark.anyio
SITE = "pypi.example"
LATE = 1.0
"""So long nothing has to come."""


def hello(name: str | None) -> bytes:
    """As OpenSSL says it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    said = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name).do_handshake()
    return said.read()


def in_records(said: bytes, size: int) -> bytes:
    """The same, in records of `size` bytes."""
    body = said[5:]
    parts = [body[first : first + size] for first in range(0, len(body), size)]
    return b"".join(said[:3] + len(part).to_bytes(2, "big") + part for part in parts)


def test_the_name_is_found_wherever_the_hello_is_cut() -> None:
    whole = hello(SITE)
    assert [server_name(whole[:size]) for size in range(len(whole))] == [None] * len(whole)
    assert server_name(whole) == server_name(whole + b"more") == SITE
    assert all(server_name(in_records(whole, size)) == SITE for size in (1, 3, 4, 5, 100))


@pytest.mark.parametrize(
    "said",
    [
        hello(None),  # names nobody: the network's first site, or the one that is asked for later
        b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x00\x00",  # an empty record, of which there may be ever more
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # a ServerHello
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",  # ends in its version
    ],
)
def test_what_names_no_host_is_no_hello(said: bytes) -> None:
    with pytest.raises(NoHello):
        server_name(said)


def test_no_byte_of_a_hello_can_be_spoilt_so_that_more_than_one_answer_is_possible() -> None:
    whole = hello(SITE)
    for place in range(len(whole)):
        with suppress(NoHello):
            assert (server_name(whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :]) or SITE).isascii()


@pytest.mark.parametrize(
    ("port", "said", "is_carried"),
    [
        (443, hello(SITE), True),
        (443, hello(SITE.upper()), True),
        (443, hello("evil.example"), False),
        (443, hello(f"{SITE}.evil.example"), False),
        (443, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", False),
        (80, b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", False),
        (22, b"SSH-2.0-OpenSSH_9.2\r\n", True),  # a port that the owner named
    ],
)
@pytest.mark.parametrize("with_request", [True, False])
async def test_a_tunnel_is_to_one_site(port: int, said: bytes, is_carried: bool, with_request: bool) -> None:
    request = f"CONNECT {SITE}:{port} HTTP/1.1\r\nHost: {SITE}\r\n\r\n".encode()
    refused: list[Refusal] = []
    async with site() as (outside, came), connected(outside, refused) as client:
        await client.send(request + said if with_request else request)
        assert (await client.receive()).startswith(ESTABLISHED)
        if not with_request:
            await client.send(said)
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError), anyio.fail_after(5 * LATE):
            assert await client.receive() == b"heard"
    assert b"".join(came) == (said if is_carried else b"")
    assert [one.host for one in refused] == ([] if is_carried else [SITE])


@asynccontextmanager
async def site() -> AsyncIterator[tuple[Outside, list[bytes]]]:
    """Whoever is connected to, and what came there."""
    came: list[bytes] = []

    async def serve(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.EndOfStream):
                came.append(await stream.receive())
                await stream.send(b"heard")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield Near(listener.extra(SocketAttribute.local_port)), came
        group.cancel_scope.cancel()


class Near(Outside):
    """All names and ports are one place."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port

    async def connect(self, host: str, port: int) -> SocketStream:
        return await anyio.connect_tcp("127.0.0.1", self._port)


@asynccontextmanager
async def connected(outside: Outside, refused: list[Refusal]) -> AsyncIterator[SocketStream]:
    """A client of a proxy."""
    words, allowed = parse(f"{SITE} {SITE}:80 {SITE}:22")
    proxy = Proxy(Egress(words=words, allowed=allowed), outside, refused.append)
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, proxy.serve)
        async with await anyio.connect_tcp(*listener.extra(SocketAttribute.local_address)) as client:
            yield client
        group.cancel_scope.cancel()
