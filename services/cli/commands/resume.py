from __future__ import annotations

import click

from services.cli.options import Place, client_command


@client_command("resume")
@click.argument("task")
@click.option("--key", default="", help="The same key is the same wish, however often it is sent.")
def command(place: Place, task: str, key: str) -> int:
    """Let a paused task go on from where it was."""
    from protocol.live import Resume
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    return steer(place, Resume(key=key or new_key(), task=whole_id(place, task)), "It goes on.")
