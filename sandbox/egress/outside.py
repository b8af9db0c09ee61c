"""The network as the proxy enters it: a name is looked up here and once, and what is connected to is the very address
that was looked at, so that no second answer of a name server (rebinding) leads elsewhere."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from itertools import zip_longest

import anyio
from anyio.abc import SocketStream

from protocol.addresses import is_public
from sandbox.egress.names import LookUp, Names

LOOK_UP_SECONDS = 5.0
CONNECT_SECONDS = 10.0
NEXT_SECONDS = 0.25
"""An address that has not answered by then is not waited for alone (RFC 8305: 250 ms)."""
ADDRESSES_LIMIT = 4
"""Of one name, of both families by turns."""
ANY_PORT = 9


class Closed(Exception):
    """A name stands for an address that no sandbox may reach."""


class Unreachable(Exception):
    """It may be reached, and cannot be. The message is a sentence without the host."""


class Outside:
    """Connects to names."""

    def __init__(self, look_up: LookUp | None = None, is_open: Callable[[str], bool] | None = None) -> None:
        """`is_open` says whether sandboxes may reach an address."""
        self._names = Names()
        self._given = look_up
        self._look_up = look_up or self._names.of_one()
        self._is_open = is_open or (lambda address: is_public(address) and not is_own(address))

    def of_one(self) -> Outside:
        """For one sandbox: what it looks up makes no other wait."""
        one = copy(self)
        one._look_up = self._given or self._names.of_one()
        return one

    async def connect(self, host: str, port: int) -> SocketStream:
        """Raises Closed and Unreachable."""
        addresses = by_turns(await self.addresses(host))[:ADDRESSES_LIMIT]
        stream = await first_to_answer(addresses, port)
        if stream is None:
            raise Unreachable("does not answer")
        return stream

    async def addresses(self, host: str) -> Sequence[str]:
        """Of that name. Closed unless all of them are open: one that is not shows that the name is no stranger's."""
        try:
            with anyio.fail_after(LOOK_UP_SECONDS):
                found = list(dict.fromkeys(await self._look_up(host)))
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise Unreachable("has no address that could be found")
        if not all(self._is_open(address) for address in found):
            raise Closed
        return found


async def first_to_answer(addresses: Sequence[str], port: int) -> SocketStream | None:
    """Each is given a moment before the next one is tried beside it (RFC 8305), so that one that is dead, as of IPv6
    many are, costs no more."""
    connected: list[SocketStream] = []

    async def attempt(address: str, over: anyio.Event) -> None:
        with suppress(OSError):  # TimeoutError is one
            with anyio.fail_after(CONNECT_SECONDS):
                connected.append(await anyio.connect_tcp(address, port))
            group.cancel_scope.cancel()
        over.set()

    try:
        async with anyio.create_task_group() as group:
            for address in addresses:
                over = anyio.Event()
                group.start_soon(attempt, address, over)
                with anyio.move_on_after(NEXT_SECONDS):
                    await over.wait()
        return connected.pop(0) if connected else None
    finally:
        for stream in connected:
            await anyio.aclose_forcefully(stream)


def by_turns(addresses: Sequence[str]) -> list[str]:
    """One of each family after the other, the system's first one first."""
    families = [":" in address for address in addresses]
    first = [address for address, family in zip(addresses, families, strict=True) if family == families[0]]
    second = [address for address in addresses if address not in first]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]


def is_own(address: str) -> bool:
    """Whether it is this machine's: what leaves for it would leave from it. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, ANY_PORT))
        except OSError:
            return False
        return str(probe.getsockname()[0]) == address
