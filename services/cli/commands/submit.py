from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import click

from protocol.ids import KEY_LIMIT_BYTES
from protocol.live import Submit
from protocol.rules import Rule, RuleAction
from protocol.task import DEFAULT_QUEUE, PRIORITY_LIMIT, Budget
from protocol.texts import wrong_text
from services.cli.amounts import Amount, wished
from services.cli.failure import Failure, tell
from services.cli.options import Place, client_command, is_terminal, key_option
from services.cli.times import Duration, Moment

ASK_BEFORE = {
    "nothing": (Rule(action=RuleAction.ALLOW),),
    "finish": (Rule(action=RuleAction.ASK, tool="finish"),),
    "changes": tuple(Rule(action=RuleAction.ASK, tool=tool) for tool in ("bash", "edit", "finish")),
    "everything": (Rule(action=RuleAction.ASK),),
}
"""What `--ask-before` stands for; `finish` is what commits and pushes."""


@client_command("submit")
@click.argument("prompt")
@click.option("--repo", metavar="URL|PATH", help="The git repository; otherwise the one you stand in.")
@click.option("--base", default="", help="The branch, tag or commit to start from.")
@click.option("--model", default="", help="The model's name.")
@click.option("--budget-usd", type=Amount(float), help='What a turn may cost, or "unlimited".')
@click.option("--budget-tokens", type=Amount(int), help="Tokens a turn may use.")
@click.option("--budget-steps", type=Amount(int), help="Model and tool calls a turn may make.")
@click.option("--title", default="", help="A short name for the lists.")
@click.option("--queue", default=DEFAULT_QUEUE, show_default=True, help="Whose runners it waits for.")
@click.option("--label", "labels", multiple=True, help="What its runner must have, as gpu; may be given again.")
@click.option("--tag", "tags", multiple=True, help="Mark it, to find it again; may be given again.")
@click.option("--meta", multiple=True, metavar="NAME=VALUE", help="Mark it with a value under a name.")
@click.option(
    "--priority",
    type=click.IntRange(-PRIORITY_LIMIT, PRIORITY_LIMIT),
    default=0,
    help="Which of your own goes first: -10 to 10.",
)
@click.option("--pull-request/--no-pull-request", default=True, help="Open one for the branch; the default.")
@click.option("--ask-before", type=click.Choice(list(ASK_BEFORE)), help="What it asks before, instead of your rules.")
@click.option("--at", "at", type=Moment(), help='Not before this time: "2026-12-01 09:00".')
@click.option("--in", "after", type=Duration(), help="Not before so long from now: 2h.")
@click.option("--queue-limit", type=Duration(), help="A turn that no runner has begun after so long fails.")
@click.option("--deadline", type=Duration(), help="A turn is ended after so long, its work saved.")
@key_option("task")
@click.option("--watch/--no-watch", "watched", default=None, help="Follow it; the default on a terminal.")
def command(
    place: Place,
    prompt: str,
    repo: str | None,
    base: str,
    model: str,
    budget_usd: float | str | None,
    budget_tokens: int | str | None,
    budget_steps: int | str | None,
    title: str,
    queue: str,
    labels: tuple[str, ...],
    tags: tuple[str, ...],
    meta: tuple[str, ...],
    priority: int,
    pull_request: bool,
    ask_before: str | None,
    at: datetime | None,
    after: float | None,
    queue_limit: float | None,
    deadline: float | None,
    key: str,
    watched: bool | None,
) -> int:
    """Send a task. PROMPT says what to do; `-` reads it from stdin."""
    from services.cli import repository
    from services.cli.filters import pairs
    from services.cli.given import given, must_be_utf_8
    from services.cli.receipts import new_key
    from services.cli.watching import interrupted, live

    text = given(prompt)
    _check(text, key)
    if at is not None and after is not None:
        raise click.UsageError("Either --at or --in.")
    if at is not None and at <= datetime.now(UTC):
        tell(f"--at {at:%Y-%m-%d %H:%M %Z} has passed: the task begins at once.")
    chosen = repository.choose(repo, Path.cwd())
    must_be_utf_8([chosen])  # a folder's name may have any bytes
    frame = Submit(
        key=key or new_key(),
        prompt=text,
        repository=chosen,
        base=base,
        model=model,
        budget=Budget(money_usd=wished(budget_usd), tokens=wished(budget_tokens), steps=wished(budget_steps)),
        title=title,
        queue=queue,
        labels=labels,
        priority=priority,
        tags=tags,
        metadata=pairs(meta),
        pull_request=pull_request,
        rules=ASK_BEFORE[ask_before] if ask_before else (),
        start_at=at if after is None else datetime.now(UTC) + timedelta(seconds=after),
        queue_seconds=queue_limit,
        turn_seconds=deadline,
    )
    if watched is None:
        watched = is_terminal(1) and not place.as_json
    sent: list[str] = []
    try:
        return live(place, partial(_send, place=place, frame=frame, is_known_key=bool(key), watched=watched, sent=sent))
    except KeyboardInterrupt:
        if not sent:
            raise
        return interrupted(sent[0])


async def _send(session, *, place: Place, frame: Submit, is_known_key: bool, watched: bool, sent: list[str]) -> int:
    from services.cli.receipts import carry_out
    from services.cli.watching import watch

    done = await carry_out(session, frame)
    sent.append(done.task)
    if is_known_key:
        _must_be_this_one(place, done.task, frame)
    if place.as_json:
        click.echo(json.dumps({"task": done.task, "key": frame.key, "sequence": done.sequence}))
    elif watched:
        click.echo(f"task {done.task}")
    else:
        click.echo(done.task)
        click.echo(f"`errand watch {done.task}` follows it.", err=True)
    return await watch(session, place, done.task) if watched else 0


def _must_be_this_one(place: Place, task: str, frame: Submit) -> None:
    """Who gives the same key twice by mistake believes that the second task is under way."""
    from services.cli.api import path, read

    shown = read(place.api.get(path("tasks", task)), dict[str, Any])
    if shown["task"].get("prompt", "").split() != frame.prompt.split():
        raise Failure(f"This key stands for {task} already, which has another prompt: use another key.")


def _check(prompt: str, key: str) -> None:
    if wrong := wrong_text(prompt, "prompt"):
        raise Failure(wrong)
    if len(key.encode()) > KEY_LIMIT_BYTES:
        raise Failure(f"The key is longer than {KEY_LIMIT_BYTES} bytes.")
