"""A log that is folded again while its reader goes on, and from a replica that is behind."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from protocol.base import encode
from services.bus import Stored
from services.scheduler.actors import TaskActor
from services.scheduler.commits import Commits
from tests.simulation.clockwork import VirtualLoop
from tests.unit.desk import NOW, Desk

DECISIONS = Desk().submit().claim().decisions
STORED = [Stored(f"evt.owner.t1.task.{d.state}", n, encode(d), NOW) for n, d in enumerate(DECISIONS, 1)]


class Overtaken:
    """A bus whose first answer is older than what the reader brings while it is on its way."""

    def __init__(self, stored: list[Stored], actor: TaskActor) -> None:
        self.stored = stored
        self.actor = actor
        self.asked = 0

    async def replay(self, log: str) -> list[Stored]:
        self.asked += 1
        if self.asked > 1:
            return self.stored
        self.actor.fold(self.stored[-1])
        return self.stored[:-1]


class Behind:
    """A bus of several replicas, of which the first `behind` that answer lack the last decision."""

    def __init__(self, behind: float) -> None:
        self.behind = behind
        self.asked = 0

    async def replay(self, log: str) -> list[Stored]:
        self.asked += 1
        return STORED[:-1] if self.asked <= self.behind else STORED


def fold_again(actor: TaskActor, bus: Any) -> None:
    commits = Commits(bus, election=None, archivist=None, changed=lambda _: None)  # type: ignore[arg-type]
    anyio.run(commits.fold_again, actor, backend_options={"loop_factory": VirtualLoop})


def test_what_the_reader_brought_meanwhile_is_not_forgotten() -> None:
    actor = TaskActor("owner", "t1")
    fold_again(actor, Overtaken(STORED, actor))
    assert (actor.sequence, actor.task.attempt) == (2, 1)


@pytest.mark.parametrize(
    ("behind", "sequence", "why"),
    [
        (3, 2, "the reader brings nothing twice: what is forgotten here would be left out of all that comes"),
        (float("inf"), 1, "somebody took it out of the log by hand"),
    ],
)
def test_a_replica_that_is_behind_takes_back_nothing(behind: float, sequence: int, why: str) -> None:
    actor = TaskActor("owner", "t1")
    for stored in STORED:
        actor.fold(stored)
    fold_again(actor, Behind(behind))
    assert actor.sequence == sequence, why
