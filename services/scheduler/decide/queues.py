"""How the owner wants a queue to be served. Pure."""

from __future__ import annotations

from msgspec import UNSET

from protocol.evolve import QueueSettings, User
from protocol.ids import is_name
from protocol.user import QUEUES_LIMIT, RUNNING_LIMIT_MAX, AnyUserEvent, QueueSet, Role, SetQueue
from services.scheduler.decide.base import Rejected


def set_queue(user: User, command: SetQueue) -> tuple[AnyUserEvent, ...]:
    if user.role is not Role.OWNER:
        raise Rejected("Only the owner says how a queue is served.")
    if not is_name(command.queue):
        raise Rejected("This is no queue's name.")
    if command.queue not in user.queues and len(user.queues) >= QUEUES_LIMIT:
        raise Rejected(f"{QUEUES_LIMIT} queues have settings: take those of another back first.")
    now = user.queues.get(command.queue, QueueSettings())
    limit = now.running_limit if command.running_limit is UNSET else command.running_limit
    if limit is not None and limit < 1:
        raise Rejected("At least one task of a queue runs at a time: to hold all back, pause it.")
    if limit is not None and limit > RUNNING_LIMIT_MAX:
        raise Rejected(f"The limit of a queue is at most {RUNNING_LIMIT_MAX} tasks; without one give null.")
    paused = now.paused if command.paused is UNSET else command.paused
    return (QueueSet(queue=command.queue, paused=paused, running_limit=limit),)
