"""A runner that a test kills: `python -m tests.integration.left_setup DRIVER DATA FOLDER SCRIPT`. It makes the set-up
SCRIPT, then starts a task's sandbox from what it left, and says what it has come to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio
import msgspec

from sandbox.config import Config
from sandbox.drivers import Drivers
from tests.integration.test_setup import Repository, Seen


class Said(Seen):
    """Tells the test."""

    async def output(self, text: str) -> None:
        print(text.strip(), flush=True)


async def main(driver: str, data: Path, folder: Path, script: str) -> None:
    given = {"sandbox": driver, "sandbox_memory_mib": 512, "sandbox_tmp_mib": 64}
    config = msgspec.convert(given, Config)
    drivers = Drivers(config, data, os.environ.get("DOCKER_HOST", ""))
    await drivers.look()
    assert drivers.driver is not None, drivers.why
    repository = Repository(folder, script)
    image = await repository.prepare(drivers.driver, Said())
    await drivers.driver.start(repository.spec("task_1", image))
    print("started", flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    name, data, folder, script = sys.argv[1:]
    anyio.run(main, name, Path(data), Path(folder), script, backend_options={"use_uvloop": True})
