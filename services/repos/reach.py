"""Which hosts git may be led to: the owner's tasks to any, other users' to public addresses alone (CWE-918), at the
very addresses that were looked at."""

from __future__ import annotations

import re
from collections.abc import Sequence

from protocol.addresses import is_ip
from protocol.repo import HOST, normal_host
from services.bus import Refused
from services.config import WrongSetting
from services.reach import LookUp, NotLookedUp, look_up, public_addresses
from services.repos.address import DEFAULT_PORTS, Address


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
        try:
            found = await public_addresses(host_name(address), self._look_up)
        except NotLookedUp:
            raise Refused(f"{address.host} cannot be looked up right now.", "unavailable") from None
        if not found:
            raise Refused(
                f"Errand cannot use {address.host} for you: it has no public address. "
                f"The owner can allow it (ERRAND_INTERNAL_HOSTS)."
            )
        return found


def allowed_hosts(setting: str) -> frozenset[str]:
    """As `Address.host` has them; plain http at its own port is meant too."""
    try:
        hosts = [normal_host(part) for part in setting.split(",") if part.strip()]
    except ValueError as error:
        raise WrongSetting(f"ERRAND_INTERNAL_HOSTS: {error}") from None
    return frozenset(hosts) | {f"{host}:80" for host in hosts if _match(host)["port"] is None}


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
