from __future__ import annotations

import click

from protocol.query import TaskFilter
from services.cli.filters import filter_options
from services.cli.options import Place, client_command, key_option


@client_command("pause")
@click.argument("task", required=False, default="")
@filter_options
@click.option("--reason", default="", help="Shown with the task.")
@click.option("--yes", is_flag=True, help="Many tasks at once, without being asked.")
@key_option("wish")
def command(place: Place, task: str, where: TaskFilter, reason: str, yes: bool, key: str) -> int:
    """Hold a task back: its work is saved, and it does nothing until it is resumed. Or all that the options find."""
    from protocol.live import Pause
    from services.cli.receipts import new_key

    key = key or new_key()
    if not task:
        from protocol.user import BulkAction
        from services.cli.many import steer_many

        return steer_many(place, BulkAction.PAUSE, where, key=key, reason=reason, yes=yes)
    from services.cli.filters import must_be_one
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    must_be_one(where)
    return steer(place, Pause(key=key, task=whole_id(place, task), reason=reason), "Paused.")
