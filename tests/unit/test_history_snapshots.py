"""When a copy is made, and when the last one is good enough."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from services.history.snapshots import COST_SHARE, Snapshots

pytestmark = pytest.mark.anyio


class Writer:
    """Counts the copies that are taken of it."""

    def __init__(self) -> None:
        self.sequence = 10
        self.copies = 0
        self.cost_seconds = 0.0

    async def copy(self, _: Path) -> int:
        self.copies += 1
        await anyio.sleep(self.cost_seconds)
        return self.sequence


async def test_a_copy_serves_until_something_happened() -> None:
    writer = Writer()
    snapshots = Snapshots(Path("x"), writer.copy)
    for _ in range(3):
        await snapshots.reach(0, writer.sequence)
    assert writer.copies == 1
    writer.sequence += 1
    await snapshots.reach(0, writer.sequence)
    assert writer.copies == 2


async def test_a_dear_copy_serves_longer_but_never_one_who_must_see_more() -> None:
    writer = Writer()
    writer.cost_seconds = 0.05
    snapshots = Snapshots(Path("x"), writer.copy)
    await snapshots.reach(0, writer.sequence)
    writer.sequence += 1
    assert writer.cost_seconds / COST_SHARE == 1
    await snapshots.reach(10, writer.sequence)
    assert writer.copies == 1
    await snapshots.reach(11, writer.sequence)
    assert writer.copies == 2


async def test_many_who_ask_at_once_share_one_copy() -> None:
    writer = Writer()
    snapshots = Snapshots(Path("x"), writer.copy)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(snapshots.reach, 10, 10)
    assert writer.copies == 1
