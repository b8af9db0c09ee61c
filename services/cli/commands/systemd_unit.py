from __future__ import annotations

import getpass
import sys
from pathlib import Path

import click

from services.cli.account import data_folder
from services.cli.failure import Failure

SETTINGS = "/etc/errand.env"

# KillMode: the supervisor stops the services in order, and what is left after that is killed.
# Not set: what hides or masks parts of /proc, which bubblewrap has to mount anew for each sandbox; and
# ProtectSystem=strict, under which nothing could be pushed to a repository on this machine.
UNIT = """\
[Unit]
Description=Errand: coding work, sent from a phone
Wants=network-online.target
After=network-online.target docker.service

[Service]
User={user}
ExecStart={program} up --data {data}
# ANTHROPIC_API_KEY and every other setting; readable by root alone.
EnvironmentFile=-{settings}
{compiled}Restart=always
RestartSec=2
KillMode=mixed
TimeoutStopSec=60
UMask=0077
NoNewPrivileges=yes
PrivateTmp=yes
ProtectSystem=full

[Install]
WantedBy=multi-user.target
"""


@click.command("systemd-unit")
@click.option("--user", default=getpass.getuser, help="As whom it runs; otherwise you.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Where everything is kept.")
def command(user: str, data: Path | None) -> int:
    """Print a systemd unit that keeps `errand up` running.

    For example `errand systemd-unit | sudo tee /etc/systemd/system/errand.service`. Settings, ANTHROPIC_API_KEY too, go
    into /etc/errand.env.
    """
    click.echo(unit(user, data.absolute() if data else data_folder(), Path(sys.prefix)), nl=False)
    return 0


def unit(user: str, data: Path, environment: Path) -> str:
    """`environment` is the virtual environment that Errand is installed in."""
    # Where `make` compiled everything: the service's user cannot write beside the code.
    compiled = environment / "pycache"
    return UNIT.format(
        user=user,
        program=quoted(str(environment / "bin" / "errand")),
        data=quoted(str(data)),
        settings=SETTINGS,
        compiled=f"Environment={quoted(f'PYTHONPYCACHEPREFIX={compiled}')}\n" if compiled.is_dir() else "",
    )


def quoted(text: str) -> str:
    """One word of a unit file (systemd.syntax)."""
    if set(text) & set('\n"\\$'):
        raise Failure(f"A systemd unit cannot name {text!r}: choose a folder without quotes, backslashes and `$`.")
    return '"' + text.replace("%", "%%") + '"'
