from __future__ import annotations

from datetime import datetime
from typing import Any

import click
from msgspec import Struct
from msgspec.structs import replace

from protocol.task import Budget
from protocol.user import Settings
from services.cli.amounts import UNLIMITED, Amount, wished
from services.cli.options import Place, client_command


class Shown(Struct, frozen=True):
    """The answer of `GET /api/settings`."""

    settings: Settings
    spent_usd: float
    reserved_usd: float
    limit_usd: float | None
    day_ends: datetime


@client_command("settings")
@click.option("--model", help='For tasks that name none; "" for none.')
@click.option("--budget-usd", type=Amount(float), help='What a turn may cost, or "unlimited".')
@click.option("--budget-tokens", type=Amount(int), help="Tokens a turn may use.")
@click.option("--budget-steps", type=Amount(int), help="Model and tool calls a turn may make.")
@click.option("--time-zone", metavar="NAME", help="When your day begins, such as Europe/Berlin.")
@click.option(
    "--daily-usd", type=Amount(float), help="What all your tasks may spend in a day; it only lowers the limit."
)
def command(
    place: Place,
    model: str | None,
    budget_usd: float | str | None,
    budget_tokens: int | str | None,
    budget_steps: int | str | None,
    time_zone: str | None,
    daily_usd: float | str | None,
) -> int:
    """See and change what your tasks have by default, and what was spent today.

    Changes count from each task's next attempt.
    """
    from services.cli.api import path, read

    content = place.api.get(path("settings"))
    before = read(content, Shown).settings
    budget = Budget(money_usd=wished(budget_usd), tokens=wished(budget_tokens), steps=wished(budget_steps))
    after = replace(
        before,
        model=before.model if model is None else model,
        budget=budget.over(before.budget),
        time_zone=time_zone or before.time_zone,
        daily_usd=before.daily_usd if daily_usd is None else None if daily_usd == UNLIMITED else daily_usd,
    )
    if after != before:
        place.api.put(path("settings"), after)
        content = place.api.get(path("settings"))
    _print(place, content)
    return 0


def _print(place: Place, content: bytes) -> None:
    from services.cli import units
    from services.cli.api import read
    from services.cli.tables import print_table
    from services.cli.text import safe_json

    if place.as_json:
        click.echo(safe_json(content.decode()))
        return
    shown = read(content, Shown)
    limit = "unlimited" if shown.limit_usd is None else units.money(shown.limit_usd)
    reserved = f", {units.money(shown.reserved_usd)} set aside for what runs" if shown.reserved_usd else ""
    rows: list[list[Any]] = [
        ["model", shown.settings.model or "the installation's"],
        ["budget of a turn", units.budget(shown.settings.budget)],
        ["time zone", shown.settings.time_zone],
        ["limit a day", limit],
        ["spent today", f"{units.money(shown.spent_usd)}{reserved}"],
        ["day ends", f"{shown.day_ends:%Y-%m-%d %H:%M} UTC"],
    ]
    print_table(("setting", "value"), rows)
