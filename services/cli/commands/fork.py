from __future__ import annotations

import click

from services.cli.options import Place, client_command, key_option


@client_command("fork")
@click.argument("task")
@click.argument("prompt")
@click.option("--model", default="", help="Otherwise the other task's.")
@click.option("--title", default="", help="A short name for the lists.")
@click.option("--tag", "tags", multiple=True, help="Mark it, to find it again; may be given again.")
@key_option("task")
def command(place: Place, task: str, prompt: str, model: str, title: str, tags: tuple[str, ...], key: str) -> int:
    """Start a new task from another one's work, which stays as it is. PROMPT says what to do.

    `-` reads it from stdin.
    """
    from protocol.live import Submit
    from services.cli.failure import Failure
    from services.cli.given import given
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import whole_id

    text = given(prompt)
    if not text.strip():
        raise Failure("The prompt is empty: say what to do.")
    frame = Submit(
        key=key or new_key(), prompt=text, fork_of=whole_id(place, task), model=model, title=title, tags=tags
    )
    return steer(place, frame, "")
