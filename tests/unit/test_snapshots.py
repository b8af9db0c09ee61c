"""A snapshot of another release's folds is passed over; one that is being made holds nobody up."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from msgspec import Struct

from protocol.evolve import Task, User
from protocol.task import TaskState
from services.background import background
from services.scheduler.policy import Rules
from services.scheduler.roster import Roster
from services.scheduler.snapshot_keeper import SnapshotKeeper
from services.scheduler.snapshots import FOLDED
from services.scheduler.unhurried import AT_ONCE
from tests.unit.desk import Desk

COUNT = 5 * AT_ONCE
RULES = Rules(running_per_user=4, running_per_repository=4, running_per_queue=4, priority_seconds=1.0)


def test_a_change_of_whatever_a_state_is_made_of_makes_another_snapshot() -> None:
    parts = {*parts_of(Task, set()), *parts_of(User, set())}
    assert {part.__module__ for part in parts} <= {module.__name__ for module in FOLDED}


def parts_of(kind: Any, seen: set[type[Struct]]) -> Iterator[type[Struct]]:
    """Every Struct in a type, itself too."""
    if isinstance(kind, type) and issubclass(kind, Struct) and kind not in seen:
        seen.add(kind)
        yield kind
        for field in msgspec.structs.fields(kind):
            yield from parts_of(field.type, seen)
    for argument in getattr(kind, "__args__", ()):
        yield from parts_of(argument, seen)


class Wire:
    """Keeps one blob, and tells when."""

    def __init__(self) -> None:
        self.kept = b""
        self.came = anyio.Event()

    async def put_blob(self, name: str, data: io.BytesIO, bucket: str) -> None:
        self.kept = data.getvalue()
        self.came.set()

    async def get_blob(self, name: str, bucket: str) -> bytes:
        return self.kept

    async def purge(self, stream: str, subject: str, *, below: int) -> None: ...


@pytest.mark.anyio
async def test_a_snapshot_of_many_tasks_holds_nobody_up_and_what_comes_meanwhile_is_in_it_or_not() -> None:
    submitted, claimed = Desk().submit().claim().decisions
    wire, before, after, turns = Wire(), Roster(RULES), Roster(RULES), 0
    for number in range(COUNT):
        before.task("owner", f"t{number}").applied(submitted, 1)
    keeper = SnapshotKeeper(wire, before, 1)  # type: ignore[arg-type]
    keeper.taken = COUNT
    keeper.look()
    async with background() as group:
        group.start_soon(keeper.keep)
        while not wire.came.is_set():
            before.task("owner", f"t{turns * AT_ONCE % COUNT}").applied(claimed, 2)
            turns += 1
            await anyio.lowlevel.checkpoint()
    assert turns > COUNT / AT_ONCE, "it has its turns in between"
    again = SnapshotKeeper(wire, after, 1)  # type: ignore[arg-type]
    await again.load()
    assert again.taken == COUNT
    states = {(actor.sequence, actor.task.state, actor.task.attempt) for actor in after.tasks.values()}
    assert states == {(1, TaskState.QUEUED, 0), (2, TaskState.RUNNING, 1)}
    assert len(after.tasks) == COUNT
