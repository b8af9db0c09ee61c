"""What a fork starts from: another task of the same user, its work and its story, read by the fork's first attempt."""

from __future__ import annotations

import sys

from msgspec import Struct
from msgspec.structs import replace

from agents.contract import TurnFailed
from agents.story import story
from protocol.evolve import Task
from protocol.journal import AttemptStarted, CheckpointMade
from services.bus import Bus
from services.runner.log import TaskLog

TRIES = 3
NEVER = sys.maxsize
"""No attempt of the other task is ours."""


class Fork(Struct, frozen=True):
    """The other task as it is now. From here on the two know nothing of each other."""

    ground: AttemptStarted | None
    """What it stands on; None when nothing was begun."""
    checkpoint: CheckpointMade | None
    """Its work, with a bundle of the fork's own; None when it changed nothing."""
    told: str


async def fork(bus: Bus, task: Task) -> Fork:
    """Raises TurnFailed where the other task or its work is gone, Unavailable."""
    for _ in range(TRIES):
        source = TaskLog(bus, Task(id=task.fork_of, user=task.user), NEVER)
        await source.open()
        if source.task.turn == 0:
            break
        made = [entry.event for entry in source.entries if isinstance(entry.event, CheckpointMade)]
        started = [entry.event for entry in source.entries if isinstance(entry.event, AttemptStarted)]
        try:
            own = await _copied(bus, task, made[-1]) if made and (made[-1].blob or made[-1].ignored) else None
        except KeyError:
            continue  # it went on meanwhile, and its bundle is another one
        told = story(source.task, source.messages, source.entries)
        return Fork(started[-1] if started else None, own, told)
    raise TurnFailed(f"The task {task.fork_of}, or its work, is not there any more: start a new task.")


async def _copied(bus: Bus, task: Task, made: CheckpointMade) -> CheckpointMade:
    """The other task deletes its bundle when it goes on. Raises KeyError when it has."""
    own = replace(made, step=0, **{kind: _own(task, getattr(made, kind)) for kind in ("blob", "ignored")})
    for theirs, ours in ((made.blob, own.blob), (made.ignored, own.ignored)):
        if theirs:
            await bus.put_blob(ours, await bus.get_blob(theirs))
    return own


def _own(task: Task, blob: str) -> str:
    """The name of the copy; both are `checkpoint.<task>.<attempt>.<step>.<what it has>`."""
    return f"checkpoint.{task.id}.{task.attempt}.0.{blob.rpartition('.')[2]}" if blob else ""
