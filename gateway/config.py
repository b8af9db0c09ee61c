"""The gateway's settings. Each is read from `ERRAND_` and its name in capitals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta

from services.bus import BusConfig
from services.config import Bytes, Count, LogLevel, Seconds
from services.listening import PublicUrl, is_loopback, url_of

CONTACT = Meta(
    pattern=r"^(mailto:[^@\s]+@[^@\s]+|https://[^\s]+)?$",
    description="an address that begins with mailto: or https:",
    examples=["mailto:me@example.org"],
)


class Config(BusConfig, frozen=True, kw_only=True):
    """What a gateway is told."""

    bind: str = "127.0.0.1"
    """Address to listen on. Beyond loopback it needs a public URL with https, or ERRAND_ALLOW_HTTP."""
    port: Annotated[int, Meta(ge=0, le=65535)] = 8420
    """0 takes a free one."""
    public_url: PublicUrl = ""
    """Where people reach this server, such as `https://errand.example.org`; empty: `http://<bind>:<port>`."""
    allow_http: bool = False
    """`1`: listen beyond loopback by plain HTTP. Whoever is on the way can read all and take a sign-in over."""
    trusted_proxies: str = "127.0.0.1,::1"
    """Addresses and networks, separated by commas, whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed:
    attempts to sign in are counted by the peer that they name."""
    hosts: str = ""
    """Further names that the server goes by, separated by commas. Its addresses, the public URL's name and names that
    are not in the public DNS need not be here; what comes by another name is refused."""
    data: str = ""
    """The installation's data folder."""
    push_key_file: str = ""
    """The keys of notifications, the same for all gateways; empty: `<data>/secrets/push.key`. Made when it is missing;
    with another one, every device has to turn notifications on again."""
    push_contact: Annotated[str, CONTACT] = ""
    """Where a push service may complain: `mailto:` or `https:`; empty: the public URL."""
    push_hosts: str = ""
    """Push services, separated by commas, that may be reached by plain HTTP and at addresses that are not public, such
    as one of your own: `push.lan:8080`."""
    push_limit: Count = 10
    """Notifications that one gateway sends one device within a minute; the last of them says that there is more."""
    log_level: LogLevel = "info"
    body_limit_bytes: Bytes = 1024 * 1024
    """The largest REST request."""
    sign_in_attempts: Count = 10
    """How often one peer may try a sign-in code within a minute."""
    sockets_limit: Count = 5_000
    """Live sockets of all users together."""
    user_sockets_limit: Count = 50
    """Live sockets of one user."""
    socket_queue_bytes: Bytes = 1024 * 1024
    """What may wait for one socket. When more would, it is closed and comes back from its cursor."""
    send_seconds: Seconds = 20.0
    """A socket that takes nothing for so long is dropped."""
    repository_cache_seconds: Seconds = 60.0
    """How long a repository that was found is not asked for again."""

    @property
    def url(self) -> str:
        """The public URL, without a slash at its end."""
        return self.public_url.rstrip("/") or url_of(self.bind, self.port)

    @property
    def push_keys(self) -> Path | None:
        if self.push_key_file:
            return Path(self.push_key_file)
        return Path(self.data).expanduser() / "secrets" / "push.key" if self.data else None

    @property
    def contact(self) -> str:
        """For the push services; a server that has no name has none to give."""
        name = urlsplit(self.url).hostname if self.url.startswith("https:") else "localhost"
        return self.push_contact or f"https://{name}"

    def is_secure(self, scheme: str, host: str) -> bool:
        """Whether a page of this address is a secure context, which service workers and push need."""
        return scheme == "https" or self.url.startswith("https:") or is_loopback(host)

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether a browser's `Origin` is ours: the public URL's, or that of the address it asked by (`Host`)."""
        return origin == self.url or urlsplit(origin).netloc == host
