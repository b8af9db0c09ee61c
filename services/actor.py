"""One start/stop contract for every service: connect, run, report health, drain on SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import anyio
import anyio.abc
import anyio.to_thread
from msgspec import Struct

from protocol.query import AskInForce, Check, Health, InForce, SettingInForce
from protocol.routes import Service, query_subject
from services import log
from services.bus import Bus, BusConfig, Unavailable, connect

DRAIN_SECONDS = 10.0
"""How long a service may take to finish what it has in hand; then it is cancelled."""
CONNECT_SECONDS = 30.0
"""How long a service waits for NATS at its start."""
HEALTH_SECONDS = 2.0
"""Between two looks at whether work moves."""


class Actor(Protocol):
    """A service between its start and its stop."""

    async def run(self, started: Callable[[], None]) -> None:
        """Work until cancelled; call `started` once work can be taken. Returning is an error of the service."""
        ...

    async def drain(self, *, for_good: bool = False) -> None:
        """Take no new work, finish or hand over what is in hand, return when that is done. May be called before `run`
        has started. `for_good`: nobody is about to take this service's place."""
        ...

    def health(self) -> Health:
        """Whether work moves, at this moment."""
        ...


class Told(Struct, frozen=True):
    """What `errand doctor` is told of a process, besides its health."""

    settings: tuple[SettingInForce, ...] = ()
    look: Callable[[], tuple[Check, ...]] | None = None
    """Finds out what else there is to say of this machine, in a thread."""

    async def answer(self, service: Service) -> InForce:
        checks = await anyio.to_thread.run_sync(self.look) if self.look else ()
        process = f"{socket.gethostname()}-{os.getpid()}"
        return InForce(service=service.value, process=process, settings=self.settings, checks=checks)


NOTHING = Told()


def run(
    service: Service, config: BusConfig, make: Callable[[Bus], Actor], *, level: str = "info", told: Told = NOTHING
) -> None:
    """Run one service as this process until SIGTERM, or SIGINT where the house ends for good."""
    log.configure(service, level)
    anyio.run(_run, service, config, make, told, backend_options={"use_uvloop": True})


async def _run(service: Service, config: BusConfig, make: Callable[[Bus], Actor], told: Told) -> None:
    logger = log.get()
    # Installed first: a SIGTERM while we wait for NATS must end the wait, not the interpreter in the middle of
    # something.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as group:
            actor: list[Actor] = []

            async def answer() -> InForce:
                return await told.answer(service)

            async def live() -> None:
                await _wait_for_nats(service, config)
                async with connect(config, service) as bus:
                    actor.append(make(bus))
                    # From now on: also a service that cannot begin says what it was told.
                    # Beside what the service serves: the server lets a connection answer once, and two micro services
                    # of one process would both answer a `$SRV.PING`, and neither be heard.
                    await bus.attend(query_subject(service, AskInForce), answer)
                    await actor[0].run(started)

            def started() -> None:
                logger.info("started")
                if config.health_file:
                    group.start_soon(_show_health, actor[0], Path(config.health_file))

            async def stop_on_signal() -> None:
                number = await anext(aiter(signals))
                logger.info("draining")
                with anyio.move_on_after(DRAIN_SECONDS):
                    if actor:
                        await actor[0].drain(for_good=number == signal.SIGINT)
                group.cancel_scope.cancel()

            group.start_soon(live)
            group.start_soon(stop_on_signal)
    logger.info("stopped")


async def _wait_for_nats(service: Service, config: BusConfig) -> None:
    """Return once NATS takes this service's credential; raises Unavailable after `CONNECT_SECONDS`."""
    deadline = anyio.current_time() + CONNECT_SECONDS
    while True:
        try:
            async with connect(config, service):
                return
        except Unavailable:
            if anyio.current_time() > deadline:
                raise
            await anyio.sleep(0.05)


async def _show_health(actor: Actor, file: Path) -> None:
    """A file costs its watcher nothing; a query would start a Python each time."""
    while True:
        if actor.health().healthy:
            file.touch()
        else:
            file.unlink(missing_ok=True)
        await anyio.sleep(HEALTH_SECONDS)


def healthy(service: Service, bus: Bus, *, notices: tuple[str, ...] = (), detail: str = "") -> Health:
    """The health of a service whose work is its readers: connected, and none of them silent."""
    stalled = bus.stalled()
    if not bus.connected:
        detail = "not connected to NATS"
    elif stalled:
        detail = "these readers do not move: " + ", ".join(stalled)
    return Health(healthy=bus.connected and not stalled, service=service.value, detail=detail, notices=notices)
