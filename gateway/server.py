"""uvicorn inside our own process: one listening socket, no signal handlers of its own, and a socket that can be cut."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.config import Config
from gateway.hosts import OwnHosts, proxies
from gateway.live.wire import ABORT, PING
from protocol.live import FRAME_LIMIT_BYTES
from services import log
from services.config import WrongSetting
from services.listening import refusal

PING_SECONDS = 20.0
"""Also keeps a NAT's entry for an idle phone; a phone that answers none is gone after as much again."""
SEND_BUFFER_BYTES = 256 * 1024
"""The kernel's share for one socket: by default it takes 4 MB for a phone that stopped reading."""
BACKLOG = 1024
GRACE_SECONDS = 3
"""For requests that are being answered when the server stops."""
HEADERS = (
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "manifest-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
        "require-trusted-types-for 'script'; trusted-types errand",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)


PING_PAYLOAD = b"errand"


class Protocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, with the means to cut a connection that takes nothing, and to ask whether anybody
    is at its other end."""

    _pong: asyncio.Future[None] | None = None
    """Of a ping of ours that has no answer yet."""

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):  # not for a handshake that was refused
            extensions = cast(Any, self.scope)["extensions"]
            extensions[ABORT], extensions[PING] = self.transport.abort, self.ping

    async def ping(self) -> None:
        """Return once the phone has answered; for a dead one that is never."""
        if self._pong is None:
            self._pong = self.loop.create_future()
            if not (self.close_sent or self.transport.is_closing()):
                self.conn.send_ping(PING_PAYLOAD)
                self.transport.write(b"".join(self.conn.data_to_send()))
        await asyncio.shield(self._pong)

    def handle_pong(self, event: Any) -> None:
        super().handle_pong(event)
        if self._pong is not None and bytes(event.data) == PING_PAYLOAD:
            self._pong.set_result(None)
            self._pong = None

    def start_keepalive(self) -> None:
        """Called once the handshake is answered: what it was about would stay for as long as the phone."""
        super().start_keepalive()
        del self.request, self.response


class Server(uvicorn.Server):
    """Tells when it has started, and leaves the signals to the actor's contract."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


class _ToStructlog(logging.Handler):
    """uvicorn's few lines, in the form of all others."""

    def emit(self, record: logging.LogRecord) -> None:
        log.get().log(record.levelno, "http", message=record.getMessage(), exc_info=record.exc_info)


def make(app: Any, config: Config, started: Callable[[], None]) -> Server:
    logger = logging.getLogger("uvicorn.error")
    logger.handlers, logger.propagate = [_ToStructlog()], False
    logger.setLevel(logging.WARNING)
    hsts = [("strict-transport-security", "max-age=31536000")] if config.url.startswith("https:") else []
    settings = uvicorn.Config(
        OwnHosts(app, config),
        interface="asgi3",
        ws=Protocol,
        ws_max_size=2 * FRAME_LIMIT_BYTES,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        ws_per_message_deflate=False,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        headers=[*HEADERS, *hsts],
        proxy_headers=True,
        forwarded_allow_ips=proxies(config.trusted_proxies),
        timeout_graceful_shutdown=GRACE_SECONDS,
        backlog=BACKLOG,
    )
    return Server(settings, started)


def bind(config: Config) -> socket.socket:
    """The socket to listen on, bound: who comes before the server has started is refused, and tries again. Raises
    WrongSetting with the setting that is in the way."""
    if reason := refusal(config.bind, config.public_url, allow_http=config.allow_http):
        raise WrongSetting(f"ERRAND_BIND: {reason}")
    bound = socket.socket(socket.AF_INET6 if ":" in config.bind else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Accepted sockets inherit it.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    try:
        bound.bind((config.bind, config.port))
    except OSError as error:
        bound.close()
        raise WrongSetting(
            f"ERRAND_BIND, ERRAND_PORT: {config.bind} port {config.port} cannot be listened on: {error.strerror}."
        ) from None
    return bound
