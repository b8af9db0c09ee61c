"""What `errand doctor` is told."""

from __future__ import annotations

from msgspec import Struct


class Check(Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    status: str
    """`ok`, `warn` or `fail`."""
    text: str
