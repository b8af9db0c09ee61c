from __future__ import annotations

from typing import Any

import click
import msgspec

from protocol.rules import EVERY_TOOL, RULED_TOOLS, Rule, RuleAction
from services.cli.failure import Failure
from services.cli.options import Place, client_command

ACTIONS = click.Choice([action.value for action in RuleAction])


@click.group("rules")
def command() -> None:
    """Say what your tasks may do unasked.

    Of all rules the first that matches a tool call decides; where none does, the call is allowed. Changes count from
    each task's next attempt.
    """


class Rules(msgspec.Struct, frozen=True):
    """The body and the answer of `/api/rules`."""

    rules: tuple[Rule, ...]


def _ls(place: Place) -> int:
    """List the rules, in their order."""
    _show(place, _rules(place))
    return 0


def _add(place: Place, action: str, tool: str, pattern: str, at: int | None) -> int:
    """Add a rule, at the end or where --at says.

    PATTERN is a glob over the command, or over the path from the repository's root:
    `errand rules add deny bash "git push*"`
    """
    rules = list(_rules(place))
    rules.insert(len(rules) if at is None else at - 1, Rule(action=RuleAction(action), tool=tool, pattern=pattern))
    _put(place, rules)
    return 0


def _rm(place: Place, number: int) -> int:
    """Remove the rule with this NUMBER of `errand rules ls`."""
    rules = list(_rules(place))
    if number > len(rules):
        raise Failure(f"There are {len(rules)} rules: `errand rules ls` shows them.")
    del rules[number - 1]
    _put(place, rules)
    return 0


def _set(place: Place, text: str) -> int:
    """Set all rules at once: JSON as `errand rules ls --json` writes it; `-` reads it from stdin."""
    from services.cli.given import given

    try:
        rules = msgspec.json.decode(given(text), type=Rules).rules
    except msgspec.MsgspecError as error:
        raise Failure(f"These are no rules ({error}): `errand rules ls --json` shows how they are written.") from None
    _put(place, rules)
    return 0


def _rules(place: Place) -> tuple[Rule, ...]:
    from services.cli.api import path, read

    return read(place.api.get(path("rules")), Rules).rules


def _put(place: Place, rules: Any) -> None:
    from services.cli.api import path

    place.api.put(path("rules"), Rules(rules=tuple(rules)))
    _show(place, rules)


def _show(place: Place, rules: Any) -> None:
    from services.cli.tables import print_table

    if place.as_json:
        click.echo(msgspec.json.encode(Rules(rules=tuple(rules))).decode())
    elif not rules:
        click.echo("There are no rules: everything is allowed.", err=True)
    else:
        rows = [[number, rule.action.value, rule.tool, rule.pattern] for number, rule in enumerate(rules, 1)]
        print_table(("rule", "action", "tool", "pattern"), rows)


add = click.argument("pattern", default="*")(click.option("--at", type=click.IntRange(1), help="Its number.")(_add))
add = click.argument("tool", type=click.Choice(RULED_TOOLS), default=EVERY_TOOL)(add)
command.add_command(client_command("ls")(_ls))
command.add_command(client_command("add")(click.argument("action", type=ACTIONS)(add)))
command.add_command(client_command("rm")(click.argument("number", type=click.IntRange(1))(_rm)))
command.add_command(client_command("set")(click.argument("text", metavar="JSON")(_set)))
