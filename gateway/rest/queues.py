"""What waits for a runner and why; how a queue is served."""

from __future__ import annotations

import secrets

from litestar import Router, get, post
from msgspec import UNSET, Struct, UnsetType

from gateway import checks
from gateway.rest.account import consumed
from gateway.rest.identify import Owner
from gateway.users import Asker, Users
from protocol.evolve import QueueSettings
from protocol.query import QueueShown, ShowQueue
from protocol.routes import Service
from protocol.user import SetQueue
from services.bus import Bus


class QueueBody(Struct, frozen=True):
    paused: bool | UnsetType = UNSET
    """Whether its tasks are held back; those that run go on."""
    running_limit: int | UnsetType | None = UNSET
    """How many of its tasks run at one time; null is the scheduler's own setting."""


@get("/")
async def show_queues(asker: Asker, bus: Bus, limit: int = 100) -> QueueShown:
    """What waits and why, what runs, who serves which queue: all of it for the owner, a user's own for a user."""
    asked = ShowQueue(user=asker.user, everything=asker.is_owner, limit=limit)
    return await bus.ask(Service.SCHEDULER, asked, QueueShown)


@post("/{queue:str}", status_code=200)
async def set_queue(owner: Owner, users: Users, queue: str, data: QueueBody) -> QueueSettings:
    """Pause a queue, let it go on, limit it."""
    checks.queue(queue)
    key = f"queue-{secrets.token_hex(16)}"
    command = SetQueue(key=key, queue=queue, paused=data.paused, running_limit=data.running_limit)
    consumed(await users.command(owner.user, command), 422)
    user = users.get(owner.user)
    return user.queues.get(queue, QueueSettings()) if user else QueueSettings()


ROUTER = Router("/api/queues", route_handlers=[show_queues, set_queue])
