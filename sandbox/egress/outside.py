"""The network as the proxy enters it: a name is looked up here and once, and what is connected to is the very address
that was looked at, so that no second answer of a name server (rebinding) leads elsewhere."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import anyio
from anyio.abc import SocketStream

from protocol.addresses import is_public

LOOK_UP_SECONDS = 5.0
LOOK_UPS_LIMIT = 4
"""At once, of all sandboxes together: threads of their own, so that nobody else's look-up waits for a slow one."""
CONNECT_SECONDS = 10.0
ADDRESSES_LIMIT = 4
"""Of one name, tried one after the other."""
ANY_PORT = 9

LookUp = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a name; OSError when it has none."""


class Closed(Exception):
    """A name stands for an address that no sandbox may reach."""


class Unreachable(Exception):
    """It may be reached, and cannot be. The message is a sentence without the host."""


class Outside:
    """Connects to names."""

    def __init__(self, look_up: LookUp | None = None, is_open: Callable[[str], bool] | None = None) -> None:
        """`is_open` says whether sandboxes may reach an address."""
        self._threads = ThreadPoolExecutor(LOOK_UPS_LIMIT, thread_name_prefix="look-up")
        self._look_up = look_up or self._ask_system
        self._is_open = is_open or (lambda address: is_public(address) and not is_own(address))

    async def connect(self, host: str, port: int) -> SocketStream:
        """Raises Closed and Unreachable."""
        for address in await self.addresses(host):
            try:
                with anyio.fail_after(CONNECT_SECONDS):
                    return await anyio.connect_tcp(address, port)
            except OSError:  # TimeoutError is one
                continue
        raise Unreachable("does not answer")

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
        return found[:ADDRESSES_LIMIT]

    async def _ask_system(self, name: str) -> list[str]:
        def ask() -> list[str]:
            return [str(place[0]) for *_, place in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]

        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)


def is_own(address: str) -> bool:
    """Whether it is this machine's: what leaves for it would leave from it. Nothing is sent."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, ANY_PORT))
        except OSError:
            return False
        return str(probe.getsockname()[0]) == address
