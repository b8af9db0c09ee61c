"""What every service does because it is an actor."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from protocol.routes import Service
from services.nats_server import password_file
from tests.integration.nats_house import nats_house

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


def wait_for(file: Path, *, there: bool) -> None:
    deadline = time.monotonic() + SECONDS
    while file.exists() is not there:
        assert time.monotonic() < deadline, f"{file.name}: there is {file.exists()}"
        time.sleep(POLL_SECONDS)
