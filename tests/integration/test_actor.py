"""What every service does because it is an actor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from protocol.query import AskInForce, InForce
from protocol.routes import Service
from services.bus import Unavailable, connect
from services.nats_server import password_file
from tests.integration.nats_house import NatsHouse, nats_house

SECONDS = 20.0
POLL_SECONDS = 0.02
"""A file's time gives no signal."""


def test_the_health_file_is_fresh_while_work_moves_and_gone_while_nats_is_away(tmp_path: Path) -> None:
    file = tmp_path / "healthy"
    with nats_house(tmp_path / "nats") as house:
        environment = {
            **os.environ,
            "ERRAND_NATS_URL": house.url,
            "ERRAND_NATS_PASSWORD_FILE": str(password_file(house.data, Service.SCHEDULER)),
            "ERRAND_HEALTH_FILE": str(file),
        }
        command = [sys.executable, "-m", "services.scheduler"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                wait_for(file, there=True)
                first = file.stat().st_mtime_ns
                deadline = time.monotonic() + SECONDS
                while file.stat().st_mtime_ns == first:
                    assert time.monotonic() < deadline, "the file is not touched again"
                    time.sleep(POLL_SECONDS)
                house.kill()
                wait_for(file, there=False)
                house.start()
                wait_for(file, there=True)
            finally:
                process.terminate()


@pytest.mark.anyio
async def test_a_runner_says_which_settings_and_which_sandbox_hold_there_and_no_key(tmp_path: Path) -> None:
    with nats_house(tmp_path / "nats") as house:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ERRAND_")},
            "ERRAND_NATS_URL": house.url,
            "ERRAND_NATS_PASSWORD_FILE": str(password_file(house.data, Service.RUNNER)),
            "ERRAND_DATA": str(tmp_path),
            "ERRAND_SANDBOX": "unsandboxed",
            "ERRAND_SLOTS": "3",
            "ANTHROPIC_API_KEY": "hush",
        }
        command = [sys.executable, "-m", "services.runner"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            try:
                told = await ask_in_force(house)
            finally:
                process.terminate()
    settings = {setting.name: setting for setting in told.settings}
    assert (settings["ERRAND_SLOTS"].value, settings["ERRAND_SLOTS"].is_default) == ("3", False)
    assert settings["ERRAND_SANDBOX_MEMORY_MIB"].is_default
    assert settings["ANTHROPIC_API_KEY"].value == "set"
    assert "hush" not in str(told)
    assert [(check.name, check.status) for check in told.checks] == [("sandbox", "warn")]


async def ask_in_force(house: NatsHouse) -> InForce:
    """Of the runner, once it has found its sandbox."""
    async with connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as bus:
        with anyio.fail_after(SECONDS):
            while True:
                with suppress(Unavailable):
                    told = await bus.ask(Service.RUNNER, AskInForce(), InForce, timeout_seconds=1)
                    if told.checks[0].status != "fail":
                        return told
                await anyio.sleep(POLL_SECONDS)


def wait_for(file: Path, *, there: bool) -> None:
    deadline = time.monotonic() + SECONDS
    while file.exists() is not there:
        assert time.monotonic() < deadline, f"{file.name}: there is {file.exists()}"
        time.sleep(POLL_SECONDS)
