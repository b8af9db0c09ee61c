"""Which hosts a sandbox may reach: pure, by names alone. An address is never named: what a name stands for is looked up
outside of the sandbox, and looked at, by `outside.py`."""

from __future__ import annotations

import re

from msgspec import Struct

from protocol.addresses import NUMBER

SETTING = "ERRAND_SANDBOX_EGRESS"
REGISTRIES_SETTING = "ERRAND_SANDBOX_REGISTRIES"
REGISTRIES = "registries"
"""The word for the package registries that projects here use."""
HTTPS_PORT = 443
LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
HOST = re.compile(rf"{LABEL}(?:\.{LABEL})+")
"""In ASCII, as names travel; one without a dot is a name of somebody's own network."""
HOST_LIMIT_CHARS = 253
SHOWN_HOST_CHARS = 100
ALLOWED_LIMIT = 500
"""Hosts of one list."""


class Allowed(Struct, frozen=True):
    """One entry of a list, as it is compared."""

    host: str
    """In its normal form; where `below`, the name that others end with."""
    port: int
    below: bool = False
    """`*.example.com`: every name below it, itself not."""

    def covers(self, host: str, port: int) -> bool:
        return port == self.port and self.covers_name(host)

    def covers_name(self, host: str) -> bool:
        return host.endswith("." + self.host) if self.below else host == self.host


class Refusal(Struct, frozen=True):
    """What a sandbox was not let to."""

    host: str
    """Printable and of a bounded length, whatever was asked for."""
    port: int
    reason: str
    """A sentence for the user and the model that says what can be done; one line of ASCII."""


class Egress(Struct, frozen=True, kw_only=True):
    """What a sandbox may reach of the network; by default nothing."""

    words: tuple[str, ...] = ()
    """As the owner wrote them."""
    allowed: tuple[Allowed, ...] = ()
    connections: int = 64
    """Of one sandbox at once; the next one waits until one of them ends."""
    idle_seconds: float = 120.0
    """After so long without a byte either way a connection is closed."""
    header_bytes: int = 32 * 1024
    """Of a request; the whole line and all headers."""


def parse(text: str, registries: str = "") -> tuple[tuple[str, ...], tuple[Allowed, ...]]:
    """The words of a setting and what they stand for, `registries` for all of that list. ValueError with a sentence."""
    words = words_of(text)
    known = tuple(entry(word) for word in words_of(registries))
    if REGISTRIES in words and not known:
        raise ValueError(f"{REGISTRIES} stands for nothing: name the hosts of your registries in {REGISTRIES_SETTING}")
    allowed = tuple(dict.fromkeys(one for word in words for one in (known if word == REGISTRIES else (entry(word),))))
    if len(allowed) > ALLOWED_LIMIT:
        raise ValueError(f"{len(allowed)} hosts are more than the limit of {ALLOWED_LIMIT}")
    return words, allowed


def words_of(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in re.split(r"[\s,]+", text.lower()) if word))


def entry(text: str) -> Allowed:
    name, colon, port = text.partition(":")
    below = name.startswith("*.")
    host = normal_host(name.removeprefix("*."))
    if host is None:
        raise ValueError(
            f"{shown(text)} is no host to allow: give names such as example.com, example.com:8443 (without a port: "
            f"{HTTPS_PORT}), *.example.com, {REGISTRIES}; never an address"
        )
    number = normal_port(port) if colon else HTTPS_PORT
    if number is None:
        raise ValueError(f"{shown(text)} has no port from 1 to 65535")
    return Allowed(host=host, port=number, below=below)


def normal_host(text: str) -> str | None:
    """A name as it is compared and looked up; None for an address and for all that is no name."""
    host = text.lower().removesuffix(".")
    if len(host) > HOST_LIMIT_CHARS or not HOST.fullmatch(host) or NUMBER.fullmatch(host):
        return None
    return host


def normal_port(text: str) -> int | None:
    port = int(text) if re.fullmatch(r"[0-9]{1,5}", text) else 0
    return port if 0 < port < 65536 else None


def refusal(host: str, port: int, allowed: tuple[Allowed, ...]) -> Refusal | None:
    """None when `allowed` has it. `host` is as it was asked for."""
    name = normal_host(host)
    if name is None:
        return refused(host, port, "is no host name: addresses are never allowed, nor names of a private network")
    if any(entry.covers(name, port) for entry in allowed):
        return None
    known = any(entry.covers_name(name) for entry in allowed)
    what = "at this port is not" if known else "is not"
    can = f"the owner can add {place(name, port)} to {SETTING}"
    return refused(name, port, f"{what} among the hosts that tasks may reach; {can}")


def refused(host: str, port: int, why: str) -> Refusal:
    return Refusal(host=shown(host), port=port, reason=f"{place(shown(host), port)} {why}")


def place(host: str, port: int) -> str:
    """As an entry of the list is written."""
    return host if port == HTTPS_PORT else f"{host}:{port}"


def shown(host: str) -> str:
    """For people: visible ASCII, not too long."""
    text = "".join(one if "!" <= one <= "~" else "?" for one in host[: SHOWN_HOST_CHARS + 1])
    return text if len(text) <= SHOWN_HOST_CHARS else f"{text[:SHOWN_HOST_CHARS]}..."
