from __future__ import annotations

import click

from services.cli.options import Place, client_command, key_option


@client_command("deny")
@click.argument("task")
@click.argument("reason", required=False, default="")
@click.option("--question", default="", help="The question's id, where no other one must be denied.")
@key_option("word")
def command(place: Place, task: str, reason: str, question: str, key: str) -> int:
    """Do not let a task do what it asks to do, and say why: it is told REASON, and goes on without."""
    from protocol.live import Deny
    from services.cli.given import given
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import asked_of

    reason = given(reason).strip()
    task, asked = asked_of(place, task, question)
    frame = Deny(key=key or new_key(), task=task, question=asked.id, reason=reason)
    return steer(place, frame, "Denied.")
