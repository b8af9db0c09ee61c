from __future__ import annotations

import click

from services.cli.options import Place, client_command


@client_command("retry")
@click.argument("task")
@click.option("--key", default="", help="The same key is the same wish, however often it is sent.")
def command(place: Place, task: str, key: str) -> int:
    """Try a task that failed or was cancelled again: the same wish, from where the work stands."""
    from protocol.live import Retry
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    return steer(place, Retry(key=key or new_key(), task=whole_id(place, task)), "It is tried again.")
