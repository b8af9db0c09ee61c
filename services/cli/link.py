"""A link that signs a device in: as text, and as a QR code for whoever sits at a terminal."""

from __future__ import annotations

import sys

import click

from services.cli.text import one_line


def print_link(link: str) -> None:
    click.echo(one_line(link))
    if sys.stdout.isatty():
        import segno

        segno.make(link, error="l").terminal(compact=True)
