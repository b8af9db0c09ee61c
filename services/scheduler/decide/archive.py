"""An ended task is put away, and comes back when somebody speaks to it. Pure; the shell fills in where it was put."""

from __future__ import annotations

from datetime import datetime

from protocol.evolve import Task
from protocol.task import AnyTaskEvent, Decision, TaskArchived, TaskRestored, TurnOpened
from services.scheduler.decide.base import Rejected


def archive(task: Task) -> tuple[AnyTaskEvent, ...]:
    if task.is_open:
        raise Rejected(f"The task is {task.state}: it can be archived once it has ended.")
    if task.archived_at is not None:
        raise Rejected("The task is in the archive already.")
    return (TaskArchived(),)


def put_away(task: Task, now: datetime) -> Decision:
    """An ended task has grown old."""
    return Decision(at=now, state=task.state, events=archive(task))


def restored(task: Task, events: tuple[AnyTaskEvent, ...]) -> tuple[AnyTaskEvent, ...]:
    """`events`, beginning with the restoration of an archived task whose next turn they open."""
    opens = any(isinstance(event, TurnOpened) for event in events)
    return (TaskRestored(), *events) if opens and task.archived_at is not None else events
