from __future__ import annotations

import json
from functools import partial

import click

from services.cli.options import Place, client_command, key_option


@client_command("approve")
@click.argument("task", required=False, default="")
@click.option("--question", default="", help="The question's id, where no other one must be approved.")
@key_option("word")
def command(place: Place, task: str, question: str, key: str) -> int:
    """Let a task do what it asks to do.

    Without TASK: the only one that waits. `errand show TASK` shows what it is.
    """
    from protocol.live import Approve
    from services.cli.receipts import carry_out, new_key
    from services.cli.tasks import asked_of
    from services.cli.watching import live

    task, asked = asked_of(place, task, question)
    frame = Approve(key=key or new_key(), task=task, question=asked.id)
    done = live(place, partial(carry_out, command=frame))
    click.echo(
        json.dumps({"task": done.task, "key": frame.key, "sequence": done.sequence}) if place.as_json else "Approved."
    )
    return 0
