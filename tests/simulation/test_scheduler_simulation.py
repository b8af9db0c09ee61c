"""The task actors in a storm, thousands of times: nothing is lost, repeated or contradicted. A seed replays its run.

`ERRAND_SEED=<n>` plays that seed, with `ERRAND_SEEDS=<n>` so many from there on.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import anyio
import pytest
import structlog

from protocol.task import AttemptClaimed, AttemptEnded, TaskSubmitted, decode_decision
from services.bus import Stored
from tests.simulation.clockwork import VirtualLoop
from tests.simulation.log_checks import check_log, check_user_log
from tests.simulation.world import RUNNING_PER_USER, World

FIRST = int(os.environ.get("ERRAND_SEED", "0"))
COUNT = int(os.environ.get("ERRAND_SEEDS", "1" if "ERRAND_SEED" in os.environ else "2000"))
PORTION = 50


def drop(*_: object) -> str:
    raise structlog.DropEvent


def play(seed: int) -> World:
    # The services would log each fault: hundreds of thousands of lines.
    structlog.configure(processors=[drop])
    try:
        world = World(seed)
        anyio.run(world.play, backend_options={"loop_factory": VirtualLoop})
        return world
    finally:
        structlog.reset_defaults()


def failures(seeds: range) -> list[str]:
    """What went wrong, a text a seed; runs in a process of its own."""
    found = []
    for seed in seeds:
        try:
            world = play(seed)
            for task in world.users:
                check(world, world.log(task), task)
            check_slots(world)
            check_users(world)
        except Exception:
            found.append(f"ERRAND_SEED={seed}\n{traceback.format_exc()}")
    return found


@pytest.mark.timeout(900)
def test_nothing_is_lost_repeated_or_contradicted_in_a_storm() -> None:
    portions = [range(first, min(first + PORTION, FIRST + COUNT)) for first in range(FIRST, FIRST + COUNT, PORTION)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        found = [text for texts in processes.map(failures, portions) for text in texts]
    assert not found, f"{len(found)} of {COUNT} seeds failed, the first: {found[0]}"


def test_a_seed_plays_the_same_run_again() -> None:
    def trace(seed: int) -> list[tuple[str, int]]:
        return [(stored.subject, stored.sequence) for stored in play(seed).server.messages]

    assert trace(FIRST + 1) == trace(FIRST + 1)


def check(world: World, log: list[Stored], task: str) -> None:
    check_log(log, world.sent.get(task, set()))
    assert not world.server.buried


def check_users(world: World) -> None:
    for user, told in world.server.told.items():
        check_user_log(user, told, world.server.find(f"evt.{user}.user.>"))


def check_slots(world: World) -> None:
    """A slot is given to who fits it, and no user has more than the limit."""
    held: Counter[str] = Counter()
    places: dict[str, tuple[str, tuple[str, ...]]] = {}
    decisions = [(stored, task) for task in world.users for stored in world.log(task) if ".task." in stored.subject]
    for stored, task in sorted(decisions, key=lambda each: each[0].sequence):
        for event in decode_decision(stored.data).events:
            match event:
                case TaskSubmitted():
                    places[task] = event.queue, event.labels
                case AttemptClaimed():
                    queue, labels = places[task]
                    assert set(labels) <= set(event.labels)
                    assert (queue == "gpu") == ("gpu" in event.labels)
                    held[world.users[task]] += 1
                    assert held[world.users[task]] <= RUNNING_PER_USER
                case AttemptEnded():
                    held[world.users[task]] -= 1
                case _:
                    pass
