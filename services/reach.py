"""The public addresses of a host: what others than the owner name may lead the server nowhere else (CWE-918)."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence

import anyio

from protocol.addresses import NUMBER, is_ip, is_public

LOOK_UP_SECONDS = 3.0
LookUp = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a host name; OSError when it has none."""


class NotLookedUp(Exception):
    """The name could not be looked up now: it says nothing about the name."""


async def look_up(name: str) -> list[str]:
    with anyio.fail_after(LOOK_UP_SECONDS):
        found = await anyio.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


async def public_addresses(name: str, look_up: LookUp = look_up) -> tuple[str, ...]:
    """The IP addresses of a host, without port and brackets; none unless all of them are public. Raises NotLookedUp.

    Whoever connects takes these very addresses: a name that is looked up twice may have others the second time.
    """
    found = await _find(name, look_up)
    return tuple(found) if all(is_public(one) for one in found) else ()


async def _find(name: str, look_up: LookUp) -> Sequence[str]:
    if is_ip(name):
        return [name]
    if NUMBER.fullmatch(name):
        return []
    try:
        return await look_up(name)
    except OSError as error:
        if isinstance(error, TimeoutError) or error.errno == socket.EAI_AGAIN:
            raise NotLookedUp(name) from None
        return []
