from __future__ import annotations

import json
from typing import Any

import click

from services.cli.options import Place, client_command


@click.group("dead")
def command() -> None:
    """What could not be read or handled (the owner)."""


def _ls(place: Place, after: int) -> int:
    """List dead letters, the oldest first."""
    from services.cli.api import path, read
    from services.cli.tables import print_table
    from services.cli.text import one_line, safe_json

    content = place.api.get(path("dead"), after=after)
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    letters = read(content, dict[str, list[dict[str, Any]]]).get("letters", [])
    rows = [
        [one["sequence"], one["at"][:19], one["subject"], one["size_bytes"], one_line(one["reason"], 80)]
        for one in letters
    ]
    print_table(("letter", "when", "subject", "bytes", "reason"), rows)
    return 0


def _show(place: Place, letter: int) -> int:
    """Show one, with the beginning of its text as it came."""
    from services.cli.api import path, read
    from services.cli.text import one_line, safe_json

    content = place.api.get(path("dead", str(letter)))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    for name, value in read(content, dict[str, Any]).items():
        click.echo(f"{name}\t{one_line(str(value))}")
    return 0


def _put_back(place: Place, letter: int) -> int:
    """Send a user's command to a task once more. Put back twice, it is done once."""
    from services.cli.api import path, read

    done = read(place.api.post(path("dead", str(letter), "put-back"), {}), dict[str, Any])
    task, key = done.get("task", ""), done.get("key", "")
    click.echo(json.dumps({"task": task, "key": key}) if place.as_json else f"Sent to {task}, under the key {key}.")
    return 0


def _rm(place: Place, letter: int) -> int:
    """Forget one."""
    from services.cli.api import path

    place.api.delete(path("dead", str(letter)), {})
    click.echo(json.dumps({"letter": letter}) if place.as_json else "Forgotten.")
    return 0


_letter = click.argument("letter", type=int)
_after = click.option("--after", type=int, default=0, help="Only those behind this one.")
command.add_command(client_command("ls")(_after(_ls)))
command.add_command(client_command("show")(_letter(_show)))
command.add_command(client_command("put-back")(_letter(_put_back)))
command.add_command(client_command("rm")(_letter(_rm)))
