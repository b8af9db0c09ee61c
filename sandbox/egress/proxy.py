"""One connection of a sandbox's to the proxy: one request, judged, and carried or refused in a sentence.

`CONNECT host:port` makes a tunnel, to the web's ports one for TLS to that host alone; `GET http://host/…` is sent on as
a request of our own, without the headers that are between two neighbours alone. Nothing is followed, kept or cached:
where an answer leads is a request of its own. What comes from inside is read by h11 within a limit of bytes and time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress

import anyio
import h11
from anyio.abc import SocketStream
from msgspec import Struct

from sandbox.egress.forward import NoHttp, exchange, tunnel
from sandbox.egress.hello import NoHello, server_name
from sandbox.egress.outside import Closed, Outside, Unreachable
from sandbox.egress.policy import HTTPS_PORT, Egress, Refusal, normal_host, normal_port, refusal, refused, shown
from sandbox.egress.wire import BROKEN, Http, Movement, Stream

HEAD_SECONDS = 10.0
"""For a request to be there with all its headers."""
HTTP_PORT = 80
AUTHORITY = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>[0-9]*))?")
ABSOLUTE = re.compile(r"http://(?P<authority>[^/?#]*)(?P<path>[^#]*)", re.IGNORECASE)
SITE_PORTS = (HTTPS_PORT, HTTP_PORT)
"""Where a site is asked for by its name within the connection, and the client speaks first; of other ports nothing is
known."""
OTHER_SITE = "was not asked for by its name: a tunnel there carries TLS to the very host that it is to"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Wish(Struct, frozen=True):
    """What a request asks for."""

    host: str
    port: int
    path: str = ""
    """Of plain HTTP; empty for a tunnel."""


class Answered(Exception):
    """The request ends here, with this status and sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Proxy:
    """Of one sandbox."""

    def __init__(self, egress: Egress, outside: Outside, tell: Callable[[Refusal], None]) -> None:
        self.tell = tell
        """Called with each refusal."""
        self._egress = egress
        self._outside = outside

    async def serve(self, socket: SocketStream) -> None:
        """Returns when the connection is over, however it ended; closes it."""
        async with socket:
            movement = Movement(self._egress.idle_seconds)
            client = Http(Stream(socket, movement), h11.SERVER, self._egress.header_bytes)
            with movement.scope, suppress(h11.LocalProtocolError, *BROKEN):
                movement.show()
                try:
                    await self._answer(client, movement)
                except Answered as said:
                    await say(client, said)
                except h11.RemoteProtocolError as error:
                    if client.protocol.our_state is h11.IDLE:
                        await say(client, Answered(error.error_status_hint, self._no_request(error)))

    async def _answer(self, client: Http, movement: Movement) -> None:
        with anyio.fail_after(HEAD_SECONDS):
            request = await client.next()
        if not isinstance(request, h11.Request):
            return
        wish = wish_of(request)
        async with await self._connect(wish) as socket:
            server = Stream(socket, movement)
            if wish.path:
                await self._exchange(client, server, request, wish)
            else:
                await client.stream.send(ESTABLISHED)
                await self._tunnel(client, server, wish)

    async def _tunnel(self, client: Http, server: Stream, wish: Wish) -> None:
        first = client.protocol.trailing_data[0]
        if wish.port in SITE_PORTS:
            try:
                first = await opening(client.stream, first, wish.host)
            except NoHello:
                self.tell(refused(wish.host, wish.port, OTHER_SITE))
                return
        await tunnel(client.stream, server, first)

    async def _exchange(self, client: Http, server: Stream, request: h11.Request, wish: Wish) -> None:
        host = wish.host if wish.port == HTTP_PORT else f"{wish.host}:{wish.port}"
        outer = Http(server, h11.CLIENT, self._egress.header_bytes)
        try:
            await exchange(client, outer, request, host.encode(), wish.path.encode())
        except NoHttp:
            raise Answered(502, f"{shown(wish.host)} did not answer in HTTP") from None
        await client.stream.linger()

    async def _connect(self, wish: Wish) -> SocketStream:
        """To what is wished for, when it may be. Answered."""
        found = refusal(wish.host, wish.port, self._egress.allowed)
        if found is None:
            try:
                return await self._outside.connect(wish.host.lower().removesuffix("."), wish.port)
            except Unreachable as error:
                self.tell(refused(wish.host, wish.port, f"is allowed and {error}"))
                raise Answered(502, f"{shown(wish.host)} {error}") from None
            except Closed:
                found = refused(wish.host, wish.port, "stands for an address that is not on the public internet")
        self.tell(found)
        raise Answered(403, found.reason)

    def _no_request(self, error: h11.RemoteProtocolError) -> str:
        if error.error_status_hint == 431:
            return f"a request's line and headers may have {self._egress.header_bytes} bytes"
        return "this is no request that a proxy understands"


def wish_of(request: h11.Request) -> Wish:
    """Answered when it is none for a proxy."""
    target = request.target.decode("latin-1")
    if request.method == b"CONNECT":
        return Wish(*place_of(target, HTTPS_PORT))
    absolute = ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise Answered(400, "this is a proxy: it takes CONNECT host:port and GET http://host/")
    path = absolute["path"]
    return Wish(*place_of(absolute["authority"], HTTP_PORT), path=path if path.startswith("/") else f"/{path}")


def place_of(authority: str, default_port: int) -> tuple[str, int]:
    found = AUTHORITY.fullmatch(authority)
    port = default_port if found is None or not found["port"] else normal_port(found["port"])
    if found is None or port is None:
        raise Answered(400, f"{shown(authority)} is no host and port")
    return found["host"], port


async def opening(client: Stream, first: bytes, host: str) -> bytes:
    """What a client says first: TLS, to `host`. NoHello when it does not."""
    while (name := server_name(first)) is None:
        if not (more := await client.receive()):
            raise NoHello
        first += more
    if normal_host(name) != normal_host(host):
        raise NoHello
    return first


async def say(client: Http, said: Answered) -> None:
    """The sentence stands in the status line too: of an answer to CONNECT most clients show nothing else."""
    body = f"{said.text}\n".encode()
    headers = [("content-type", "text/plain"), ("content-length", str(len(body))), ("connection", "close")]
    await client.send(h11.Response(status_code=said.status, headers=headers, reason=said.text.encode()))
    await client.send(h11.Data(data=body))
    await client.send(h11.EndOfMessage())
    await client.stream.linger()
