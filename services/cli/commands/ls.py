from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from protocol.live import LIST_LIMIT
from protocol.query import TaskFilter, TaskSummary
from protocol.task import TaskState
from services.cli.filters import filter_options, query_of
from services.cli.options import Place, client_command

ORDER = (
    TaskState.WAITING, TaskState.RUNNING, TaskState.DELAYED, TaskState.QUEUED, TaskState.PAUSED,
)  # fmt: skip
"""Those that need the user first, then those that move; outcomes follow by their time."""


@client_command("ls")
@filter_options
@click.option("--limit", type=click.IntRange(1, LIST_LIMIT), default=50, show_default=True, help="How many at most.")
@click.option("--before", default="", metavar="TASK", help="The last task of the page before.")
def command(place: Place, where: TaskFilter, limit: int, before: str) -> int:
    """List your tasks, those that need you first."""
    from services.cli.api import path, read
    from services.cli.text import safe_json

    before = _known(place, before) if before else ""
    content = place.api.get(path("tasks"), **query_of(where), limit=limit, before=before)
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    from protocol.query import TaskList

    listed = read(content, TaskList)
    tasks = in_order(listed.tasks)
    if not tasks:
        none = "No task is so." if query_of(where) else "No tasks yet: `errand submit` sends the first."
        click.echo(none, err=True)
    elif sys.stdout.isatty():
        _print_table(tasks)
    else:
        _print_plain(tasks)
    if listed.more:
        click.echo(f"There are more: the same with `--before {listed.tasks[-1].id}`.", err=True)
    return 0


def _known(place: Place, given: str) -> str:
    """The id of a task that there is: behind any other the first page would come again. Raises Failure."""
    from services.cli.api import path
    from services.cli.tasks import whole_id

    task = whole_id(place, given)
    place.api.get(path("tasks", task))
    return task


def in_order(tasks: Sequence[TaskSummary]) -> list[TaskSummary]:
    """Who needs the user, then what moves, then what has ended; each the last changed first."""
    newest = sorted(tasks, key=lambda task: task.updated_at, reverse=True)
    return sorted(newest, key=lambda task: ORDER.index(task.state) if task.state in ORDER else len(ORDER))


def _about(task: TaskSummary) -> str:
    """What a person has to know of it first."""
    match task.state:
        case TaskState.WAITING | TaskState.FAILED:
            return task.question or task.reason
        case TaskState.DELAYED if task.until:
            return f"until {datetime.fromisoformat(task.until).astimezone():%Y-%m-%d %H:%M %Z}: {task.reason}"
        case _:
            return task.waits


def _print_plain(tasks: Sequence[TaskSummary]) -> None:
    """One line a task, fields between tabs, for `cut` and `awk`."""
    from services.cli.text import one_line

    for task in tasks:
        fields = (
            task.id,
            task.state.value,
            task.updated_at,
            task.repository,
            task.title or "-",
            _about(task) or task.reason,
            ",".join(task.tags),
        )
        click.echo("\t".join(one_line(field) for field in fields))


def _print_table(tasks: Sequence[TaskSummary]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from services.cli import units
    from services.cli.text import one_line

    console = Console(highlight=False)
    wide = console.width >= 70
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, expand=True)
    table.add_column("task", no_wrap=True, min_width=17 if wide else SHORT_ID)
    table.add_column("state", no_wrap=True, min_width=9)
    table.add_column("title", ratio=1, no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("cost", justify="right", no_wrap=True)
        table.add_column("changed", justify="right", no_wrap=True)
    now = datetime.now(UTC)
    for task in tasks:
        title = one_line(task.title) or one_line(task.repository)
        about = one_line(_about(task))
        row = [
            Text(one_line(task.id) if wide else one_line(task.id)[:SHORT_ID], style="cyan"),
            Text(task.state.value, style=STYLES.get(task.state, "")),
            Text(f"{title}: {about}" if about else title).append("".join(f" #{tag}" for tag in task.tags), style="dim"),
        ]
        if wide:
            row += [Text(units.money(task.cost_usd)), Text(units.age(task.updated_at, now), style="dim")]
        table.add_row(*row)
    console.print(table)


SHORT_ID = 8
"""So much of an id is shown where there is little room, and is enough to name a task."""
STYLES = {
    TaskState.WAITING: "bold yellow",
    TaskState.RUNNING: "bold cyan",
    TaskState.SUCCEEDED: "green",
    TaskState.FAILED: "red",
    TaskState.DELAYED: "yellow",
    TaskState.CANCELLED: "dim",
}
