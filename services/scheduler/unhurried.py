"""A look at very many things, each of which takes microseconds, during which others have their turn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

import anyio.lowlevel

T = TypeVar("T")
AT_ONCE = 1_000
"""Some milliseconds' worth."""


async def unhurried(things: Iterable[T]) -> AsyncIterator[T]:
    for number, thing in enumerate(things):
        if number % AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
        yield thing
