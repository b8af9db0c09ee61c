"""Which hosts git may be led to: the owner's tasks to any, other users' to public addresses alone (CWE-918), at the
very addresses that were looked at."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import anyio

from protocol.repo import HOST, normal_host
from services.bus import Refused
from services.config import WrongSetting
from services.repos.address import DEFAULT_PORTS, Address

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


async def look_up(name: str) -> list[str]:
    with anyio.fail_after(LOOK_UP_SECONDS):
        found = await anyio.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for *_, place in found))


class Reach:
    """What tasks may reach of the network."""

    def __init__(self, internal_hosts: str, look_up: LookUp = look_up) -> None:
        """`internal_hosts` is the setting ERRAND_INTERNAL_HOSTS; WrongSetting when it has what is no host."""
        self._allowed = allowed_hosts(internal_hosts)
        self._look_up = look_up

    async def addresses(self, address: Address) -> tuple[str, ...]:
        """The IP addresses that git is to use, none when it may look them up itself. Refused where one of them is not
        public: always in the same words, whatever is or is not there."""
        if address.for_owner or address.host in self._allowed:
            return ()
        found = await self._find(address)
        if not found or not all(is_public(one) for one in found):
            raise Refused(
                f"Errand cannot use {address.host} for you: it has no public address. "
                f"The owner can allow it (ERRAND_INTERNAL_HOSTS)."
            )
        return tuple(found)

    async def _find(self, address: Address) -> Sequence[str]:
        name = host_name(address)
        if is_ip(name):
            return [name]
        if NUMBER.fullmatch(name):
            return []
        try:
            return await self._look_up(name)
        except OSError as error:
            if isinstance(error, TimeoutError) or error.errno == socket.EAI_AGAIN:
                raise Refused(f"{address.host} cannot be looked up right now.", "unavailable") from None
            return []


def allowed_hosts(setting: str) -> frozenset[str]:
    """As `Address.host` has them; plain http at its own port is meant too."""
    try:
        hosts = [normal_host(part) for part in setting.split(",") if part.strip()]
    except ValueError as error:
        raise WrongSetting(f"ERRAND_INTERNAL_HOSTS: {error}") from None
    return frozenset(hosts) | {f"{host}:80" for host in hosts if _match(host)["port"] is None}


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


def host_name(address: Address) -> str:
    """Without a port and without brackets."""
    return _match(address.host)["name"].strip("[]")


def http_settings(address: Address, addresses: Sequence[str]) -> dict[str, str]:
    """git's settings that keep it at `addresses`."""
    settings = {} if address.for_owner else {"http.followRedirects": "false"}
    if addresses:
        # A proxy would look the name up once more.
        settings["http.proxy"] = ""
    if addresses and not is_ip(host_name(address)):
        port = _match(address.host)["port"] or DEFAULT_PORTS[address.scheme]
        settings["http.curloptResolve"] = f"{host_name(address)}:{port}:{','.join(addresses)}"
    return settings


def ssh_options(address: Address, addresses: Sequence[str]) -> tuple[str, ...]:
    """ssh's options that keep it at the first of `addresses`; the host's key stays known by the host's name."""
    if not addresses:
        return ()
    port = _match(address.host)["port"]
    alias = f"[{host_name(address)}]:{port}" if port else host_name(address)
    return f"HostName={addresses[0]}", f"HostKeyAlias={alias}"


def _match(host: str) -> re.Match[str]:
    match = HOST.fullmatch(host)
    assert match is not None, "normal_host made it"
    return match
