"""Identifiers are made by us, `[a-z0-9_]` only, never taken from a client's string: they are tokens of subjects."""

from __future__ import annotations

import base64
import hashlib
import re

OWNER = "owner"
"""The user id of the installation's owner."""
TOKEN = re.compile(r"[a-z0-9_]{1,64}")
"""What may stand between two dots of a subject."""
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
"""What a queue or a label of a runner may be called."""
KEY_LIMIT_BYTES = 200
"""The longest idempotency key."""


def _digest(prefix: str, *parts: str, length: int = 16) -> str:
    # A separator that no part can contain keeps ("a", "bc") and ("ab", "c") apart.
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=20).digest()
    return prefix + base64.b32encode(digest).decode().lower()[:length]


def task_id(user: str, key: str) -> str:
    """The task that `user` means by the idempotency key `key`: the same pair gives the same task for ever."""
    return _digest("t", user, key)


def user_id(name: str) -> str:
    """The id of a further user, from the name the owner gave."""
    return _digest("u", name)


def schedule_id(user: str, key: str) -> str:
    """The schedule that `user` means by the idempotency key `key`."""
    return _digest("s", user, key)


def token_hash(token: str) -> str:
    """What is stored of a device's token or of a sign-in code. They have 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_token(text: str) -> bool:
    return TOKEN.fullmatch(text) is not None


def is_name(text: str) -> bool:
    return NAME.fullmatch(text) is not None
