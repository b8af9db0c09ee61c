from __future__ import annotations

import click

from protocol.task import PRIORITY_LIMIT
from services.cli.options import Place, client_command, key_option


@client_command("priority", context_settings={"ignore_unknown_options": True})
@click.argument("task")
@click.argument("priority", type=click.IntRange(-PRIORITY_LIMIT, PRIORITY_LIMIT))
@key_option("wish")
def command(place: Place, task: str, priority: int, key: str) -> int:
    """Let a task go sooner, or later, than your others. PRIORITY is -10 to 10, the higher the sooner."""
    from protocol.live import Prioritize
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    frame = Prioritize(key=key or new_key(), task=whole_id(place, task), priority=priority)
    return steer(place, frame, f"Its priority is {priority}.")
