"""Where the gateway listens, where people reach it, and what works there. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

ANY = ("0.0.0.0", "::")
"""All addresses of the machine."""
PAGE = "docs/reaching.md"
PRIVATE = (".local", ".internal", ".home.arpa")
"""What RFC 6762, RFC 8375 and ICANN keep out of the public DNS."""
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z_.-]+)(?::[0-9]{1,5})?")
PUBLIC_URL = r"^(https?://[^/?#@\s]+/?)?$"
PublicUrl = Annotated[
    str,
    Meta(
        pattern=PUBLIC_URL,
        description="an address that begins with https:// or http:// and ends with a host or a port",
        examples=["https://errand.example.org"],
    ),
]


def is_loopback(host: str) -> bool:
    """Whether a host, as a URL has it without brackets, is the machine itself: what browsers hold for secure also
    without HTTPS."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    return is_ip(host) and ip_address(host).is_loopback


def is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_secure(url: str) -> bool:
    """Whether a page at this address is a secure context: service workers, installing and push need one."""
    parts = urlsplit(url)
    return parts.scheme == "https" or is_loopback(parts.hostname or "")


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local_url(bind: str, port: int) -> str:
    """Where this machine itself reaches the gateway."""
    return url_of({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind), port)


def refusal(bind: str, public_url: str, *, allow_http: bool) -> str:
    """Why the gateway does not listen there; empty where it does.

    Where people reach it must be HTTPS, of which a server before the gateway takes care, or this machine itself, unless
    the operator says otherwise.
    """
    if not re.fullmatch(PUBLIC_URL, public_url):
        return f"{public_url} is no address of a server: it looks like https://errand.example.org (--public-url)."
    if bind != "localhost" and not is_ip(bind):
        return f"{bind} is no address to listen on: give an IP address of this machine, or 0.0.0.0 for all of them."
    if allow_http or is_secure(public_url or url_of(bind, 0)):
        return ""
    return (
        f"People would reach {public_url or bind} by plain HTTP, and whoever is on the way could take their sign-in "
        "over. Choose: put a server that speaks TLS before it and name its address (--public-url, "
        "ERRAND_PUBLIC_URL=https://…); or leave it on 127.0.0.1 and reach it by a tunnel; or, on a network that you "
        f"trust, say --allow-http (ERRAND_ALLOW_HTTP=1). {PAGE} has each."
    )


def what_works(url: str) -> str:
    """For who starts the server: who reaches it at this address, and what does not work there."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return f"Phones reach it at {url}; `errand doctor` checks the way there."
    if is_loopback(parts.hostname or ""):
        return (
            "Only this machine reaches it. For a phone: a server that speaks TLS before it (`tailscale serve`, Caddy, "
            f"nginx) and --public-url, or --bind 0.0.0.0 --allow-http on a network that you trust ({PAGE})."
        )
    return (
        f"Phones on this network reach it at {url}, unencrypted. Notifications and installing the page need HTTPS "
        f"({PAGE})."
    )


def is_own_name(host: str, public_url: str, names: str) -> bool:
    """Whether a request's `Host` can be meant for us.

    Against DNS rebinding (CWE-350): a page of another site whose name was turned to our address comes with that name.
    Nobody can do so with an address, nor with a name that the public DNS does not have: a single word, `.local` and
    the like. Others the operator names: the public URL's, and `names`, separated by commas.
    """
    match = HOST.fullmatch(host)
    name = match["name"].strip("[]").lower() if match else ""
    if is_ip(name) or is_loopback(name) or (name and "." not in name) or name.endswith(PRIVATE):
        return True
    known = {urlsplit(public_url).hostname, *(part.strip().lower() for part in names.split(","))}
    return name in known - {""}
