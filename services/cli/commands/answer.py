from __future__ import annotations

import click

from services.cli.options import Place, client_command, is_terminal, key_option


@client_command("answer")
@click.argument("task", required=False, default="")
@click.argument("text", required=False, default="")
@click.option("--question", default="", help="The question's id, where an older one must not be answered.")
@key_option("answer")
def command(place: Place, task: str, text: str, question: str, key: str) -> int:
    """Answer a task's question.

    Without TASK: that of the only task that waits. Without TEXT: asked for here. A number picks one of the choices.
    Where an approval is asked for, `yes` approves, and anything else denies and is the reason.
    """
    from services.cli.failure import Failure
    from services.cli.following import reply
    from services.cli.receipts import new_key
    from services.cli.steering import steer
    from services.cli.tasks import WHOLE_ID, asked_of

    if task and not text and not WHOLE_ID.fullmatch(task):
        task, text = "", task
    task, asked = asked_of(place, task, question)
    text = text or _read_answer(asked)
    if not text.strip():
        raise Failure("The answer is empty.")
    frame = reply(task, asked, text.strip(), key or new_key())
    return steer(place, frame, "Answered.")


def _read_answer(asked) -> str:
    """From whoever sits here, or from stdin."""
    from services.cli.following import invitation
    from services.cli.given import from_stdin
    from services.cli.text import clean, one_line

    if not is_terminal(0):
        return from_stdin()
    click.echo(click.style(clean(asked.text).strip(), bold=True), err=True)
    if asked.input:
        click.echo(clean(asked.input), err=True)
    for number, choice in enumerate(asked.choices, 1):
        click.echo(f"  {number}) {one_line(choice)}", err=True)
    return click.prompt(invitation(asked).removesuffix(": "), err=True)
