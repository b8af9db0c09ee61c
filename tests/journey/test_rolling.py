"""Each service is restarted in turn under load, and nothing breaks: to the same release, and from the last one to this.

The order is that of docs/running.md: who reads a message is restarted before who may send one that is new.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from protocol.task import ReceiptStatus, TaskState
from tests.journey.house import House, Phone, assert_ended_once, assert_no_gap, errand_up, phone
from tests.journey.test_kills import make_repository

pytestmark = pytest.mark.anyio
ORDER = ("runner", "history", "repos", "scheduler", "gateway")
RELEASED = "20bb866582c3d15036388fa2802e394ab0b09c1c"
"""The commit of the release before this one."""
HERE = Path(__file__).parents[2]


async def test_a_restart_of_each_service_under_load_breaks_nothing(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "greeter")
    with errand_up(tmp_path / "house") as house:
        await restart_each(house, repository)


@pytest.mark.faults
async def test_an_upgrade_of_each_service_under_load_breaks_nothing(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "greeter")
    code = tmp_path / "code"
    code.symlink_to(released(tmp_path / "released"))
    with errand_up(tmp_path / "house", PYTHONPATH=str(code)) as house:
        assert program_of(house, "scheduler").startswith(str(tmp_path / "released"))

        def upgrade() -> None:
            code.unlink()
            code.symlink_to(HERE)

        await restart_each(house, repository, upgrade)
        assert program_of(house, "scheduler").startswith(str(HERE))


def released(folder: Path) -> Path:
    """The tree of the last release."""
    archive = subprocess.run(["git", "archive", RELEASED], cwd=HERE, capture_output=True, check=False)
    if archive.returncode != 0:
        pytest.skip(f"the commit {RELEASED} is not in this clone: git fetch --unshallow")
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


def program_of(house: House, name: str) -> str:
    """Where the code that a service runs lies."""
    environment = psutil.Process(house.pid(name)).environ()
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import os, services; print(os.path.realpath(services.__path__[0]))"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


async def restart_each(house: House, repository: Path, upgrade: Callable[[], None] | None = None) -> None:
    """While one task after the other is sent; each ends, and its phone sees all of it."""
    tasks: dict[str, str] = {}
    async with phone(house) as owner:
        for number, name in enumerate(("", *ORDER)):
            if upgrade and name == ORDER[0]:
                # A sandbox that the old runner starts has the old program in it.
                for task in tasks.values():
                    await owner.ended(task)
                upgrade()
            if name:
                restart(house, name)
            for each in range(2):
                key = f"task-{number}-{each}"
                tasks[key] = await owner.submit("[scenario: steps] 3 steps", str(repository), key=key)
            await owner.until(lambda: owner.tasks[tasks[key]].attempt > 0)  # noqa: B023 - called at once
        for key, task in tasks.items():
            await assert_whole(owner, house, key, task)
        assert owner.connections >= 2, "the gateway's restart cut it off, and it came back"


def restart(house: House, name: str) -> None:
    """As an operator does; returns once another process has its place."""
    process = psutil.Process(house.pid(name))
    process.terminate()
    psutil.wait_procs([process], timeout=20)
    assert house.pid(name) != process.pid


async def assert_whole(owner: Phone, house: House, key: str, task: str) -> None:
    done = await owner.ended(task)
    assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
    assert done.receipts[key].status is ReceiptStatus.CONSUMED
    assert_ended_once(owner, task)
    assert_no_gap(owner, task)
