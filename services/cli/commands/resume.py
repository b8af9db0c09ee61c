from __future__ import annotations

import click

from protocol.query import TaskFilter
from services.cli.filters import filter_options
from services.cli.options import Place, client_command, key_option


@client_command("resume")
@click.argument("task", required=False, default="")
@filter_options
@click.option("--yes", is_flag=True, help="Many tasks at once, without being asked.")
@key_option("wish")
def command(place: Place, task: str, where: TaskFilter, yes: bool, key: str) -> int:
    """Let a paused task go on from where it was, or all that the options find."""
    from protocol.live import Resume
    from services.cli.receipts import new_key

    key = key or new_key()
    if not task:
        from protocol.user import BulkAction
        from services.cli.many import steer_many

        return steer_many(place, BulkAction.RESUME, where, key=key, yes=yes)
    from services.cli.filters import must_be_one
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    must_be_one(where)
    return steer(place, Resume(key=key, task=whole_id(place, task)), "It goes on.")
