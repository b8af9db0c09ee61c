from __future__ import annotations

import click

from protocol.query import TaskFilter
from services.cli.filters import filter_options
from services.cli.options import Place, client_command, key_option


@client_command("retry")
@click.argument("task", required=False, default="")
@filter_options
@click.option("--yes", is_flag=True, help="Many tasks at once, without being asked.")
@key_option("wish")
def command(place: Place, task: str, where: TaskFilter, yes: bool, key: str) -> int:
    """Try a task that failed or was cancelled again: the same wish, from where the work stands. Or all that the options
    find."""
    from protocol.live import Retry
    from services.cli.receipts import new_key

    key = key or new_key()
    if not task:
        from protocol.user import BulkAction
        from services.cli.many import steer_many

        return steer_many(place, BulkAction.RETRY, where, key=key, yes=yes)
    from services.cli.filters import must_be_one
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    must_be_one(where)
    return steer(place, Retry(key=key, task=whole_id(place, task)), "It is tried again.")
