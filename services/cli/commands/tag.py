from __future__ import annotations

import click

from services.cli.options import Place, client_command, key_option


@client_command("tag")
@click.argument("task")
@click.argument("tags", nargs=-1)
@click.option("--remove", multiple=True, metavar="TAG", help="Take this tag away.")
@click.option("--meta", multiple=True, metavar="NAME=VALUE", help="Put this under this name.")
@click.option("--unset", multiple=True, metavar="NAME", help="Take away what is under this name.")
@key_option("wish")
def command(
    place: Place,
    task: str,
    tags: tuple[str, ...],
    remove: tuple[str, ...],
    meta: tuple[str, ...],
    unset: tuple[str, ...],
    key: str,
) -> int:
    """Mark a task, so that it is found again: with TAGS, or with metadata."""
    from protocol.live import Tag
    from services.cli.failure import Failure
    from services.cli.filters import pairs
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    metadata = {**pairs(meta), **dict.fromkeys(unset)}
    if not (tags or remove or metadata):
        raise Failure("Say what to mark it with: `errand tag TASK bug`, or --meta NAME=VALUE.")
    frame = Tag(key=key or new_key(), task=whole_id(place, task), add=tags, remove=remove, metadata=metadata)
    return steer(place, frame, "Marked.")
