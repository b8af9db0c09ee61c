"""Sealed envelopes for credentials (HPKE, RFC 9180): anyone with the public key can close one, the publisher alone can
open it.

The host's name is bound into the envelope, so an envelope made for one host cannot be passed off as another's.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

PURPOSE = "errand host credential 1"
SECRET_LIMIT_BYTES = 16 * 1024
"""The longest token or key."""

# `cryptography` is imported where it is used: most processes that import this never seal anything.


class NotOpened(Exception):
    """The envelope is broken, or was made for another key or another host."""


def make_key() -> str:
    """A new private key, base64. For X25519 any 32 random bytes are one (RFC 7748, section 5)."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def public_key(private: str) -> str:
    """The public key that belongs to a private one, both base64."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def seal(public: str, host: str, secret: str) -> str:
    """Close `secret` into an envelope for `host` (as `protocol.repo.normal_host` writes it); base64. ValueError when it
    is too long."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    plain = secret.encode()
    if not 0 < len(plain) <= SECRET_LIMIT_BYTES:
        raise ValueError(f"A credential has 1 to {SECRET_LIMIT_BYTES} bytes; this one has {len(plain)}.")
    key = X25519PublicKey.from_public_bytes(base64.b64decode(public))
    return base64.b64encode(_suite().encrypt(plain, key, info=_bound_to(host))).decode()


def unseal(private: str, host: str, sealed: str) -> str:
    """Open an envelope that `seal` closed for the same host. Raises NotOpened."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.from_private_bytes(base64.b64decode(private))
    try:
        return _suite().decrypt(base64.b64decode(sealed, validate=True), key, info=_bound_to(host)).decode()
    except (InvalidTag, ValueError, binascii.Error) as error:
        raise NotOpened(host) from error


def _suite() -> Suite:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _bound_to(host: str) -> bytes:
    return f"{PURPOSE}\0{host}".encode()
