from __future__ import annotations

from functools import partial

import click

from services.cli.options import Place, client_command


@client_command("watch")
@click.argument("task")
def command(place: Place, task: str) -> int:
    """Follow a task as it happens.

    TASK is an id or its beginning. The exit code is the outcome: 0 succeeded, 1 failed, 2 cancelled, 130 after Ctrl-C,
    which stops the watching and not the task.
    """
    from services.cli.tasks import whole_id
    from services.cli.watching import interrupted, live, watch

    task = whole_id(place, task)
    try:
        return live(place, partial(watch, place=place, task=task))
    except KeyboardInterrupt:
        return interrupted(task)
