"""A user's secrets: given once, kept sealed, and lent to set-ups of the user's own tasks alone."""

from __future__ import annotations

import re
from datetime import datetime

from protocol.base import Part

SECRETS_LIMIT = 30
"""Secrets a user can have: all of them fit into one message."""
LEAST_CHARS = 8
"""A shorter value would be found everywhere by chance, in what a set-up says and leaves."""
LIMIT_BYTES = 8 * 1024
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class Secret(Part, frozen=True):
    """As the user's log has it."""

    name: str
    """Of the variable that the set-up's script finds it in."""
    sealed: str
    """HPKE envelope (RFC 9180) that the publisher alone can open, base64."""
    set_at: datetime
    repository: str = ""
    """The only one whose set-ups get it; empty: all that the user's tasks work on."""


def key_of(name: str, repository: str) -> str:
    """A name may have a value for all repositories and others for some."""
    return f"{name} {repository}"


def bound_to(user: str, name: str, repository: str) -> str:
    """What the envelope is bound to: it opens in no other user's log, under no other name."""
    return f"secret {user} {name} {repository}"


def bound_to_attempt(task: str, attempt: int, name: str) -> str:
    """What the envelope is bound to in which a runner gets it for one set-up."""
    return f"lent secret {task} {attempt} {name}"


def wrong_name(name: str) -> str:
    """What is wrong with it; empty: nothing."""
    if NAME.fullmatch(name):
        return ""
    return "A secret is named as a variable: letters, digits and `_`, at most 64, no digit at first, such as NPM_TOKEN."


def wrong_value(value: str) -> str:
    """What is wrong with it, without a word of it; empty: nothing."""
    size = len(value.encode())
    if "\0" in value:
        return "A secret has no NUL character in it: give text."
    if len(value.strip()) < LEAST_CHARS:
        return f"A secret has at least {LEAST_CHARS} characters: shorter ones could not be kept out of what is shown."
    if size > LIMIT_BYTES:
        return f"A secret has at most {LIMIT_BYTES:,} bytes, and this one has {size:,}."
    return ""
