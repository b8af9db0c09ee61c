"""A log that is folded again while its reader goes on."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.base import encode
from services.bus import Stored
from services.scheduler.actors import TaskActor
from services.scheduler.commits import Commits
from tests.unit.desk import NOW, Desk

pytestmark = pytest.mark.anyio


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


async def test_what_the_reader_brought_meanwhile_is_not_forgotten() -> None:
    decisions = Desk().submit().claim().decisions
    stored = [Stored(f"evt.owner.t1.task.{d.state}", n, encode(d), NOW) for n, d in enumerate(decisions, 1)]
    actor = TaskActor("owner", "t1")
    bus: Any = Overtaken(stored, actor)
    commits = Commits(bus, election=None, archivist=None, changed=lambda _: None)  # type: ignore[arg-type]
    await commits.fold_again(actor)
    assert (actor.sequence, actor.task.attempt) == (2, 1)
