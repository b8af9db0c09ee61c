from __future__ import annotations

import os

import click

from services.cli.failure import Failure
from services.cli.link import print_link
from services.cli.options import json_option

NEEDED = ("ERRAND_DATA", "ERRAND_SERVER")
ELSEWHERE = (
    "{missing} not set: this command is for an installation that `errand up` did not start, with its settings. In "
    "Compose: `docker compose run --rm errand welcome`. Where `errand up` runs, `errand user link` makes a new link."
)


@click.command("welcome")
@json_option
def command(as_json: bool) -> int:
    """Wait until every service takes work, and show a link that signs a phone in.

    For an installation that `errand up` did not start, on its server: it needs the operator's settings (ERRAND_DATA,
    ERRAND_SERVER, ERRAND_NATS_PASSWORD_FILE), and signs this machine's command line in as well.
    """
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        raise Failure(ELSEWHERE.format(missing=f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'}"))
    from protocol.base import encode
    from services.listening import what_works
    from services.welcome import NotReady, from_settings

    try:
        welcome = from_settings(os.environ)
    except NotReady as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(encode(welcome).decode())
        return 0
    for notice in welcome.notices:
        click.echo(click.style(f"! {notice}", fg="yellow", bold=True))
    click.echo("Every service takes work. This link signs a phone in, once:\n")
    print_link(welcome.link)
    click.echo(f"\n{what_works(welcome.link.partition('/#')[0])}")
    return 0
