from __future__ import annotations

import json
import os
from pathlib import Path

import click

from protocol.cells import NO_CELL, Cell
from protocol.routes import Service
from services.cli.account import data_folder
from services.cli.failure import Failure
from services.cli.options import json_option


@click.command("nats-context")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The data folder of `errand up`.")
@json_option
def command(data: Path | None, as_json: bool) -> int:
    """Let the `nats` CLI on this machine read the events.

    It writes a context for a user that may read and send nothing.
    """
    from services.nats_server import password_file, write_secret

    folder = data.absolute() if data else data_folder()
    try:
        password = password_file(folder, Service.READER).read_text().strip()
    except OSError:
        raise Failure(
            f"{folder} is not the data folder of a server: run this on the server, with --data if it is elsewhere."
        ) from None
    cell = Cell(os.environ.get("ERRAND_CELL", ""))
    path = context_file(os.environ.get("XDG_CONFIG_HOME", ""))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_secret(path, json.dumps(context(_url(folder), password, cell), indent=2) + "\n")
    if as_json:
        click.echo(json.dumps({"context": "errand", "path": str(path)}))
        return 0
    click.echo(f"Wrote {path}. With the `nats` CLI (go install github.com/nats-io/natscli/nats@latest):")
    click.echo(f"  nats --context errand sub '{cell.subject('evt.>')}'    every decision and every step, as it happens")
    click.echo("  nats --context errand stream ls      what is kept")
    click.echo("  nats --context errand micro ls       the services")
    click.echo("More in docs/tracing.md.")
    return 0


def context(url: str, password: str, cell: Cell = NO_CELL) -> dict[str, str]:
    """As natscli reads it; the inbox is the only one that this user may hear."""
    reader = cell.user(Service.READER.value)
    return {
        "description": "Errand, read only",
        "url": url,
        "user": reader,
        "password": password,
        "inbox_prefix": f"_INBOX_{reader}",
    }


def context_file(config_home: str) -> Path:
    """Where natscli looks (XDG base directories)."""
    return (Path(config_home) if config_home else Path.home() / ".config") / "nats" / "context" / "errand.json"


def _url(folder: Path) -> str:
    """Where the server listens now; `errand up` writes it down."""
    try:
        return os.environ.get("ERRAND_NATS_URL") or (folder / "nats-url").read_text().strip()
    except OSError:
        raise Failure(f"{folder} does not say where NATS is: start `errand up` once.") from None
