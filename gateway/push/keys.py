"""The keys of push: one signs what is sent, for the push services to know us by; one opens the sealed subscriptions."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from services import envelope
from services.secrets_file import make_secret


class Keys(Struct, frozen=True):
    """As the file has them. All gateways of an installation have the same: a browser's subscription is bound to it."""

    vapid: str
    """P-256 private key, 32 bytes, base64url (RFC 8292)."""
    sealing: str
    """X25519 private key, 32 bytes, base64."""

    def __repr__(self) -> str:
        return "Keys(…)"


def load(path: Path) -> Keys:
    """The keys in `path`, made at the first use. Raises OSError, also for a file that is something else."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = path.read_text() if path.exists() else make_secret(path, _new())
    try:
        return msgspec.json.decode(text, type=Keys)
    except msgspec.DecodeError:
        raise OSError(f"{path} is broken: remove it, and every device turns notifications on again") from None


def _new() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec
    from py_vapid.utils import b64urlencode

    number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    keys = Keys(vapid=b64urlencode(number.to_bytes(32, "big")), sealing=envelope.make_key())
    return msgspec.json.encode(keys).decode()
