"""Signing a device in: a one-time code is exchanged for a token, and how links with such codes are made."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import IPv6Address, ip_address

from msgspec import Struct

from gateway import checks
from gateway.errors import Problem
from gateway.users import Users
from protocol.ids import token_hash
from protocol.task import ReceiptStatus
from protocol.user import CreateSignInCode, RedeemSignInCode
from services.bus import Unavailable

CODE_LIFE = timedelta(hours=24)
PEERS_LIMIT = 10_000
"""Peers whose attempts are counted; the one not seen for longest is forgotten first."""
PEER_CHARS = 64
WINDOW_SECONDS = 60.0
USED_UP = "This sign-in link was used already or has expired: ask for a new one."


class SignedInDevice(Struct, frozen=True):
    """What a device needs from now on."""

    user: str
    name: str
    role: str
    device: str
    token: str
    """Shown this once; the server keeps its hash."""


class SignInLink(Struct, frozen=True):
    user: str
    link: str
    """Good for one device; the code is in the fragment, which browsers send to no server."""
    expires_at: datetime
    qr: str = ""
    """Where it was asked for: the link as a QR code, a `data:` URL of an SVG."""


class Limiter:
    """So many attempts a minute and peer."""

    def __init__(self, attempts: int, now: Callable[[], float] = time.monotonic) -> None:
        self._attempts = attempts
        self._now = now
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(self, peer: str) -> bool:
        """Count an attempt; False when it is one too many."""
        network, now = _network(peer), self._now()
        start, count = self._windows.pop(network, (now, 0))
        if now - start >= WINDOW_SECONDS:
            start, count = now, 0
        self._windows[network] = (start, count + 1)
        if len(self._windows) > PEERS_LIMIT:
            self._windows.popitem(last=False)
        return count < self._attempts


def _network(peer: str) -> str:
    """One customer has a whole /64 of IPv6 addresses, and one IPv4 address, however the socket writes it."""
    try:
        address = ip_address(peer)
    except ValueError:
        return peer[:PEER_CHARS]
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(int(address) >> 64)
    return str(address.ipv4_mapped if isinstance(address, IPv6Address) else address)


class Door:
    """Where devices are signed in."""

    def __init__(self, users: Users, url: str, attempts: int) -> None:
        self._users = users
        self._url = url
        self._limiter = Limiter(attempts)
        self._unanswered: dict[str, tuple[str, RedeemSignInCode, str]] = {}
        """By the code's hash: user, command and token of an exchange whose receipt did not come in time. The same code
        asks for the same again, instead of finding itself used up."""

    async def exchange(self, code: str, device_name: str, peer: str) -> SignedInDevice:
        """A token for a new device. Raises Problem and Unavailable."""
        if not self._limiter.take(peer):
            raise Problem(429, "Too many attempts to sign in: wait a minute and try again.")
        checks.name(device_name, "device_name")
        code_hash = token_hash(code)
        user, command, token = self._unanswered.pop(code_hash, None) or await self._new(code_hash, device_name)
        try:
            receipt = await self._users.command(user, command)
        except Unavailable:
            if len(self._unanswered) < PEERS_LIMIT:
                self._unanswered[code_hash] = (user, command, token)
            raise
        if receipt.status is not ReceiptStatus.CONSUMED:
            raise Problem(401, receipt.reason)
        known = self._users.get(user)
        assert known is not None
        return SignedInDevice(user, known.name, known.role, command.device, token)

    async def _new(self, code_hash: str, device_name: str) -> tuple[str, RedeemSignInCode, str]:
        if self._users.by_code(code_hash) is None:
            await self._users.catch_up()  # the code may be younger than what we have folded
        user = self._users.by_code(code_hash)
        if user is None or user.codes[code_hash] <= datetime.now(UTC):
            raise Problem(401, USED_UP)
        token = secrets.token_urlsafe(32)
        command = RedeemSignInCode(
            key=f"redeem-{secrets.token_hex(16)}",
            code_hash=code_hash,
            device=f"d{secrets.token_hex(8)}",
            device_name=device_name.strip(),
            token_hash=token_hash(token),
        )
        return user.id, command, token

    async def link(self, user: str) -> SignInLink:
        """A new link for a user. Raises Problem and Unavailable."""
        code = f"{user}.{secrets.token_urlsafe(32)}"
        expires_at = datetime.now(UTC) + CODE_LIFE
        command = CreateSignInCode(
            key=f"code-{secrets.token_hex(16)}", code_hash=token_hash(code), expires_at=expires_at
        )
        receipt = await self._users.command(user, command)
        if receipt.status is not ReceiptStatus.CONSUMED:
            raise Problem(422, receipt.reason)
        return SignInLink(user, f"{self._url}/#code={code}", expires_at)
