"""The scheduler dies at every point between a commit and what follows from it, and another takes over.

A story with everything in it is told once to the end, counting what the scheduler does to the server: commits, timers
set and taken away, snapshots, archives, purges. Then it is told as often as that, and each time the scheduler dies
right after another of these, before it hears that it was done. All points, none drawn: whatever should have followed
is derived again by who comes next, and has its effect once. `ERRAND_SEED=<n>` tells other stories.
"""

from __future__ import annotations

import os
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import anyio
import pytest
import structlog

from protocol.ids import OWNER
from protocol.routes import Service
from protocol.task import decode_decision
from services.archive import archived
from services.scheduler.actors import UserActor
from tests.simulation.clockwork import VirtualClock, VirtualLoop
from tests.simulation.memory import Link, MemoryBus, connect
from tests.simulation.test_scheduler_simulation import check, check_slots, check_users, drop
from tests.simulation.world import World

FIRST = int(os.environ.get("ERRAND_SEED", "0"))
STORIES = range(FIRST, FIRST + 2)
MUST_BE = {
    "commit",
    "schedule",
    "purge timer",
    "purge cmd",
    "purge evt",
    "purge log",
    "put_blob snapshots",
    "put_blob archive",
}
"""What happens in each story."""
PORTIONS = 8


class Story(World):
    """A calm world whose scheduler dies once: right after the server has done the `dies_after`-th thing for it."""

    def __init__(self, seed: int, dies_after: int = 0) -> None:
        super().__init__(seed)
        self.weather.calm = True
        self.dies_after = dies_after
        self.done: list[str] = []
        """What the server did for the schedulers."""

    async def _break_things(self) -> None:
        """Nothing else goes wrong."""

    def unsettled(self) -> list[str]:
        """Also what is archived and still in the stream."""
        left = [f"{task} is not cleared" for task in self.users if not self._is_cleared(task)]
        return [*super().unsettled(), *left, *self._long_log()]

    def _long_log(self) -> list[str]:
        owner = UserActor(OWNER)
        for stored in self.server.find(owner.log):
            owner.fold(stored)
        is_short = owner.is_cleared and owner.routine < self.config.user_log_messages
        return [] if is_short else ["the owner's log is too long"]

    def _is_cleared(self, task: str) -> bool:
        state, log = self.state(task), self.server.find(f"evt.{self.users[task]}.{task}.>")
        first = archived(decode_decision(log[0].data)) if log and ".task." in log[0].subject else None
        return state.archived_at is None or (first is not None and first.archive == state.archive)

    async def _scheduler(self, link: Link) -> None:
        async with connect(self.server, Service.SCHEDULER, self.weather, link) as bus:
            for name in ("commit", "schedule", "purge", "put_blob", "delete_blob"):
                self._watch(bus, name, link)
            await self.make_scheduler(bus, VirtualClock()).run(lambda: None)

    def _watch(self, bus: MemoryBus, name: str, link: Link) -> None:
        """The process of `link` is killed once the server has done what it was asked, before the answer is there."""
        real = getattr(bus, name)

        async def call(*given: Any, **options: Any) -> Any:
            result = await real(*given, **options)
            self.done.append(f"{name} {_object(name, given)}".strip())
            if len(self.done) == self.dies_after:
                next(process for process in self.processes if process.link is link).kill()
                await anyio.sleep_forever()
            return result

        setattr(bus, name, call)


def _object(name: str, given: tuple[Any, ...]) -> str:
    """What it is done to, where several kinds of it are told apart."""
    match name:
        case "purge":
            kind, _, of, *_ = (*str(given[1]).split("."), "", "")
            return "log" if (kind, of) == ("evt", "user") else kind
        case "put_blob" | "delete_blob":
            return str(given[-1])
    return ""


def tell(seed: int, dies_after: int) -> Story:
    structlog.configure(processors=[drop])
    try:
        story = Story(seed, dies_after)
        anyio.run(story.play, backend_options={"loop_factory": VirtualLoop})
        for task in story.users:
            check(story, story.log(task), task)
        check_slots(story)
        check_users(story)
        return story
    finally:
        structlog.reset_defaults()


def failures(seed: int, points: range) -> list[str]:
    """What went wrong, a text a point; runs in a process of its own."""
    found = []
    for point in points:
        try:
            tell(seed, point)
        except Exception:
            found.append(f"ERRAND_SEED={seed}, where the scheduler died at point {point}:\n{traceback.format_exc()}")
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", STORIES)
def test_whatever_follows_from_a_commit_follows_once_wherever_the_scheduler_dies(seed: int) -> None:
    done = tell(seed, dies_after=0).done
    assert set(done) >= MUST_BE, f"the story lacks {MUST_BE - set(done)}"
    portions = [range(1 + first, 1 + len(done), PORTIONS) for first in range(PORTIONS)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        found = [text for texts in processes.map(failures, [seed] * PORTIONS, portions) for text in texts]
    assert not found, f"{len(found)} of {len(done)} points, the first: {found[0]}"
