"""`errand`: a client like the phone. What a command needs is imported when it runs, so that all of them start fast."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from services.cli.failure import Failure, show
from services.cli.given import must_be_utf_8

INTERRUPTED = 130
"""What shells expect of a program that Ctrl-C ended."""

COMMANDS = {
    "up": "Start everything on this machine.",
    "submit": "Send a task.",
    "schedule": "Have tasks submitted by the calendar.",
    "watch": "Follow a task as it happens.",
    "ls": "List your tasks, those that need you first.",
    "show": "Show where a task stands.",
    "diff": "Show what a task changed.",
    "message": "Say something to a task: it steers the work, or opens the next turn.",
    "answer": "Answer a task's question.",
    "approve": "Let a task do what it asks to do.",
    "deny": "Do not let a task do what it asks to do, and say why.",
    "budget": "Change what a turn of a task may spend.",
    "cancel": "Stop a task.",
    "queue": "See what waits for a runner and why, what runs, and who serves which queue.",
    "priority": "Let a task go sooner, or later, than your others.",
    "pause": "Hold a task back: its work is saved.",
    "resume": "Let a paused task go on.",
    "retry": "Try a task that failed or was cancelled again.",
    "fork": "Start a new task from another one's work.",
    "tag": "Mark a task, so that it is found again.",
    "archive": "Put an ended task away.",
    "systemd-unit": "Print a systemd unit that keeps `errand up` running.",
    "welcome": "Wait until every service takes work, and show a link that signs a phone in.",
    "login": "Sign this machine in by a link.",
    "settings": "See and change what your tasks have by default, and what was spent today.",
    "rules": "Say what your tasks may do unasked.",
    "device": "See where you are signed in, and sign a device out.",
    "user": "Give other people access (the owner).",
    "host": "Give Errand credentials for a git host (the owner).",
    "secret": "Give secrets to the set-ups of your repositories.",
    "setup": "See what set-ups have left on this machine, and forget it.",
    "sql": "Ask the history in SQL (the owner).",
    "dead": "What could not be read or handled (the owner).",
    "doctor": "Check this machine and the server.",
    "nats-context": "Let the `nats` CLI on this machine read the events.",
    "demo": "See a whole task on real parts, in a folder of its own.",
}
"""Each command's first line of help; its code is `services/cli/commands/<name>.py`, `-` written `_`."""


class Errand(click.Group):
    """The group of all commands, each loaded by its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"services.cli.commands.{cmd_name.replace('-', '_')}")
        return module.command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=list(COMMANDS), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run one command: what it returns is the exit code, and whatever goes wrong is one sentence."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, *rest, standalone_mode=False, **extra)
        sys.exit(self._run(given, *rest, **extra))

    def _run(self, args: list[str], *rest: Any, **extra: Any) -> int:
        as_json = "--json" in args
        try:
            must_be_utf_8(args)
            color = False if os.environ.get("NO_COLOR") else None  # https://no-color.org; None: as the terminal is
            code = super().main(args, *rest, standalone_mode=False, color=color, **extra)
            sys.stdout.flush()
        except click.ClickException as error:
            show(error, as_json=as_json)
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except BrokenPipeError:
            # The reader of our output has gone (`| head`): what Python still wants to flush goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            if os.environ.get("ERRAND_DEBUG"):
                raise
            show(Failure(f"This should not have happened ({type(error).__name__}: {error}). {REPORT}"), as_json=as_json)
            return 1
        return code if isinstance(code, int) else 0


REPORT = "Please report it, with what `ERRAND_DEBUG=1` before the command shows."


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"errand {version('errand')}")
    ctx.exit()


@click.group(cls=Errand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version.")
def errand() -> None:
    """Send coding work to a server of your own; get a pushed branch back."""


def main() -> None:
    """The entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that is not UTF-8 gets `?`, not a traceback
    errand(prog_name="errand")
