from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from protocol.user import HostKind
from services.cli.failure import Failure
from services.cli.given import from_stdin
from services.cli.options import Place, client_command, is_terminal

SECRET_LIMIT_CHARS = 16_384


@click.group("host")
def command() -> None:
    """Give Errand credentials for a git host (the owner)."""


def _add(place: Place, host: str, kind: str, username: str, key_file: Path | None, shared: bool) -> int:
    """Add or replace the credential for HOST, such as github.com. It serves your own tasks, with --shared everybody's.

    An access token (asked for here, or read from stdin), or with --key-file an SSH private key without passphrase. The
    server seals it; nobody can read it back.
    """
    from services.cli.api import path

    if key_file is not None:
        kind = HostKind.SSH_KEY.value
    secret = _secret(kind, key_file)
    place.api.post(
        path("hosts"), {"host": host, "kind": kind, "username": username, "secret": secret, "shared": shared}
    )
    whose = "every user's tasks" if shared else "your tasks only; --shared is for every user's"
    shown = {"host": host, "kind": kind, "shared": shared}
    click.echo(json.dumps(shown) if place.as_json else f"Errand can use {host} now, for {whose}.")
    return 0


def _secret(kind: str, key_file: Path | None) -> str:
    """Never an argument: those are seen by every user of the machine and kept by the shell."""
    if key_file is not None:
        secret = key_file.read_text(errors="replace")
        if "PRIVATE KEY" not in secret:
            raise Failure(f"{key_file} is not a private key: give the file without `.pub`.")
    elif not is_terminal(0):
        secret = from_stdin()
    elif kind == HostKind.SSH_KEY.value:
        raise Failure("Say where the private key is: `--key-file PATH`.")
    else:
        secret = click.prompt("Access token", hide_input=True, err=True)
    if kind == HostKind.TOKEN.value:
        secret = secret.strip()
    if not secret.strip() or len(secret) > SECRET_LIMIT_CHARS:
        raise Failure("The secret is empty." if not secret.strip() else "The secret is too long.")
    return secret


def _rm(place: Place, host: str) -> int:
    """Forget the credential for HOST."""
    from services.cli.api import path

    place.api.delete(path("hosts"), {"host": host})
    click.echo(json.dumps({"host": host}) if place.as_json else f"The credential for {host} is forgotten.")
    return 0


def _ls(place: Place) -> int:
    """List the hosts that have a credential."""
    from services.cli.api import path, read
    from services.cli.tables import print_table
    from services.cli.text import safe_json

    content = place.api.get(path("hosts"))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    hosts = read(content, dict[str, list[dict[str, Any]]]).get("hosts", [])
    rows = [
        [one.get("host"), one.get("kind"), one.get("username", ""), "every user" if one.get("shared") else "the owner"]
        for one in hosts
    ]
    print_table(("host", "kind", "user name", "for tasks of"), rows)
    return 0


_kinds = click.Choice([kind.value for kind in HostKind])
for _option in (
    click.option(
        "--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="An SSH private key."
    ),
    click.option("--shared", is_flag=True, help="Let every user's tasks use it, not only the owner's."),
    click.option("--username", default="", help="The HTTP user name that goes with a token."),
    click.option("--kind", type=_kinds, default=HostKind.TOKEN.value, show_default=True, help="What the secret is."),
    click.argument("host"),
):
    _add = _option(_add)
command.add_command(client_command("add")(_add))
command.add_command(client_command("rm")(click.argument("host")(_rm)))
command.add_command(client_command("ls")(_ls))
