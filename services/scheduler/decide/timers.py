"""What a timer that fired leads to. Pure."""

from __future__ import annotations

from datetime import datetime

from protocol.evolve import Task
from protocol.task import (
    AnyTaskEvent,
    FireTimer,
    TaskQueued,
    TaskState,
)
from services.scheduler.decide.base import Rejected


def fire(task: Task, command: FireTimer, now: datetime) -> tuple[AnyTaskEvent, ...]:
    if task.state is not TaskState.DELAYED or task.delayed_until is None or command.due < task.delayed_until:
        raise Rejected("Nothing waits for this timer any more.")
    return (TaskQueued(reason="The delay is over."),)
