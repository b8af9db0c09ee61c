from __future__ import annotations

from typing import Any

import click

from services.cli.options import Place, client_command


@click.group("device")
def command() -> None:
    """See where you are signed in, and sign a device out."""


def _ls(place: Place) -> int:
    """List the devices that you are signed in on."""
    from services.cli.api import path, read
    from services.cli.tables import print_table
    from services.cli.text import safe_json

    content = place.api.get(path("me"))
    if place.as_json:
        click.echo(safe_json(content.decode()))
        return 0
    me = read(content, dict[str, Any])
    rows = [
        [
            device.get("id"),
            device.get("name"),
            device.get("added_at"),
            "this one" if device["id"] == me["device"] else "",
        ]
        for device in me.get("devices", ())
    ]
    print_table(("device", "name", "since", ""), rows)
    return 0


def _rm(place: Place, device: str) -> int:
    """Sign a device out, at once.

    DEVICE is its id in `errand device ls`; the owner signs out anybody's, by the id in `errand user ls --json`.
    """
    from services.cli.api import path

    place.api.delete(path("devices", device), {})
    click.echo('{"removed": true}' if place.as_json else "Signed out.")
    return 0


command.add_command(client_command("ls")(_ls))
command.add_command(client_command("rm")(click.argument("device")(_rm)))
