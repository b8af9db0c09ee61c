"""Which tasks somebody asks for. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from protocol.evolve import Task
from protocol.query import LIST_TASKS_LIMIT, ListTasks, TaskFilter


def search(tasks: Iterable[Task], asked: ListTasks) -> tuple[list[Task], bool]:
    """A page of those of `tasks` that are asked for, the last changed first, and whether there are more."""
    found = [task for task in tasks if matches(task, asked)]
    found.sort(key=lambda task: (task.updated_at, task.id), reverse=True)
    if asked.before:
        index = next((i for i, task in enumerate(found) if task.id == asked.before), -1)
        found = found[index + 1 :]
    limit = max(1, min(asked.limit, LIST_TASKS_LIMIT))
    return found[:limit], len(found) > limit


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
