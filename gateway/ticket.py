"""A sign-in that is under way elsewhere, as the browser that began it keeps it. Pure.

Nothing waits on the server, so any gateway can finish what another one began, also after a restart. The cookie has a
random number, its end and a signature. What goes out with the browser (the state) and what proves later that it was us
who asked (PKCE's verifier) are both made from the number with a key that gateways alone have: from one of the three
nobody else gets to another. The cookie binds the browser, the state binds the answer to it (RFC 6749, section 10.12).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timedelta

from msgspec import Struct

LIFE = timedelta(minutes=10)
"""GitHub's codes live as long."""
PURPOSE = b"errand sign-in with GitHub 1"


class Ticket(Struct, frozen=True):
    """One pending sign-in."""

    number: str
    ends_at: int
    """Unix seconds."""
    key: bytes

    @property
    def cookie(self) -> str:
        return f"{self.number}.{self.ends_at}.{self._derived('cookie')}"

    @property
    def state(self) -> str:
        return self._derived("state")

    @property
    def verifier(self) -> str:
        """43 characters, as RFC 7636 wants at least."""
        return self._derived("verifier")

    @property
    def name(self) -> str:
        """Under which its use is noted; it gives nothing away."""
        return self._derived("name")

    def _derived(self, what: str) -> str:
        said = f"{what} {self.number} {self.ends_at}".encode()
        return base64.urlsafe_b64encode(hmac.digest(self.key, said, "sha256")).decode().rstrip("=")


def make_key(client_secret: str) -> bytes:
    """The same in every gateway of an installation: all of them have the app's secret."""
    return hmac.digest(client_secret.encode(), PURPOSE, hashlib.sha256)


def issue(key: bytes, number: str, now: datetime) -> Ticket:
    """`number` is random: 128 bits, hexadecimal."""
    return Ticket(number, int((now + LIFE).timestamp()), key)


def read(key: bytes, cookie: str, now: datetime) -> Ticket | None:
    """The ticket that a browser brings back; None when it is not ours, was changed, or has ended."""
    number, _, rest = cookie.partition(".")
    ends_at, _, _ = rest.partition(".")
    if not (ends_at.isascii() and ends_at.isdigit() and len(ends_at) < 12):
        return None
    ticket = Ticket(number, int(ends_at), key)
    if not hmac.compare_digest(ticket.cookie.encode(), cookie.encode()) or now.timestamp() >= ticket.ends_at:
        return None
    return ticket
