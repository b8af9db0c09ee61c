"""What `errand doctor` shows a line of."""

from __future__ import annotations

from msgspec import Struct


class Check(Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    status: str
    """`ok`, `warn` or `fail`."""
    text: str
    """What was found, and what to do where it is not ok."""
