from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from protocol.evolve import QueueSettings
from protocol.query import QueueLine, QueueShown, RunnerLine, RunningTask, StoppedLog, WaitingTask
from protocol.task import TaskState
from protocol.user import RUNNING_LIMIT_MAX
from services.cli import units
from services.cli.options import Place, client_command, json_option


@click.group("queue", invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True, help="Tasks at most.")
@click.option("--server", default="", metavar="URL", help="Otherwise ERRAND_SERVER, or the one signed in to.")
@json_option
@click.pass_context
def command(context: click.Context, limit: int, server: str, as_json: bool) -> int:
    """See what waits for a runner and why, what runs, and who serves which queue."""
    return _show(Place(server, as_json), limit) if context.invoked_subcommand is None else 0


def _show(place: Place, limit: int) -> int:
    from services.cli.api import path, read
    from services.cli.tasks import task_list
    from services.cli.text import safe_json

    content = place.api.get(path("queues"), limit=limit)
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    shown = read(content, QueueShown)
    asking = {task.id for task in task_list(place, state=TaskState.WAITING).tasks} if shown.running else set()
    _print(shown, datetime.now(UTC), asking)
    return 0


def _print(shown: QueueShown, now: datetime, asking: set[str]) -> None:
    """`asking`: the asker's tasks that wait for an answer; one of them may hold a slot meanwhile."""
    from services.cli.tables import print_table

    print_table(("queue", "waiting", "running", "limit", "slots"), [_queue(each, shown) for each in shown.queues])
    if shown.running:
        click.echo()
        print_table(
            ("runs", "queue", "runner", "for", "title"), [_running(each, now, asking) for each in shown.running]
        )
    if shown.waiting:
        click.echo()
        columns = ("waits", "queue", "place", "priority", "for", "why", "title")
        print_table(columns, [_waiting(each, now) for each in shown.waiting])
    if shown.stopped:
        click.echo()
        print_table(("stopped", "of", "commands", "why", "title"), [_stopped(each) for each in shown.stopped])
    if shown.more:
        click.echo("More wait than are shown here.", err=True)


def _queue(line: QueueLine, shown: QueueShown) -> Sequence[Any]:
    runners = [each for each in shown.runners if each.queue == line.queue]
    state = "paused" if line.paused else "" if line.served else "no runner"
    slots = ", ".join(filter(None, (state, *map(_runner, runners))))
    return line.queue, line.waiting, line.running, line.running_limit, slots


def _runner(line: RunnerLine) -> str:
    used = f"{line.busy} of " if line.busy is not None else ""
    return " ".join(filter(None, (f"{used}{line.slots}", line.runner and f"at {line.runner}", *line.labels)))


def _running(task: RunningTask, now: datetime, asking: set[str]) -> Sequence[Any]:
    what = f"waits for your answer: {_what(task)}" if task.id in asking else _what(task)
    return task.id, task.queue, task.runner, _since(task.since, now), what


def _waiting(task: WaitingTask, now: datetime) -> Sequence[Any]:
    priority = f"{task.priority} ({task.effective_priority:.1f})"
    return task.id, task.queue, task.place, priority, _since(task.since, now), task.reason, _what(task)


def _stopped(stopped: StoppedLog) -> Sequence[Any]:
    title = stopped.title or stopped.repository
    return stopped.task or "user", stopped.user, stopped.commands, stopped.reason, title


def _since(then: datetime | None, now: datetime) -> str:
    return units.age(then.isoformat(), now) if then else ""


def _what(task: RunningTask | WaitingTask) -> str:
    """Of another's task its user alone is told."""
    return task.title or task.repository or f"of {task.user}"


def _set(place: Place, queue: str, body: dict[str, Any]) -> int:
    from services.cli.api import path, read
    from services.cli.text import safe_json

    content = place.api.post(path("queues", queue), body)
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    now = read(content, QueueSettings)
    limit = (
        "as many of its tasks run at one time as there are slots and the settings allow"
        if now.running_limit is None
        else f"at most {units.many(now.running_limit, 'task')} of it at one time"
    )
    click.echo(f"The queue {queue} {'is paused' if now.paused else 'is not paused'}; {limit}.")
    return 0


def _must_be_meant(place: Place, queue: str) -> None:
    """A queue may be held back before its first task comes; a name that nobody has used yet may also be a slip."""
    from services.cli.api import path, read
    from services.cli.failure import tell

    known = [each.queue for each in read(place.api.get(path("queues"), limit=1), QueueShown).queues]
    if queue not in known:
        tell(f"Nobody serves the queue {queue}, and no task is in it. There are: {', '.join(known)}.")


def _pause(place: Place, queue: str) -> int:
    """Hold the tasks of QUEUE back; those that run go on (the owner)."""
    _must_be_meant(place, queue)
    return _set(place, queue, {"paused": True})


def _resume(place: Place, queue: str) -> int:
    """Give the tasks of QUEUE to runners again (the owner)."""
    return _set(place, queue, {"paused": False})


def _limit(place: Place, queue: str, running: int | None) -> int:
    """Let at most RUNNING tasks of QUEUE run at one time; without a number as many as the settings say (the owner)."""
    _must_be_meant(place, queue)
    return _set(place, queue, {"running_limit": running})


command.add_command(client_command("pause")(click.argument("queue")(_pause)))
command.add_command(client_command("resume")(click.argument("queue")(_resume)))
command.add_command(
    client_command("limit")(
        click.argument("queue")(
            click.argument("running", type=click.IntRange(1, RUNNING_LIMIT_MAX), required=False)(_limit)
        )
    )
)
