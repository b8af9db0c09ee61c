from __future__ import annotations

import json
from functools import partial

import click

from services.cli.options import Place, client_command, key_option


@client_command("archive")
@click.argument("task")
@key_option("wish")
def command(place: Place, task: str, key: str) -> int:
    """Put an ended task away now, rather than when it is old. A message opens it again."""
    from protocol.live import Archive
    from services.cli.receipts import carry_out, new_key
    from services.cli.tasks import whole_id
    from services.cli.watching import live

    frame = Archive(key=key or new_key(), task=whole_id(place, task))
    done = live(place, partial(carry_out, command=frame))
    click.echo(
        json.dumps({"task": done.task, "key": frame.key, "sequence": done.sequence}) if place.as_json else "Archived."
    )
    return 0
