"""How a service comes to the bus, and stays there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import nats.errors
from msgspec import Struct

from protocol.cells import Cell, CellName
from protocol.routes import Service
from services import log
from services.background import background
from services.bus.bus import Bus
from services.bus.client import RECONNECT_SECONDS, Client, in_time
from services.bus.errors import Unavailable

CONNECT_SECONDS = 3.0
"""For the first connection."""


class BusConfig(Struct, frozen=True, kw_only=True):
    """How to reach NATS."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Server addresses, separated by commas."""
    nats_password_file: str = ""
    """File with this service's password; empty for a server that asks for none."""
    cell: CellName = ""
    """The name of this installation where several are on one nats-server (docs/running.md): 1 to 16 of a-z and 0-9."""
    health_file: str = ""
    """Touched every 2 s while work moves, for who keeps this process alive: older than that, or gone, it does not."""

    def password(self) -> str:
        return Path(self.nats_password_file).read_text().strip() if self.nats_password_file else ""


@asynccontextmanager
async def connect(config: BusConfig, service: Service) -> AsyncIterator[Bus]:
    """Connect as `service` and stay connected: every later loss of the server is waited out."""
    logger = log.get()

    bus: Bus | None = None

    async def on_error(error: Exception) -> None:
        refused[:] = [error]
        logger.warning("nats", error=repr(error))
        if bus is not None and isinstance(error, nats.errors.SlowConsumerError):
            bus.interrupted()

    async def on_loss() -> None:
        if bus is not None:
            bus.lost()

    async def on_reconnect() -> None:
        logger.info("nats_reconnected")
        if bus is not None:
            bus.found_again()

    refused: list[Exception] = []
    cell = Cell(config.cell)
    client = Client(cell)
    opening = client.connect(
        config.nats_url.split(","),
        name=f"errand-{cell.user(service.value)}",
        user=cell.user(service.value),
        password=config.password(),
        # A private inbox: the permissions let no other service listen to the answers.
        inbox_prefix=f"_INBOX_{cell.user(service.value)}".encode(),
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_SECONDS,  # pyright: ignore[reportArgumentType] - a float does
        connect_timeout=2,
        error_cb=on_error,
        disconnected_cb=on_loss,
        reconnected_cb=on_reconnect,
    )
    try:
        # With endless reconnects the client would try a wrong password for ever, too.
        await in_time(opening, CONNECT_SECONDS)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await client.close()
        why = refused[-1] if refused else error
        raise Unavailable(f"NATS at {config.nats_url} cannot be reached as {service}: {why!r}") from error
    try:
        async with background() as tasks:
            bus = Bus(client, service, tasks)
            await bus.begin()
            yield bus
    finally:
        with anyio.CancelScope(shield=True), suppress(nats.errors.Error, TimeoutError):
            await asyncio.wait_for(client.drain() if client.is_connected else client.close(), 5)
