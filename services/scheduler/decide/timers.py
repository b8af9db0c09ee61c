"""The waits of a task that outlive every process, and what their end leads to. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from protocol.evolve import Task
from protocol.task import (
    AnyTaskEvent,
    FireTimer,
    TaskQueued,
    TaskState,
)
from services.scheduler.decide.base import Limits, Rejected, so_long
from services.scheduler.decide.questions import answer_by_deadline
from services.scheduler.decide.turns import over_time


class Timer(StrEnum):
    """What a task may wait for by the clock."""

    DELAY = "delay"
    """The time until which it is delayed: then it is queued."""
    QUEUE = "queue"
    """The time by which a runner must have begun the turn."""
    TURN = "turn"
    """The time by which the turn must have ended."""
    QUESTION = "question"
    """The time by which the user must have answered."""


def timers(task: Task, limits: Limits) -> dict[str, datetime]:
    """When each timer that the task waits for is due, by its name. One that is not in here is not set, and changes
    nothing should it fire all the same."""
    due: dict[str, datetime] = {}
    if not task.is_open or task.turn_opened_at is None:
        return due
    if task.state is TaskState.DELAYED and task.delayed_until is not None:
        due[Timer.DELAY] = task.delayed_until
    if task.queue_seconds is not None and task.state is TaskState.QUEUED and not task.has_begun and task.in_line_since:
        due[Timer.QUEUE] = task.in_line_since + timedelta(seconds=task.queue_seconds)
    if task.turn_seconds is not None:
        grace = limits.grace_seconds if task.holder else 0.0
        due[Timer.TURN] = task.turn_opened_at + timedelta(seconds=task.turn_seconds + grace)
    if task.question is not None and task.asked_at is not None and task.question.deadline_seconds is not None:
        due[Timer.QUESTION] = task.asked_at + timedelta(seconds=task.question.deadline_seconds)
    return due


def fire(task: Task, command: FireTimer, limits: Limits) -> tuple[AnyTaskEvent, ...]:
    """What a timer that fired leads to. It may come late or twice, or after another due time took the place of its
    own."""
    due = timers(task, limits).get(command.name)
    if due is None or command.due < due:
        raise Rejected("Nothing waits for this timer any more.")
    match Timer(command.name):
        case Timer.DELAY:
            return (TaskQueued(reason="The time that it waited for has come."),)
        case Timer.QUEUE:
            waited = so_long(task.queue_seconds or 0)
            return over_time(task, f"No runner was free within {waited}: retry it to queue it again.")
        case Timer.TURN:
            return over_time(task, f"The turn did not end within {so_long(task.turn_seconds or 0)}, its deadline.")
        case Timer.QUESTION:
            return answer_by_deadline(task)
