"""What is carried once it is allowed: the bytes of a tunnel both ways, or one request and its answer."""

from __future__ import annotations

from contextlib import suppress

import anyio
import h11
from anyio.abc import TaskGroup

from sandbox.egress.wire import BROKEN, Http, Stream

OURS = frozenset(
    (b"host", b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive", b"te", b"upgrade", b"expect")
)
"""Headers of a request between a client and its proxy, or that we write ourselves."""
THEIRS = frozenset((b"connection", b"keep-alive", b"proxy-authenticate", b"upgrade"))
CLOSE = (b"connection", b"close")


class NoHttp(Exception):
    """The server did not answer in HTTP."""


async def tunnel(client: Stream, server: Stream, first: bytes) -> None:
    """`first` is what the client said already. Returns when both have said all, or either is gone."""
    async with anyio.create_task_group() as group:
        group.start_soon(pump, server, client, group)
        await pump(client, server, group, first)


async def pump(source: Stream, sink: Stream, group: TaskGroup, first: bytes = b"") -> None:
    try:
        await sink.send(first)
        while data := await source.receive():
            await sink.send(data)
        await sink.send_eof()
    except BROKEN:
        group.cancel_scope.cancel()


async def exchange(client: Http, server: Http, request: h11.Request, host: bytes, path: bytes) -> None:
    """Send `request` on as one of our own, with what comes after its head, and its answer back. NoHttp."""
    kept = [one for one in request.headers if one[0] not in OURS | named_by_connection(request)]
    headers = [(b"host", host), *kept, CLOSE]
    await server.send(h11.Request(method=request.method, target=path, headers=headers))
    failed: Exception | None = None
    async with anyio.create_task_group() as group:
        group.start_soon(upload, client, server)
        try:
            await answer(client, server)
        except (NoHttp, h11.RemoteProtocolError, h11.LocalProtocolError, *BROKEN) as error:
            failed = error  # by itself, and not in a group of one
        group.cancel_scope.cancel()
    if failed is not None:
        raise failed


def named_by_connection(message: h11.Request | h11.Response) -> frozenset[bytes]:
    """Headers that are for the neighbour alone."""
    values = (value for name, value in message.headers if name == b"connection")
    return frozenset(word.strip().lower() for value in values for word in value.split(b","))


async def upload(client: Http, server: Http) -> None:
    """The body of a request. A server may answer before it has all of it, and hear no more."""
    with suppress(h11.RemoteProtocolError, h11.LocalProtocolError, *BROKEN):
        if client.protocol.they_are_waiting_for_100_continue:
            await client.send(h11.InformationalResponse(status_code=100, headers=[]))
        while isinstance(event := await client.next(), h11.Data):
            await server.send(h11.Data(data=event.data))
        if isinstance(event, h11.EndOfMessage):
            await server.send(h11.EndOfMessage())


async def answer(client: Http, server: Http) -> None:
    response = await head(server)
    kept = [one for one in response.headers if one[0] not in THEIRS | named_by_connection(response)]
    reason = response.reason
    await client.send(h11.Response(status_code=response.status_code, headers=[*kept, CLOSE], reason=reason))
    while isinstance(event := await server.next(), h11.Data):
        await client.send(h11.Data(data=event.data))
    if isinstance(event, h11.EndOfMessage):
        await client.send(h11.EndOfMessage())


async def head(server: Http) -> h11.Response:
    try:
        while isinstance(event := await server.next(), h11.InformationalResponse):
            pass
    except (h11.RemoteProtocolError, *BROKEN):
        raise NoHttp from None
    if not isinstance(event, h11.Response):
        raise NoHttp
    return event
