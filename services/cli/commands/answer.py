from __future__ import annotations

import json
from functools import partial
from typing import Any

import click

from services.cli.options import Place, client_command, is_terminal


@client_command("answer")
@click.argument("task", required=False, default="")
@click.argument("text", required=False, default="")
@click.option("--question", default="", help="The question's id, where an older one must not be answered.")
@click.option("--key", default="", help="The same key is the same answer, however often it is sent.")
def command(place: Place, task: str, text: str, question: str, key: str) -> int:
    """Answer a task's question.

    Without TASK: that of the only task that waits. Without TEXT: asked for here. A number picks one of the choices.
    """
    from protocol.live import Answer
    from services.cli.api import path, read
    from services.cli.failure import Failure
    from services.cli.following import chosen
    from services.cli.receipts import carry_out, new_key
    from services.cli.tasks import WHOLE_ID, task_of, the_waiting_one, whole_id
    from services.cli.watching import live

    if task and not text and not WHOLE_ID.fullmatch(task):
        task, text = "", task
    task = whole_id(place, task) if task else the_waiting_one(place).id
    asked = task_of(read(place.api.get(path("tasks", task)), dict[str, Any])).question
    if asked is None or question not in ("", asked.id):
        raise Failure(f"The task {task} has no such question open: `errand show {task}` tells where it stands.")
    text = text or _read_answer(asked)
    if not text.strip():
        raise Failure("The answer is empty.")
    frame = Answer(key=key or new_key(), task=task, question=asked.id, text=chosen(asked, text.strip()))
    done = live(place, partial(carry_out, command=frame))
    click.echo(
        json.dumps({"task": done.task, "key": frame.key, "sequence": done.sequence}) if place.as_json else "Answered."
    )
    return 0


def _read_answer(asked) -> str:
    """From whoever sits here, or from stdin."""
    from services.cli.given import from_stdin
    from services.cli.text import clean, one_line

    if not is_terminal(0):
        return from_stdin()
    click.echo(click.style(clean(asked.text).strip(), bold=True), err=True)
    for number, choice in enumerate(asked.choices, 1):
        click.echo(f"  {number}) {one_line(choice)}", err=True)
    return click.prompt("Your answer", err=True)
