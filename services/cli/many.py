"""One wish for all tasks that a filter finds, told before and after."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import click
from msgspec.structs import replace

from protocol.query import TaskFilter, TaskList
from protocol.user import BULK_LIMIT, BulkAction
from services.cli.api import path, read
from services.cli.failure import Failure
from services.cli.filters import query_of
from services.cli.options import Place, is_terminal
from services.cli.units import many

RECEIPTS_SECONDS = 30.0
AGAIN_SECONDS = 0.2
TOLD = {"": "not decided yet", "consumed": "done", "rejected": "refused"}
"""How a command ended, as people say it."""


def steer_many(place: Place, action: BulkAction, where: TaskFilter, *, key: str, reason: str = "", yes: bool) -> int:
    """Ask on a terminal, unless told `yes`; do it, and tell how each task took it. 1 when one of them did not."""
    if not query_of(where):
        raise Failure(f"Say which task to {action.value}, or which ones: `errand {action.value} --tag TAG`.")
    if not yes:
        _confirm(place, action, where)
    answer = _carry_out(place, {"action": action.value, "key": key, "reason": reason, **_body(where)})
    if place.as_json:
        click.echo(json.dumps(answer))
    else:
        _tell(action, answer)
    return 0 if all(task["status"] == "consumed" for task in answer["tasks"]) else 1


def _confirm(place: Place, action: BulkAction, where: TaskFilter) -> None:
    if not is_terminal(0):
        raise Failure(f"To {action.value} many tasks without being asked here, add --yes.")
    states = action.states & set(where.states) if where.states else action.states
    asked = query_of(replace(where, states=tuple(states)))
    found = read(place.api.get(path("tasks"), limit=BULK_LIMIT, **asked), TaskList) if states else TaskList()
    if not found.tasks:
        raise Failure(_none(action))
    count = f"The first {BULK_LIMIT} tasks" if found.more else many(len(found.tasks), "task")
    click.confirm(f"{count} of yours: {action.value}?", abort=True, err=True)


def _none(action: BulkAction) -> str:
    return f"There is no such task to {action.value}."


def _carry_out(place: Place, body: dict[str, Any]) -> dict[str, Any]:
    """The same request again and again, until each task has its receipt or the patience ends."""
    until, more = time.monotonic() + RECEIPTS_SECONDS, False
    while True:
        answer = read(place.api.post(path("tasks", "bulk"), body), dict[str, Any])
        more = more or answer["more"]
        if all(task["status"] for task in answer["tasks"]) or time.monotonic() > until:
            return {**answer, "more": more}
        time.sleep(AGAIN_SECONDS)  # over plain HTTP nobody is told of a receipt: it is asked for


def _body(where: TaskFilter) -> dict[str, Any]:
    return {
        "states": [state.value for state in where.states],
        "tags": where.tags,
        "metadata": where.metadata,
        "repository": where.repository,
        "search": where.search,
    }


def _tell(action: BulkAction, answer: dict[str, Any]) -> None:
    counts = Counter(TOLD.get(task["status"], task["status"]) for task in answer["tasks"])
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    click.echo(f"{action.value}: {told}" if told else _none(action))
    for task in answer["tasks"]:
        if task["status"] == "rejected":
            click.echo(f"{task['task']}: {task['reason']}", err=True)
    if answer["more"]:
        click.echo("There are more: the same once more does the rest.", err=True)
