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

from protocol.journal import StepFinished, StepStarted, decode_entry
from protocol.task import (
    AttemptClaimed,
    AttemptEnded,
    Decision,
    ReceiptStatus,
    TaskSubmitted,
    TurnEnded,
    TurnOpened,
    decode_decision,
    is_of_a_runner,
)
from services.bus import Stored
from tests.simulation.clockwork import VirtualLoop
from tests.simulation.world import RUNNING_PER_USER, World

FIRST = int(os.environ.get("ERRAND_SEED", "0"))
COUNT = int(os.environ.get("ERRAND_SEEDS", "1" if "ERRAND_SEED" in os.environ else "2000"))
PORTION = 50


def _drop(*_: object) -> str:
    raise structlog.DropEvent


def play(seed: int) -> World:
    # The services would log each fault: hundreds of thousands of lines.
    structlog.configure(processors=[_drop])
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
    decisions = [(s, decode_decision(s.data)) for s in log if ".task." in s.subject]
    check_chain(decisions)
    check_receipts(world, [decision for _, decision in decisions], task)
    check_turns([decision for _, decision in decisions])
    check_attempts(log)
    check_steps(log)
    assert not world.server.buried


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


def check_chain(decisions: list[tuple[Stored, Decision]]) -> None:
    """A log has one writer: each decision was made over the one before it."""
    last = 0
    for stored, decision in decisions:
        assert decision.state == stored.subject.rpartition(".")[2]
        if not decision.journal_sequence or stored.previous == last:
            assert stored.previous == last, f"{stored.subject} at {stored.sequence} was decided over an old state"
        last = stored.sequence


def check_receipts(world: World, decisions: list[Decision], task: str) -> None:
    """Each command that was acknowledged has exactly one receipt, and they come in the commands' order."""
    receipts = [decision.receipt for decision in decisions if decision.receipt]
    users = Counter(receipt.key for receipt in receipts if not is_of_a_runner(receipt.key))
    assert max(users.values(), default=1) == 1, users
    assert world.sent.get(task, set()) <= set(users)
    done = Counter(receipt.key for receipt in receipts if receipt.status is ReceiptStatus.CONSUMED)
    assert max(done.values(), default=1) == 1, done
    answered = [decision.command_sequence for decision in decisions if decision.command_sequence]
    assert answered == sorted(answered)


def check_turns(decisions: list[Decision]) -> None:
    """Each turn ends exactly once, and the next opens after that."""
    open_turn, ended = 0, 0
    for event in (event for decision in decisions for event in decision.events):
        match event:
            case TaskSubmitted():
                assert (open_turn, ended) == (0, 0)
                open_turn = 1
            case TurnOpened(turn=turn):
                assert (open_turn, ended) == (0, turn - 1)
                open_turn = turn
            case TurnEnded(turn=turn):
                assert turn == open_turn
                open_turn, ended = 0, turn
            case _:
                pass
    assert open_turn == 0


def check_attempts(log: list[Stored]) -> None:
    """Attempts count up, one at a time, and whoever holds none writes nothing."""
    held, last = 0, 0
    for stored in log:
        if ".journal." in stored.subject:
            assert decode_entry(stored.data).attempt == held, f"{stored.subject} at {stored.sequence}: a stale write"
            continue
        for event in decode_decision(stored.data).events:
            match event:
                case AttemptClaimed(attempt=attempt):
                    assert (held, attempt) == (0, last + 1)
                    held = last = attempt
                case AttemptEnded(attempt=attempt):
                    assert attempt == held
                    held = 0
                case _:
                    pass
    assert held == 0


def check_steps(log: list[Stored]) -> None:
    """Steps count up, and each has at most one outcome; the last turn's have exactly one, or were cut off."""
    started, finished = [], []
    for entry in (decode_entry(stored.data) for stored in log if ".journal." in stored.subject):
        match entry.event:
            case StepStarted(step=step):
                started.append(step)
            case StepFinished(step=step):
                finished.append(step)
            case _:
                pass
    assert started == list(range(1, len(started) + 1))
    assert max(Counter(finished).values(), default=1) == 1
    assert set(finished) <= set(started)
