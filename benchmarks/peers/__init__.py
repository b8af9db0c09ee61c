"""What a user would pick instead of ours, in a throw-away environment of its own: nothing of it is installed with
Errand. `python -m benchmarks.peers` installs it into `build/peers`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

HERE = Path(__file__).parent
FOLDER = Path("build/peers").absolute()
INSTALL = "python -m benchmarks.peers"


class Missing(Exception):
    """The peer is not there, or does not work; the message says what can be done."""


class Speed(Struct):
    """What a peer's program writes to its stdout."""

    per_second: float
    """Jobs or workflows, from the first one's submit to the last one's end."""
    start_milliseconds: list[float]
    """From a submit to the worker's start, one at a time."""


class Commands(Struct):
    """The same of a peer that runs commands."""

    no_op_milliseconds: list[float]


Said = TypeVar("Said", Speed, Commands)


def program(name: str, folder: str = "bin") -> str:
    """A program of the system, or else of the peers' environment. Raises Missing."""
    found = shutil.which(name) or next((str(path) for path in FOLDER.glob(f"{folder}/{name}")), None)
    if found is None:
        raise Missing(f"there is no {name}: `{INSTALL}`")
    return found


@contextmanager
def server(*command: str, log: Path) -> Iterator[None]:
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def run(*command: str | Path, seconds: float = 240) -> Speed:
    """What a peer's program measured. Raises Missing when it fails; its stderr says why."""
    return said(Speed, *command, seconds=seconds)


def said(what: type[Said], *command: str | Path, seconds: float = 240) -> Said:
    """The same of any kind."""
    try:
        ended = subprocess.run(command, stdout=subprocess.PIPE, cwd=FOLDER, timeout=seconds, check=False)
    except FileNotFoundError:
        raise Missing(f"there is no {command[0]}: `{INSTALL}`") from None
    if ended.returncode:
        raise Missing(f"{command[1]} failed: `{INSTALL}`")
    return what(**json.loads(ended.stdout.splitlines()[-1]))
