"""One wish for many tasks."""

from __future__ import annotations

from litestar import Request, Router, post
from msgspec import Struct, field

from gateway.bulk import Bulk, Carried
from gateway.rest.tasks import key_of
from gateway.tasks import Tasks
from gateway.users import Asker, Users
from protocol.query import TaskFilter
from protocol.task import TaskState
from protocol.user import BulkAction


class BulkBody(Struct, frozen=True):
    action: BulkAction
    key: str = ""
    """The idempotency key; or in the header `Idempotency-Key`. What is repeated under it means the same tasks."""
    reason: str = ""
    """Of a cancel or a pause."""
    states: tuple[TaskState, ...] = ()
    """Which tasks: those of which all that is given is so, and to which it can be done."""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    repository: str = ""
    """A part of its URL."""
    search: str = ""
    """Words that are all in the title or the prompt."""


@post("/api/tasks/bulk", status_code=202)
async def bulk(request: Request, asker: Asker, tasks: Tasks, users: Users, data: BulkBody) -> Carried:
    """Cancel, pause, resume or retry the tasks that the filter finds, each with a receipt of its own. Sent again, it
    asks how they ended."""
    where = TaskFilter(
        states=data.states,
        tags=data.tags,
        metadata=data.metadata,
        repository=data.repository.strip(),
        search=data.search.strip(),  # a space finds every task, and is no wish for all of them
    )
    key = key_of(request, data.key)
    return await Bulk(tasks, users).carry_out(asker, key, data.action, where, data.reason)


ROUTER = Router("/", route_handlers=[bulk])
