"""Which tasks somebody asks for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from protocol.evolve import Task
from protocol.query import LIST_TASKS_LIMIT, ListTasks, TaskFilter
from services.scheduler.packed import Kept, whole
from services.scheduler.unhurried import unhurried

LONG_AGO = datetime.min.replace(tzinfo=UTC)


async def search(tasks: Iterable[Kept], asked: ListTasks) -> tuple[list[Task], bool]:
    """A page of those of `tasks` that are asked for, the last changed first, and whether there are more. Others have
    their turn meanwhile. LookupError where the page would come behind a task that is not there: the first one again
    would have no end."""
    limit = max(1, min(asked.limit, LIST_TASKS_LIMIT))
    found: list[Task] = []
    async for kept in unhurried(_in_order(tasks, asked)):
        # Only now: a page needs few of those that are packed.
        if matches(task := whole(kept), asked):
            found.append(task)
        if len(found) > limit:
            break
    return found[:limit], len(found) > limit


def _in_order(tasks: Iterable[Kept], asked: ListTasks) -> list[Kept]:
    """Those that may be asked for, from where the page before ended."""
    tasks = list(tasks)
    found = [task for task in tasks if not asked.states or task.state in asked.states]
    # The last one of the page before may be none of these any more: its place counts, not the task.
    if asked.before:
        place = _place(tasks, asked)
        found = [task for task in found if (task.updated_at or LONG_AGO, task.id) < place]
    return sorted(found, key=lambda task: (task.updated_at or LONG_AGO, task.id), reverse=True)


def _place(tasks: Iterable[Kept], asked: ListTasks) -> tuple[datetime, str]:
    if asked.before_at is not None:
        at = asked.before_at
        return at if at.tzinfo else at.replace(tzinfo=UTC), asked.before
    for task in tasks:
        if task.id == asked.before:
            return task.updated_at or LONG_AGO, task.id
    raise LookupError(asked.before)


def matches(task: Task, asked: TaskFilter) -> bool:
    """Whether all that is asked for is so. What costs most, the words, is looked at last."""
    return (
        (not asked.states or task.state in asked.states)
        and set(asked.tags) <= set(task.tags)
        and asked.metadata.items() <= task.metadata.items()
        and asked.repository.casefold() in task.repository.casefold()
        and _has_words(task, asked.search)
    )


def _has_words(task: Task, search: str) -> bool:
    if not (words := search.casefold().split()):
        return True
    text = f"{task.title}\n{task.prompt}".casefold()
    return all(word in text for word in words)
