"""The waits of a task that outlive every process, and what their end leads to. Pure."""

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

DELAY = "delay"


def timers(task: Task) -> dict[str, datetime]:
    """What the task waits for by the clock: when each timer is due, by its name. One that is not in here is not set,
    and changes nothing should it fire all the same."""
    due: dict[str, datetime] = {}
    if task.state is TaskState.DELAYED and task.delayed_until is not None:
        due[DELAY] = task.delayed_until
    return due


def fire(task: Task, command: FireTimer) -> tuple[AnyTaskEvent, ...]:
    """What a timer that fired leads to. It may come late or twice, or after another due time took the place of its
    own."""
    due = timers(task).get(command.name)
    if due is None or command.due < due:
        raise Rejected("Nothing waits for this timer any more.")
    return (TaskQueued(reason="The delay is over."),)
