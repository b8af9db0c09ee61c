"""Pages of the task list while the tasks change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import anyio
import pytest
from msgspec.structs import replace

from protocol.evolve import Task
from protocol.query import ListTasks
from protocol.task import TaskState
from services.scheduler.packed import Kept, pack
from services.scheduler.search import search

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = [
    Task(id=f"t{n}", user="owner", turn=1, state=TaskState.QUEUED, updated_at=NOW - timedelta(minutes=n))
    for n in range(6)
]
QUEUED = ListTasks(user="owner", states=(TaskState.QUEUED,), limit=2)


def page(tasks: Sequence[Kept], asked: ListTasks) -> tuple[list[Task], bool]:
    return anyio.run(search, tasks, asked)


def ids(tasks: Sequence[Kept], asked: ListTasks) -> list[str]:
    return [task.id for task in page(tasks, asked)[0]]


def test_a_page_goes_on_where_the_one_before_ended_though_its_last_task_is_none_of_these_any_more() -> None:
    assert ids(TASKS, QUEUED) == ["t0", "t1"]
    after = replace(QUEUED, before="t1")
    cancelled = replace(TASKS[1], state=TaskState.CANCELLED)
    assert ids([cancelled if task.id == "t1" else task for task in TASKS], after) == ["t2", "t3"]


def test_a_page_goes_on_where_the_one_before_ended_though_its_last_task_is_the_newest_by_now() -> None:
    changed = [TASKS[0], replace(TASKS[1], updated_at=NOW + timedelta(hours=1)), *TASKS[2:]]
    for at in (TASKS[1].updated_at, NOW.replace(tzinfo=None) - timedelta(minutes=1)):
        assert ids(changed, replace(QUEUED, before="t1", before_at=at)) == ["t2", "t3"]


def test_a_task_that_lies_in_the_archive_has_its_place_in_the_list_and_is_found_by_its_words() -> None:
    old = [replace(task, prompt=f"Mend the {task.id} pump", archived_at=NOW) for task in TASKS]
    mixed = [pack(task) if number % 2 else task for number, task in enumerate(old)]
    assert ids(mixed, QUEUED) == ["t0", "t1"]
    assert ids(mixed, replace(QUEUED, states=(TaskState.FAILED,))) == []
    assert page(mixed, replace(QUEUED, search="PUMP t3")) == ([old[3]], False)


def test_the_last_page_says_that_there_are_no_more() -> None:
    assert page(TASKS, replace(QUEUED, before="t3")) == (TASKS[4:], False)


def test_behind_a_task_that_is_not_there_is_no_page() -> None:
    with pytest.raises(LookupError):
        page(TASKS, replace(QUEUED, before="t0x"))
    assert ids(TASKS, replace(QUEUED, before="t0x", before_at=TASKS[3].updated_at)) == ["t4", "t5"]
