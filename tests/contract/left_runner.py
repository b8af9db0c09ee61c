"""A runner that a test kills or freezes: `python -m tests.contract.left_runner DRIVER DATA WORKSPACE LEASE`. It starts
the sandbox of a task's first attempt, leaves a shell, a process and two commands in it, and says how each ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from sandbox.config import Config
from sandbox.contract import Sandbox, SandboxError, SandboxSpec
from sandbox.drivers import Drivers

NAMED = 'echo begun; until [ -e go ]; do sleep 0.02; done; echo "kept $KEPT in $PWD"; touch ../ended; (exit 3)'
UNNAMED = "echo begun; exec sleep 1000"


async def main(driver: str, data: Path, workspace: Path, lease_seconds: float) -> None:
    config = Config(sandbox=driver, sandbox_lease_seconds=lease_seconds)  # type: ignore[arg-type]
    drivers = Drivers(config, data, os.environ.get("DOCKER_HOST", ""))
    await drivers.look()
    assert drivers.driver is not None, drivers.why
    sandbox = await drivers.driver.start(SandboxSpec(task="task_1", attempt=1, workspace=workspace))
    await sandbox.shell("mkdir folder; cd folder; KEPT=yes; ln -s ../go go")
    await sandbox.start_process("while sleep 0.05; do echo tick; done")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, sandbox, "named")
        tasks.start_soon(run, sandbox, "unnamed")


async def run(sandbox: Sandbox, name: str) -> None:
    async def show(text: str) -> None:
        print(name, text.strip(), flush=True)

    try:
        if name == "named":
            result = await sandbox.shell(NAMED, name="step 7", on_output=show)
        else:
            result = await sandbox.exec(UNNAMED, on_output=show)
        print(name, "ended", result.exit_code, flush=True)
    except SandboxError as error:
        print(name, "died:", error, flush=True)


if __name__ == "__main__":
    anyio.run(
        main,
        sys.argv[1],
        Path(sys.argv[2]),
        Path(sys.argv[3]),
        float(sys.argv[4]),
        backend_options={"use_uvloop": True},
    )
