"""Which queued task a free slot gets. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from protocol.evolve import Task


def choose(queued: Iterable[Task], running: Mapping[str, int], *, queue: str, running_per_user: int) -> Task | None:
    """The next task for a slot of `queue`: of the user with the fewest running tasks the one that waits longest; none
    of a user who has `running_per_user` running. `running` counts the running tasks of each user."""
    waiting = (t for t in queued if t.queue == queue and running.get(t.user, 0) < running_per_user)
    return min(waiting, key=lambda t: (running.get(t.user, 0), t.queued_at, t.id), default=None)
