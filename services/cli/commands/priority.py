from __future__ import annotations

import json
from functools import partial

import click

from protocol.task import PRIORITY_LIMIT
from services.cli.options import Place, client_command


@client_command("priority", context_settings={"ignore_unknown_options": True})
@click.argument("task")
@click.argument("priority", type=click.IntRange(-PRIORITY_LIMIT, PRIORITY_LIMIT))
@click.option("--key", default="", help="The same key is the same wish, however often it is sent.")
def command(place: Place, task: str, priority: int, key: str) -> int:
    """Let a task go sooner, or later, than your others. PRIORITY is -10 to 10, the higher the sooner."""
    from protocol.live import Prioritize
    from services.cli.receipts import carry_out, new_key
    from services.cli.tasks import whole_id
    from services.cli.watching import live

    frame = Prioritize(key=key or new_key(), task=whole_id(place, task), priority=priority)
    done = live(place, partial(carry_out, command=frame))
    answer = {"task": done.task, "key": frame.key, "sequence": done.sequence}
    click.echo(json.dumps(answer) if place.as_json else f"Its priority is {priority}.")
    return 0
