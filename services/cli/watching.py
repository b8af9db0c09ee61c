"""Run one command over the live WebSocket, and what Ctrl-C means while a task is watched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import click

from services.cli import INTERRUPTED
from services.cli.account import Account
from services.cli.failure import tell
from services.cli.following import EXIT_CODES, follow
from services.cli.options import Place, is_terminal
from services.cli.screen import choose
from services.cli.session import Session

T = TypeVar("T")


def run(account: Account, work: Callable[[Session], Awaitable[T]]) -> T:
    """Run `work` with a session of its own."""

    async def main() -> T:
        async with Session(account) as session:
            return await work(session)

    return anyio.run(main)


def live(place: Place, work: Callable[[Session], Awaitable[T]]) -> T:
    """Run `work` with a session; what it has seen is remembered for `errand sql`."""

    async def remembering(session: Session) -> T:
        try:
            return await work(session)
        finally:
            place.remember(session.seen)

    return run(place.account, remembering)


async def watch(session: Session, place: Place, task: str) -> int:
    """Follow the task on the screen; return the exit code that its outcome means."""
    screen = choose(as_json=place.as_json)
    interactive = not place.as_json and is_terminal(0) and is_terminal(1)
    return EXIT_CODES[await follow(session, task, screen, interactive=interactive)]


def interrupted(task: str) -> int:
    """After Ctrl-C."""
    click.echo(err=True)
    tell(f"You stopped watching; the task goes on. `errand watch {task}` shows it, `errand cancel {task}` stops it.")
    return INTERRUPTED
