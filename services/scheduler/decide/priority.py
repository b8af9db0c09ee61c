"""Which of a user's tasks goes first. Pure."""

from __future__ import annotations

from protocol.task import PRIORITY_LIMIT, AnyTaskEvent, PrioritySet, SetPriority
from services.scheduler.decide.base import Rejected


def set_priority(command: SetPriority) -> tuple[AnyTaskEvent, ...]:
    must_be_a_priority(command.priority)
    return (PrioritySet(priority=command.priority),)


def must_be_a_priority(priority: int) -> None:
    if abs(priority) > PRIORITY_LIMIT:
        raise Rejected(f"A priority is {-PRIORITY_LIMIT} to {PRIORITY_LIMIT}; this is {priority}.")
