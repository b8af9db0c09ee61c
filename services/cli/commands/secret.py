from __future__ import annotations

import json
from typing import Any

import click

from services.cli.failure import Failure
from services.cli.given import from_stdin
from services.cli.options import Place, client_command, is_terminal

FOR_ALL = "every repository"


@click.group("secret")
def command() -> None:
    """Give secrets to the set-ups of your repositories."""


def _set(place: Place, name: str, repo: str) -> int:
    """Set the secret NAME, such as NPM_TOKEN, in the place of the one before.

    The set-up scripts (.errand/setup.sh) of your tasks find it as a variable of this name; the agent never does.

    The value is asked for here, or read from stdin; a line break at its end is left out. The server seals it; nobody
    can read it back.
    """
    from services.cli.api import path
    from services.cli.text import safe_json

    answer = place.api.post(path("secrets"), {"name": name, "value": _value(name), "repository": repo})
    where = f"on {repo}" if repo else f"on {FOR_ALL}; --repo URL is for one alone"
    said = f"Set-ups of your tasks find it as ${name}, {where}. Each is made anew with it."
    click.echo(safe_json(answer.decode()) if place.as_json else said)
    return 0


def _value(name: str) -> str:
    """Never an argument: those are seen by every user of the machine and kept by the shell."""
    value = click.prompt(name, hide_input=True, err=True) if is_terminal(0) else from_stdin()
    value = value.removesuffix("\n").removesuffix("\r")
    if not value.strip():
        raise Failure("The secret is empty: type it, or give it on stdin.")
    return value


def _rm(place: Place, name: str, repo: str) -> int:
    """Forget the secret NAME; with --repo the one for that repository."""
    from urllib.parse import urlencode

    from services.cli.api import path

    query = f"?{urlencode({'repository': repo})}" if repo else ""
    place.api.delete(path("secrets", name) + query, {})
    forgotten = {"name": name, "repository": repo}
    click.echo(json.dumps(forgotten) if place.as_json else f"The secret {name} is forgotten.")
    return 0


def _ls(place: Place) -> int:
    """List your secrets by name; their values are shown to nobody."""
    from services.cli.api import path, read
    from services.cli.tables import print_table
    from services.cli.text import safe_json

    content = place.api.get(path("secrets"))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    known = read(content, dict[str, list[dict[str, Any]]]).get("secrets", [])
    rows = [[one.get("name"), one.get("repository") or FOR_ALL, one.get("set_at")] for one in known]
    print_table(("secret", "for set-ups of", "set at"), rows)
    return 0


_repo = click.option("--repo", metavar="URL", default="", help="For this repository alone; otherwise for all.")
_name = click.argument("name")
command.add_command(client_command("set")(_name(_repo(_set))))
command.add_command(client_command("rm")(_name(_repo(_rm))))
command.add_command(client_command("ls")(_ls))
