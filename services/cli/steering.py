"""One command to one task, told when it is done."""

from __future__ import annotations

import json
from functools import partial

import click

from protocol.live import CommandFrame
from services.cli.options import Place
from services.cli.receipts import carry_out
from services.cli.watching import live


def steer(place: Place, frame: CommandFrame, told: str) -> int:
    """Send `frame` and say `told` (empty: the task's id), or the receipt as JSON. Raises Failure with the reason when
    it was rejected."""
    done = live(place, partial(carry_out, command=frame))
    answer = {"task": done.task, "key": frame.key, "sequence": done.sequence}
    click.echo(json.dumps(answer) if place.as_json else told or done.task)
    return 0
