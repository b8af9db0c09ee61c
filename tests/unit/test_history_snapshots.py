"""When a copy is made, and when the last one is good enough."""

from __future__ import annotations

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from services.history.snapshots import COST_SHARE, Snapshots

pytestmark = pytest.mark.anyio


class Writer:
    """Counts the copies that are taken of it, each of which takes a second."""

    def __init__(self) -> None:
        self.sequence = 10
        self.copies = 0
        self.seconds = 0.0

    async def copy(self, _: Path) -> int:
        self.copies += 1
        await anyio.lowlevel.checkpoint()
        self.seconds += 1
        return self.sequence

    def now(self) -> float:
        return self.seconds

    def snapshots(self) -> Snapshots:
        return Snapshots(Path("unused"), self.copy, self.now)


async def test_a_copy_serves_as_long_as_nothing_happened() -> None:
    writer = Writer()
    snapshots = writer.snapshots()
    for _ in range(3):
        await snapshots.reach(0, writer.sequence)
        writer.seconds += 3600
    assert writer.copies == 1


async def test_a_copy_of_the_past_serves_as_long_as_it_was_worth() -> None:
    writer = Writer()
    snapshots = writer.snapshots()
    await snapshots.reach(0, writer.sequence)
    writer.sequence += 1
    writer.seconds += 0.9 / COST_SHARE
    await snapshots.reach(0, writer.sequence)
    assert writer.copies == 1
    writer.seconds += 0.2 / COST_SHARE
    await snapshots.reach(0, writer.sequence)
    assert writer.copies == 2


async def test_whoever_must_see_more_gets_a_new_copy_at_once() -> None:
    writer = Writer()
    snapshots = writer.snapshots()
    await snapshots.reach(10, writer.sequence)
    writer.sequence += 1
    await snapshots.reach(11, writer.sequence)
    assert writer.copies == 2


async def test_many_who_ask_at_once_share_one_copy() -> None:
    writer = Writer()
    snapshots = writer.snapshots()
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(snapshots.reach, 10, 10)
    assert writer.copies == 1
