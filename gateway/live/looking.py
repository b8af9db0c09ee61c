"""Which devices look: presence across all gateways, without a record of it anywhere.

A gateway is interested in a device's subject for as long as a socket of that device says that its page is on the
screen. NATS itself says when nobody is interested, and drops the interest of a gateway that died. Who answers pings
the phone first, so that a socket whose phone is gone does not count.
"""

from __future__ import annotations

from typing import Protocol

import anyio
import anyio.abc

from gateway.users import Asker
from protocol.query import AskLooking, DeviceLooks
from services.bus import Bus, Unavailable

PONG_SECONDS = 2.0
"""A phone that takes longer to answer a ping is sent a push as well."""
ASK_SECONDS = 3.0
AGAIN_SECONDS = 0.5


def subject(user: str, device: str) -> str:
    return f"look.{user}.{device}"


async def looks(bus: Bus, user: str, device: str) -> bool:
    """Whether the device's page is on the screen now, whichever gateway it is connected to."""
    return (
        await bus.ask_present(subject(user, device), AskLooking(), DeviceLooks, timeout_seconds=ASK_SECONDS) is not None
    )


class Looker(Protocol):
    """A phone, as presence sees it."""

    @property
    def asker(self) -> Asker: ...

    async def answers(self, seconds: float) -> bool:
        """Whether the phone answers a ping in time."""
        ...


class Looking:
    """The looking devices of this gateway's sockets."""

    def __init__(self, bus: Bus, group: anyio.abc.TaskGroup) -> None:
        self._bus = bus
        self._group = group
        self._devices: dict[tuple[str, str], Device] = {}

    def begin(self, phone: Looker) -> None:
        """May be called again."""
        key = (phone.asker.user, phone.asker.device)
        device = self._devices.get(key)
        if device is None:
            device = self._devices[key] = Device(self._bus, subject(*key))
            self._group.start_soon(device.attend)
        device.phones.add(phone)

    def end(self, phone: Looker) -> None:
        """Also for a phone that did not look."""
        key = (phone.asker.user, phone.asker.device)
        device = self._devices.get(key)
        if device is None:
            return
        device.phones.discard(phone)
        if not device.phones:
            del self._devices[key]
            device.left.set()


class Device:
    """One device's interest."""

    def __init__(self, bus: Bus, subject: str) -> None:
        self.phones: set[Looker] = set()
        self.left = anyio.Event()
        self._bus = bus
        self._subject = subject

    async def attend(self) -> None:
        """Be present until nobody looks any more."""
        while not self.left.is_set():
            try:
                leave = await self._bus.attend(self._subject, self._answer)
            except Unavailable:
                await anyio.sleep(AGAIN_SECONDS)
                continue
            await self.left.wait()
            await leave()

    async def _answer(self) -> DeviceLooks | None:
        """Once one of the phones has answered a ping; nothing when none does."""
        found = anyio.Event()

        async def ask(phone: Looker) -> None:
            if await phone.answers(PONG_SECONDS):
                found.set()
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for phone in self.phones:
                group.start_soon(ask, phone)
        return DeviceLooks() if found.is_set() else None
