from __future__ import annotations

import sys

import click

from services.cli.options import Place, client_command

BOLD = ("+++", "---", "diff ")
COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@client_command("diff")
@click.argument("task")
def command(place: Place, task: str) -> int:
    """Show what a task changed, as a unified diff."""
    from protocol.repo import Diff
    from services.cli.api import path, read
    from services.cli.tasks import whole_id
    from services.cli.text import safe_json

    content = place.api.get(path("tasks", whole_id(place, task), "diff"))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    print_diff(read(content, Diff))
    return 0


def print_diff(diff) -> None:
    """Coloured on a terminal; in a pipe as it is, so that `git apply` takes it."""
    from services.cli.text import clean

    if not diff.text:
        click.echo("Nothing was changed.", err=True)
    elif sys.stdout.isatty():
        for line in clean(diff.text).rstrip("\n").split("\n"):
            click.echo(coloured(line))
    else:
        sys.stdout.write(diff.text if diff.text.endswith("\n") else diff.text + "\n")
    if diff.cut:
        click.echo("The diff is longer than this: fetch the branch to see all of it.", err=True)


def coloured(line: str) -> str:
    """By how a line of a unified diff begins."""
    if line.startswith(BOLD):
        return click.style(line, bold=True)
    return click.style(line, fg=COLOURS[line[0]]) if line[:1] in COLOURS else line
