from __future__ import annotations

import json
from typing import Any

import click

from services.cli.link import print_link
from services.cli.options import Place, client_command


@click.group("user")
def command() -> None:
    """Give other people access (the owner)."""


def _add(place: Place, name: str) -> int:
    """Add a person; the link signs their first device in, once."""
    from services.cli.api import path, read
    from services.cli.text import safe_json

    content = place.api.post(path("users"), {"name": name})
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    click.echo(f"{name} is added. This link signs a device in, once:", err=True)
    print_link(str(read(content, dict[str, Any]).get("link", "")))
    return 0


def _ls(place: Place) -> int:
    """List who has access."""
    from services.cli.api import path, read
    from services.cli.tables import print_table
    from services.cli.text import safe_json

    content = place.api.get(path("users"))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    users = read(content, dict[str, list[dict[str, Any]]]).get("users", [])
    rows = [
        [
            user.get("id", user.get("user")),
            user.get("name"),
            user.get("role"),
            len(user.get("devices", ())),
            user.get("github", ""),
        ]
        for user in users
    ]
    print_table(("user", "name", "role", "devices", "GitHub"), rows)
    return 0


def _forget_github(place: Place, user: str) -> int:
    """Drop the GitHub account of USER, an id of `errand user ls`, with its tokens; another may be bound then."""
    from services.cli.api import path

    place.api.delete(path("users", user, "github"), {})
    click.echo(json.dumps({"user": user}) if place.as_json else f"The GitHub account of {user} is forgotten.")
    return 0


def _link(place: Place) -> int:
    """Make a link that signs another device of yours in, once."""
    from services.cli.api import path, read
    from services.cli.text import safe_json

    content = place.api.post(path("sign-in-codes"), {})
    if place.as_json:
        click.echo(safe_json(content.decode()))
    else:
        print_link(str(read(content, dict[str, Any]).get("link", "")))
    return 0


command.add_command(client_command("add")(click.argument("name")(_add)))
command.add_command(client_command("ls")(_ls))
command.add_command(client_command("link")(_link))
command.add_command(client_command("forget-github")(click.argument("user")(_forget_github)))
