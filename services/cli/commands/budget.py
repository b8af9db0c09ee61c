from __future__ import annotations

import json
from functools import partial

import click

from protocol.task import Budget
from services.cli.amounts import Amount, wished
from services.cli.failure import Failure
from services.cli.options import Place, client_command, key_option


@client_command("budget")
@click.argument("task")
@click.option("--usd", type=Amount(float), help='What a turn may cost, or "unlimited".')
@click.option("--tokens", type=Amount(int), help="Tokens a turn may use.")
@click.option("--steps", type=Amount(int), help="Model and tool calls a turn may make.")
@click.option("--seconds", type=Amount(float), help="How long a turn may work.")
@key_option("wish")
def command(
    place: Place,
    task: str,
    usd: float | str | None,
    tokens: int | str | None,
    steps: int | str | None,
    seconds: float | str | None,
    key: str,
) -> int:
    """Change what a turn of a task may spend.

    A running turn has it before its next step; one that a limit has ended goes on with `errand message`.
    """
    from protocol.live import ChangeBudget
    from services.cli import units
    from services.cli.receipts import carry_out, new_key
    from services.cli.tasks import whole_id
    from services.cli.watching import live

    budget = Budget(money_usd=wished(usd), tokens=wished(tokens), steps=wished(steps), wall_seconds=wished(seconds))
    if budget == Budget():
        raise Failure("Say what a turn may spend: --usd, --tokens, --steps or --seconds.")
    frame = ChangeBudget(key=key or new_key(), task=whole_id(place, task), budget=budget)
    done = live(place, partial(carry_out, command=frame))
    answer = {"task": done.task, "key": frame.key, "sequence": done.sequence}
    click.echo(json.dumps(answer) if place.as_json else f"A turn may spend {units.budget(budget)} from now on.")
    return 0
