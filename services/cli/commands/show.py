from __future__ import annotations

from typing import Any

import click

from protocol.query import QueueShown
from protocol.task import DEFAULT_QUEUE, Budget, TaskState
from services.cli.options import Place, client_command


@client_command("show")
@click.argument("task")
def command(place: Place, task: str) -> int:
    """Show where a task stands; with --json all that is known of it."""
    from services.cli.api import path, read
    from services.cli.tasks import task_of, whole_id
    from services.cli.text import safe_json

    content = place.api.get(path("tasks", whole_id(place, task)))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    shown = task_of(read(content, dict[str, Any]))
    waits = _waits(place, shown.id) if shown.state is TaskState.QUEUED else ""
    for name, text in _fields(shown, waits or shown.reason):
        _print(name, text)
    return 0


def _waits(place: Place, task: str) -> str:
    """Why it has no runner yet."""
    from services.cli.api import path, read

    waiting = read(place.api.get(path("queues"), limit=1_000), QueueShown).waiting
    return next((each.reason for each in waiting if each.id == task), "")


def _fields(task, why: str) -> list[tuple[str, str]]:
    from services.cli import units

    fields = [("task", task.id), ("title", task.title), ("state", task.state.value), ("why", why)]
    if task.question is not None:
        fields = [*fields[:-1], *_question(task)]
    fields += [("repository", task.repository), ("base", task.base), ("model", task.model), ("asked", task.prompt)]
    fields.append(("fork of", task.fork_of))
    fields.append(("tags", " ".join(task.tags)))
    fields.append(("metadata", "\n".join(f"{name}={value}" for name, value in task.metadata.items())))
    if task.created_at is not None:
        fields.append(("created", f"{task.created_at:%Y-%m-%d %H:%M:%S} UTC"))
    if task.updated_at is not None:
        fields.append(("updated", f"{task.updated_at:%Y-%m-%d %H:%M:%S} UTC"))
    if task.delayed_until is not None:
        fields.append(("waits until", f"{task.delayed_until.astimezone():%Y-%m-%d %H:%M:%S %Z}"))
    fields += _terms(task)
    if task.turn > 1 or task.attempt > 1:
        fields.append(("turn", f"{task.turn}, attempt {task.attempt}"))
    fields.append(("summary", task.summary))
    if task.published is not None:
        fields.append(("branch", task.published.branch))
        fields.append(("pushed to", task.published.pushed_to))
        if task.published.pull_request is not None:
            fields.append(("pull request", units.pull_request(task.published.pull_request)))
        fields.append(("changed", units.changed(task.published)))
    fields.append(("cost", units.used(task.usage)))
    return [(name, text) for name, text in fields if text]


def _terms(task) -> list[tuple[str, str]]:
    """On which it was sent, as far as they are not everybody's."""
    from services.cli import units

    return [
        ("queue", task.queue if task.queue != DEFAULT_QUEUE or task.labels else ""),
        ("labels", " ".join(task.labels)),
        ("priority", str(task.priority) if task.priority else ""),
        ("budget", f"{units.budget(task.budget)} a turn" if task.budget != Budget() else ""),
        ("queue limit", units.seconds(task.queue_seconds) if task.queue_seconds else ""),
        ("deadline", f"{units.seconds(task.turn_seconds)} a turn" if task.turn_seconds else ""),
        ("archived", f"{task.archived_at:%Y-%m-%d %H:%M:%S} UTC" if task.archived_at else ""),
    ]


def _question(task) -> list[tuple[str, str]]:
    asked = task.question
    choices = [f"{number}) {choice}" for number, choice in enumerate(asked.choices, 1)]
    by = f"`errand approve {task.id}`, `errand deny {task.id} WHY`"
    if asked.kind == "answer":
        by = f"`errand answer {task.id} TEXT`"
    return [("question", "\n".join([asked.text, *choices])), (asked.tool, asked.input), ("answer by", by)]


def _print(name: str, text: str) -> None:
    from services.cli.text import clean

    first, *more = clean(text).strip().split("\n")
    click.echo(f"{click.style(f'{name:<12}', dim=True)}{first}")
    for line in more:
        click.echo(f"{'':<12}{line}")
