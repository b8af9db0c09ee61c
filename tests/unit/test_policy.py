"""Which task a free slot gets."""

from __future__ import annotations

from datetime import timedelta

from protocol.evolve import Task
from services.scheduler.policy import choose
from tests.unit.desk import NOW


def test_the_slot_goes_to_the_user_with_the_fewest_running_and_to_nobody_over_the_limit() -> None:
    def queued(name: str, user: str, seconds: int, queue: str = "default") -> Task:
        return Task(id=name, user=user, queue=queue, queued_at=NOW + timedelta(seconds=seconds))

    tasks = [queued("a", "ann", 1), queued("b", "bob", 2), queued("c", "bob", 0), queued("g", "ann", 0, "gpu")]
    cases = [
        ("the one that waits longest", {}, 4, "default", "c"),
        ("the user with fewer running first", {"bob": 1}, 4, "default", "a"),
        ("nobody over the limit", {"bob": 2, "ann": 2}, 2, "default", None),
        ("only of its own queue", {}, 4, "gpu", "g"),
        ("nothing of a queue without tasks", {}, 4, "arm64", None),
    ]
    for why, running, limit, queue, expected in cases:
        chosen = choose(tasks, running, queue=queue, running_per_user=limit)
        assert (chosen.id if chosen else None) == expected, why
