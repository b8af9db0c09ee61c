"""One wish for many tasks: which they are is stored under its key first, so that a repeated request makes no second
effect; then each task gets a command of its own."""

from __future__ import annotations

import anyio
from msgspec import Struct
from msgspec.structs import replace

from gateway import checks
from gateway.errors import Problem
from gateway.tasks import EVERYTHING, Tasks
from gateway.users import Asker, Users
from protocol.query import TaskFilter
from protocol.task import CancelTask, PauseTask, ReceiptStatus, ResumeTask, RetryTask, TaskCommand
from protocol.user import BULK_LIMIT, BeginBulk, BulkAction, BulkBegun

AT_ONCE = 16


class BulkTask(Struct, frozen=True):
    task: str
    status: str = ""
    """Of the receipt: `consumed` or `rejected`; empty while the scheduler has not decided."""
    reason: str = ""


class Carried(Struct, frozen=True):
    """What became of one bulk so far. The same request asks again."""

    key: str
    action: BulkAction
    tasks: tuple[BulkTask, ...]
    more: bool = False
    """Whether there were more such tasks than one bulk takes: ask for the rest under another key."""


class Bulk:
    """Carries bulks out."""

    def __init__(self, tasks: Tasks, users: Users) -> None:
        self._tasks = tasks
        self._users = users

    async def carry_out(self, asker: Asker, key: str, action: BulkAction, where: TaskFilter, reason: str) -> Carried:
        """Raises Problem, Refused or Unavailable; then the same request, sent again, goes on from where it was."""
        checks.key(key)
        checks.reason(reason)
        # A client's key has no space: no other command to these tasks has this one.
        kept, more = f"bulk {key}", False
        begun = await self._tasks.bulk(asker, kept)
        if begun is None:
            chosen, more = await self._choose(asker, action, where)
            if not chosen:
                return Carried(key, action, ())
            await self._begin(asker, BeginBulk(key=kept, action=action, tasks=chosen))
            begun = await self._tasks.bulk(asker, kept)
        if begun is None or begun.action is not action:
            raise Problem(422, "This key stands for another request: use a new one.", "key")
        done = await self._do(asker, begun, reason)
        return Carried(key, action, done, more)

    async def _choose(self, asker: Asker, action: BulkAction, where: TaskFilter) -> tuple[tuple[str, ...], bool]:
        if where == EVERYTHING:
            raise Problem(422, "Say which tasks: by state, tag, metadata, repository or words.", "states")
        states = action.states & set(where.states) if where.states else action.states
        if not states:
            return (), False
        page = await self._tasks.list(asker, where=replace(where, states=tuple(states)), limit=BULK_LIMIT)
        return tuple(task.id for task in page.tasks), page.more

    async def _begin(self, asker: Asker, command: BeginBulk) -> None:
        receipt = await self._users.command(asker.user, command)
        if receipt.status is not ReceiptStatus.CONSUMED:
            raise Problem(422, receipt.reason)

    async def _do(self, asker: Asker, begun: BulkBegun, reason: str) -> tuple[BulkTask, ...]:
        done: dict[str, BulkTask] = {}
        command, limit = _command(begun, reason, asker.device), anyio.CapacityLimiter(AT_ONCE)

        async def do(task: str) -> None:
            async with limit:
                receipt = await self._tasks.receipt(asker, task, begun.bulk, type(command))
                if receipt is None:
                    await self._tasks.send(asker, task, command)
                done[task] = BulkTask(task, receipt.status.value, receipt.reason) if receipt else BulkTask(task)

        async with anyio.create_task_group() as group:
            for task in begun.tasks:
                group.start_soon(do, task)
        return tuple(done[task] for task in begun.tasks)


def _command(begun: BulkBegun, reason: str, device: str) -> TaskCommand:
    match begun.action:
        case BulkAction.CANCEL:
            return CancelTask(key=begun.bulk, reason=reason, device=device)
        case BulkAction.PAUSE:
            return PauseTask(key=begun.bulk, reason=reason)
        case BulkAction.RESUME:
            return ResumeTask(key=begun.bulk)
        case BulkAction.RETRY:
            return RetryTask(key=begun.bulk)
