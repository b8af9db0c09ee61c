"""Which task a person means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from protocol.evolve import Task
from protocol.live import LIST_LIMIT
from protocol.query import TaskList, TaskSummary
from protocol.task import Question, TaskState
from services.cli.failure import Failure
from services.cli.options import Place

WHOLE_ID = re.compile(r"t[a-z2-7]{16}")
LOOKED_AT = LIST_LIMIT
"""So many of the last changed tasks are looked through for the beginning of an id."""


def task_list(place: Place, *, limit: int = LOOKED_AT, state: str = "", before: str = "") -> TaskList:
    from services.cli.api import path, read

    return read(place.api.get(path("tasks"), limit=limit, state=state, before=before), TaskList)


def whole_id(place: Place, given: str) -> str:
    """The id that `given` is, or is the beginning of."""
    if WHOLE_ID.fullmatch(given):
        return given
    found = the_one_of(given, [task.id for task in task_list(place).tasks])
    if not found:
        raise Failure(f"There is no task {given!r}: `errand ls` shows the tasks you have.")
    return found


def the_one_of(given: str, ids: Sequence[str]) -> str:
    """That of `ids` which is `given` or, alone of all, begins so; empty where none does. Failure where several do."""
    meant = [each for each in ids if given and each.startswith(given)]
    if len(meant) > 1 and given not in meant:
        raise Failure(f"{given!r} may be any of {', '.join(meant)}: give more of the id.")
    return given if given in meant else next(iter(meant), "")


def the_waiting_one(place: Place) -> TaskSummary:
    """The only task that waits for an answer."""
    waiting = task_list(place, state=TaskState.WAITING.value).tasks
    if len(waiting) == 1:
        return waiting[0]
    if waiting:
        raise Failure(f"Several tasks have a question: name one of {', '.join(task.id for task in waiting)}.")
    raise Failure("No task waits for an answer.")


def asked_of(place: Place, given: str, question: str = "") -> tuple[str, Question]:
    """The id of the task that is meant, or of the only one that waits, with its open question."""
    from services.cli.api import path, read

    task = whole_id(place, given) if given else the_waiting_one(place).id
    asked = task_of(read(place.api.get(path("tasks", task)), dict[str, Any])).question
    if asked is None or question not in ("", asked.id):
        raise Failure(f"The task {task} has no such question open: `errand show {task}` tells where it stands.")
    return task, asked


def task_of(answer: dict[str, Any]) -> Task:
    """The fold in the answer of `GET /api/tasks/<id>`."""
    try:
        return msgspec.convert(answer.get("task", answer), Task)
    except msgspec.ValidationError as error:
        raise Failure(f"The server's answer cannot be read ({error}): update the older of server and client.") from None
