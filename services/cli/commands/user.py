from __future__ import annotations

import json
from typing import Any

import click

from services.cli.amounts import UNLIMITED, Amount
from services.cli.link import print_link
from services.cli.options import Place, client_command, is_terminal

DEFAULT = "default"


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


def _rm(place: Place, user: str, yes: bool) -> int:
    """Sign a person out everywhere, for good, and stop the open tasks.

    USER is the id in `errand user ls`. The tasks stay in the history, so the name cannot be given again.
    """
    from services.cli.api import path

    if not yes and is_terminal(0):
        click.confirm(f"Remove {user} for good?", abort=True)
    place.api.delete(path("users", user), {})
    click.echo('{"removed": true}' if place.as_json else "Removed.")
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


def _limit(place: Place, user: str, daily_usd: float | str) -> int:
    """Say what USER, an id of `errand user ls`, may spend in a day.

    DOLLARS is a number, `unlimited`, or `default` for ERRAND_DAILY_USD_PER_USER.
    """
    from services.cli.api import path

    body = {} if daily_usd == DEFAULT else {"daily_usd": None if daily_usd == UNLIMITED else daily_usd}
    place.api.put(path("users", user, "daily-limit"), body)
    told = {DEFAULT: "the installation's", UNLIMITED: UNLIMITED}.get(str(daily_usd), f"{_money(daily_usd)} a day")
    click.echo(json.dumps({"user": user, **body}) if place.as_json else f"The limit of {user} is {told}.")
    return 0


def _money(amount: float | str) -> str:
    from services.cli import units

    return units.money(float(amount)) if not isinstance(amount, str) else amount


class DailyLimit(Amount):
    """An amount, or the installation's."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | int | str:
        return DEFAULT if value == DEFAULT else super().convert(value, param, ctx)


command.add_command(client_command("add")(click.argument("name")(_add)))
command.add_command(client_command("ls")(_ls))
command.add_command(
    client_command("rm")(click.argument("user")(click.option("--yes", is_flag=True, help="Do not ask.")(_rm)))
)
command.add_command(client_command("link")(_link))
command.add_command(client_command("forget-github")(click.argument("user")(_forget_github)))
command.add_command(
    client_command("limit")(
        click.argument("user")(click.argument("daily_usd", metavar="DOLLARS", type=DailyLimit(float))(_limit))
    )
)
