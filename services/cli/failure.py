"""What goes wrong is told in one sentence that says what to do."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap

import click


class Failure(click.ClickException):
    """Ends the command with exit code 1. The message is for a person; what a server said in it is cleaned later."""

    exit_code = 1


def show(error: click.ClickException, *, as_json: bool) -> None:
    """On stderr for people, on stdout for programs."""
    from services.cli.text import clean

    if as_json:
        click.echo(json.dumps({"error": clean(error.format_message())}))
    elif isinstance(error, click.UsageError):
        error.show()
    else:
        tell(f"errand: {clean(error.format_message())}")


def tell(text: str) -> None:
    """A sentence to whoever sits here, apart from the answer. Words stay whole: commands in it can be copied."""
    if sys.stderr.isatty() and "\n" not in text:
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    click.echo(text, err=True)
