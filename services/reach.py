"""Whether an address on the network is public: what others than the owner name may lead the server nowhere else
(CWE-918)."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import anyio

LOOK_UP_SECONDS = 3.0
UNICAST = IPv6Network("2000::/3")
"""What of IPv6 is given out at all, RFC 4291."""
TUNNELS = (IPv6Network("2001::/32"), IPv6Network("2002::/16"))
"""Teredo and 6to4: an IPv4 address that somebody else sends on to."""
TRANSLATED = IPv6Network("64:ff9b::/96")
"""An IPv4 address as networks without IPv4 write it, RFC 6052."""
RELAYS = IPv4Network("192.88.99.0/24")
NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
"""A name that ends like this is an IPv4 address to some readers (`2130706433`, `0177.1`), not the same one to all."""

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


def is_public(text: str) -> bool:
    """Whether an IP address is on the public internet: what stands inside of another one counts."""
    found: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found in TRANSLATED:
            return is_public(str(IPv4Address(int(found) & 0xFFFF_FFFF)))
        # Below ::/3 lie loopback, IPv4-mapped and unspecified addresses, above 2000::/3 what is local.
        return found in UNICAST and found.is_global and not any(found in tunnel for tunnel in TUNNELS)
    return found.is_global and not found.is_multicast and found not in RELAYS


def is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
