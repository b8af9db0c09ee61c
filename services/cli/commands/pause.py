from __future__ import annotations

import click

from services.cli.options import Place, client_command


@client_command("pause")
@click.argument("task")
@click.option("--reason", default="", help="Shown with the task.")
@click.option("--key", default="", help="The same key is the same wish, however often it is sent.")
def command(place: Place, task: str, reason: str, key: str) -> int:
    """Hold a task back: its work is saved, and it does nothing until it is resumed."""
    from protocol.live import Pause
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    return steer(place, Pause(key=key or new_key(), task=whole_id(place, task), reason=reason), "Paused.")
