"""A thousand tasks later no container, volume, loop device, folder or process is left: sandboxes as runners have them,
stopped, killed and left behind."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import psutil
import pytest

from sandbox.client import ExecClient
from sandbox.contract import Driver, SandboxSpec
from tests.contract.test_life import driver_over
from tests.contract.test_sandbox import kill_server

pytestmark = pytest.mark.anyio
AT_ONCE = 4
GONE_SECONDS = 30.0
HOW = ("stopped", "killed", "left")


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.mark.parametrize("name", ["bubblewrap", "docker"])
async def test_thirty_tasks_leave_nothing(name: str, tmp_path: Path) -> None:
    await run_tasks(name, tmp_path, 30 if name == "bubblewrap" else 9)


@pytest.mark.faults
@pytest.mark.parametrize("name", ["bubblewrap", "docker"])
async def test_a_thousand_tasks_leave_nothing(name: str, tmp_path: Path) -> None:
    await run_tasks(name, tmp_path, 1000 if name == "bubblewrap" else 200)


async def run_tasks(name: str, folder: Path, count: int) -> None:
    before = inventory(folder)
    async with driver_over(name, folder / "data", lease_seconds=1.0) as driver:
        free = anyio.CapacityLimiter(AT_ONCE)
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(run_task, driver, folder / f"workspace-{number}", number, free)
        await until_swept(driver, folder / "data")
        await until_gone(folder, before)
    # What is there as long as the installation is: its id, and where runners had their locks.
    files = sorted(path.name for path in (folder / "data").rglob("*") if path.is_file())
    assert set(files) <= {"installation", "image.lock"}, files


async def run_task(driver: Driver, workspace: Path, number: int, free: anyio.CapacityLimiter) -> None:
    async with free:
        workspace.mkdir()
        sandbox = await driver.start(SandboxSpec(task=f"task_{number}", attempt=1, workspace=workspace))
        assert isinstance(sandbox, ExecClient)
        await sandbox.start_process("while sleep 1; do :; done")
        assert (await sandbox.shell("echo done > file; (setsid sleep 1000 &)")).exit_code == 0
        match HOW[random.Random(number).randrange(len(HOW))]:
            case "killed":
                await kill_server(sandbox)
                await sandbox.stop()
            case "left":
                assert await sandbox.leave()
            case _:
                await sandbox.stop()


async def until_swept(driver: Driver, data: Path) -> None:
    with anyio.fail_after(60):
        while list((data / "sandbox" / "held").glob("*")):
            await driver.sweep()
            await anyio.sleep(0.1)


async def until_gone(folder: Path, before: dict[str, set[str]]) -> None:
    """Whatever there is now that was not there before; what comes later is others' on this machine."""
    left = {what: now - before[what] for what, now in inventory(folder).items()}
    with anyio.move_on_after(GONE_SECONDS):
        while any(left.values()):
            await anyio.sleep(0.2)
            left = {what: found & left[what] for what, found in inventory(folder).items()}
    print({what: (len(before[what]), len(before[what] | left[what])) for what in left})
    assert left == {what: set[str]() for what in left}


def inventory(folder: Path) -> dict[str, set[str]]:
    """What this machine has by now of all that a sandbox below `folder` is made of."""
    return {
        "processes": {f"{pid}: {name}" for pid, name in inside(folder)},
        "loop devices": {
            line for line in said_by("losetup", "--noheadings", "--output", "BACK-FILE") if folder.name in line
        },
        "containers": set(
            said_by("docker", "ps", "--all", "--quiet", "--filter", f"label=errand.installation={installation(folder)}")
        ),
        "mounts": {
            line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"/{folder.name}/" in line
        },
        "volumes": set(said_by("docker", "volume", "ls", "--quiet")),
    }


def installation(folder: Path) -> str:
    path = folder / "data" / "sandbox" / "installation"
    return path.read_text() if path.exists() else "none"


def inside(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes that see a folder below this one as a mount."""
    for process in psutil.process_iter(["name"]):
        try:
            mounts = Path(f"/proc/{process.pid}/mountinfo").read_text()
        except OSError:
            continue
        if f"/{folder.name}/" in mounts:
            yield process.pid, process.info["name"]


def said_by(*command: str) -> list[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    except FileNotFoundError:
        return []
