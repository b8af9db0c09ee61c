"""`errand up` that cannot be: it says why in a sentence, soon, and leaves nothing running."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from sandbox.bubblewrap import Bubblewrap
from sandbox.config import Config, limits
from tests.contract.test_sandbox import skip_unless_available

SOON_SECONDS = 30.0
"""A few on a machine that is idle; what nobody foresaw takes `services.welcome.READY_SECONDS`."""


def refused(data: Path, **settings: str) -> str:
    """What `errand up` says on stderr before it ends."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ERRAND_", "ANTHROPIC_"))}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "up", "--data", str(data), "--port", "0"],
        env={**environment, "ERRAND_SANDBOX": "bubblewrap", **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert time.monotonic() - began < SOON_SECONDS
    return done.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"ERRAND_NATS_URL": "nats://errand:hidden@127.0.0.1:1"},
            "errand: No NATS server answers at nats://127.0.0.1:1 (ERRAND_NATS_URL).\n",
        ),
        (
            {"ERRAND_SANDBOX": "docker", "DOCKER_HOST": "unix:///nowhere"},
            "errand: There is no sandbox for tasks: there is no Docker Engine at /nowhere. "
            "`errand doctor` looks closer.\n",
        ),
        (
            {"ERRAND_SANDBX_EGRESS": "example.com"},
            "errand: ERRAND_SANDBX_EGRESS is no setting. Did you mean ERRAND_SANDBOX_EGRESS?\n",
        ),
    ],
)
def test_what_is_missing_is_said_soon(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    assert refused(tmp_path, **settings) == says


def test_only_the_lines_of_this_start_are_shown_each_once(tmp_path: Path) -> None:
    assert "ERRAND_SLOTS" in refused(tmp_path, ERRAND_SLOTS="many")
    said = refused(tmp_path, ERRAND_SANDBOX="chroot")
    assert "ERRAND_SLOTS" not in said
    assert said.count('"chroot"') == 1


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    """On a small disk of its own, which only a mount namespace sees."""
    anyio.run(skip_unless_available, Bubblewrap(limits(Config())))
    up = f"exec {sys.executable} -m services.cli up --data {tmp_path}/data --port 0"
    command = ["bwrap", "--dev-bind", "/", "/", "--size", "65536", "--tmpfs", str(tmp_path), "sh", "-c", up]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == (
        f"errand: The disk of {tmp_path}/data is full: make room there, or choose another folder with --data.\n"
    )
