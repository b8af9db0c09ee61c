from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from services.cli.account import data_folder
from services.cli.failure import Failure
from services.cli.options import json_option

if TYPE_CHECKING:
    from sandbox.setup import KeptSetup, Setups

KEY_SHOWN = 12
"""Characters of a key that are shown, and enough to name it by."""
IN_USE = "in use by a sandbox: try again when its task has ended"


@click.group("setup")
def command() -> None:
    """See what set-ups have left on this machine, and forget it."""


@command.command("ls")
@json_option
def ls(as_json: bool) -> int:
    """List the set-ups that are kept on this machine, the last used first. For who runs the server."""
    import anyio

    kept = anyio.run(_kept, data_folder())
    if as_json:
        from protocol.base import encode

        click.echo(encode({"setups": kept}).decode())
        return 0
    from services.cli.tables import print_table

    rows = [
        [one.key[:KEY_SHOWN], one.repository, one.what, _size(one), _age(one.made_at), _age(one.used_at)]
        for one in kept
    ]
    print_table(("set-up", "repository", "made by", "size", "made before", "used before"), rows)
    return 0


@command.command("forget")
@click.argument("keys", nargs=-1, metavar="[SET-UP]...")
@click.option("--repo", metavar="URL", default="", help="All of this repository, as `errand setup ls` writes it.")
@json_option
def forget(keys: tuple[str, ...], repo: str, as_json: bool) -> int:
    """Forget set-ups by their name in `errand setup ls`: the next task that needs one makes it anew.

    For who runs the server. One that a sandbox uses stays; then the exit code is 1.
    """
    import anyio

    if not keys and not repo:
        raise Failure("Say which: a name of `errand setup ls`, or `--repo URL`.")
    forgotten, used = anyio.run(_forget, data_folder(), keys, repo)
    if as_json:
        from protocol.base import encode

        click.echo(encode({"forgotten": forgotten, "in_use": used}).decode())
    else:
        for key in forgotten:
            click.echo(f"{key[:KEY_SHOWN]} is forgotten.")
        for key in used:
            click.echo(f"{key[:KEY_SHOWN]} is {IN_USE}.")
    return 1 if used else 0


async def _kept(data: Path) -> list[KeptSetup]:
    async with _stores(data) as stores:
        kept = [one for store in stores for one in await store.kept()]
    return sorted(kept, key=lambda one: one.used_at, reverse=True)


async def _forget(data: Path, keys: Sequence[str], repo: str) -> tuple[list[str], list[str]]:
    """The keys of those that are gone, and of those that are in use. Failure before anything is done."""
    async with _stores(data) as stores:
        known = {one.key: (one, store) for store in stores for one in await store.kept()}
        chosen = [key for key, (one, _) in known.items() if repo and one.repository == repo]
        chosen += [_named(key, known) for key in keys]
        if not chosen:
            raise Failure(f"Nothing is kept for {repo}: look at `errand setup ls`.")
        gone = {key: await known[key][1].forget(key) for key in dict.fromkeys(chosen)}
    return [key for key in gone if gone[key]], [key for key in gone if not gone[key]]


def _named(key: str, known: Sequence[str] | dict[str, tuple[KeptSetup, Setups]]) -> str:
    found = [one for one in known if one.startswith(key)]
    if len(found) != 1:
        what = "More than one set-up begins" if found else "No set-up that is kept begins"
        raise Failure(f"{what} with {key!r}: look at `errand setup ls`.")
    return found[0]


@asynccontextmanager
async def _stores(data: Path) -> AsyncIterator[list[Setups]]:
    """Of every driver of this machine. Failure where no server has run over this data folder."""
    from sandbox.config import Config
    from sandbox.contract import SandboxError
    from sandbox.drivers import Drivers
    from services.config import WrongSetting, from_environment

    if not (data / "sandbox").is_dir():
        raise Failure(f"No server keeps set-ups in {data}: run this where the runner runs, with its ERRAND_DATA.")
    try:
        drivers = Drivers(from_environment(Config, os.environ), data.absolute(), os.environ.get("DOCKER_HOST", ""))
    except WrongSetting as error:
        raise Failure(str(error)) from None
    try:
        yield drivers.setups()
    except SandboxError as error:
        raise Failure(f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
    except PermissionError as error:
        raise Failure(f"{error.filename} cannot be read: run this as the user who runs Errand.") from None
    finally:
        await drivers.close()


def _size(one: KeptSetup) -> str:
    return f"{one.size_bytes / 1024**2:,.1f} MiB"


def _age(then: float) -> str:
    from datetime import UTC, datetime

    from services.cli.units import age

    return age(datetime.fromtimestamp(then, UTC).isoformat(), datetime.now(UTC)) if then else ""
