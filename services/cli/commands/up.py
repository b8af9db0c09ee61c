from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from services.cli.account import data_folder
from services.cli.failure import Failure
from services.cli.link import print_link
from services.cli.options import json_option


@click.command("up")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Where everything is kept.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8420,
    envvar="ERRAND_PORT",
    show_default=True,
    help="0 takes a free one.",
)
@click.option("--bind", default="127.0.0.1", envvar="ERRAND_BIND", show_default=True, help="The address to listen on.")
@click.option(
    "--public-url",
    default="",
    envvar="ERRAND_PUBLIC_URL",
    metavar="URL",
    help="Where phones reach this server, if elsewhere.",
)
@click.option("--allow-http", is_flag=True, envvar="ERRAND_ALLOW_HTTP", help="Listen beyond this machine without TLS.")
@json_option
def command(data: Path | None, port: int, bind: str, public_url: str, allow_http: bool, as_json: bool) -> int:
    """Start everything on this machine.

    It shows a link that signs a phone in, and runs until Ctrl-C. Data are kept in --data, ERRAND_DATA or
    ~/.local/share/errand.
    """
    from services import up
    from services.config import WrongSetting

    settings = up.Settings(
        data=data.absolute() if data else data_folder(),
        bind=bind,
        port=port,
        public_url=public_url.rstrip("/"),
        allow_http=allow_http,
    )
    try:
        up.run(settings, os.environ, announce_json if as_json else announce)
    except (up.CannotStart, WrongSetting) as error:
        raise Failure(str(error)) from None
    return 0


def announce_json(ready) -> None:
    from protocol.base import encode

    click.echo(encode(ready).decode())
    sys.stdout.flush()


def announce(ready) -> None:
    """To whoever sits at the server."""
    for notice in ready.notices:
        click.echo(click.style(f"! {notice}", fg="yellow", bold=True))
    click.echo(f"Errand takes work at {ready.server} ({ready.seconds:.1f} s).")
    if is_journal(sys.stdout.fileno(), os.environ.get("JOURNAL_STREAM", "")):
        click.echo("`errand user link` on this machine shows a link that signs a phone in.")
        return
    click.echo("This link signs a phone in, once:\n")
    print_link(ready.link)
    click.echo(f"\n{ready.reach}")
    click.echo('Send a task from another terminal: errand submit "…" --repo URL. Ctrl-C stops everything.')


def is_journal(descriptor: int, stream: str) -> bool:
    """Whether what we print goes into systemd's journal (systemd.exec on JOURNAL_STREAM), where a link would stay for
    everybody who may read it."""
    there = os.fstat(descriptor)
    return stream == f"{there.st_dev}:{there.st_ino}"
