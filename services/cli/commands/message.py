from __future__ import annotations

import click

from services.cli.options import Place, client_command, key_option


@client_command("message")
@click.argument("task")
@click.argument("text")
@key_option("message")
def command(place: Place, task: str, text: str, key: str) -> int:
    """Say something to a task: it steers the work, or opens the next turn. `-` reads TEXT from stdin."""
    from protocol.live import Say
    from protocol.texts import wrong_text
    from services.cli.failure import Failure
    from services.cli.given import given
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    text = given(text)
    if wrong := wrong_text(text, "message"):
        raise Failure(wrong)
    return steer(place, Say(key=key or new_key(), task=whole_id(place, task), text=text), "Sent.")
