"""Whole tasks through a whole house leave no container, volume, loop device, mount, process or folder behind."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from protocol.task import TaskState
from tests.contract.test_nothing_left import inventory, until_gone
from tests.integration.test_docker import containers_of, installation_of
from tests.journey.house import House, assert_ended_once, assert_no_gap, errand_up, phone
from tests.journey.test_kills import make_repository
from tests.journey.test_runner_kills import anyio_backend, driver, engine

__all__ = ["anyio_backend", "driver", "engine"]
pytestmark = pytest.mark.anyio
PROMPT = "[scenario: counted] calls=1 seconds=0"
"""Two commands and a process that nobody ends."""
SLOTS = 4
OPEN = 2 * SLOTS
"""So many tasks are open at one time."""
SWEPT_SECONDS = 330.0
"""The workspace of a turn that has ended, whose runner was killed before it gave that back, goes with the sweep of each
300 s."""
EMPTY = ("workspaces", "trash", "unfinished")


@pytest.fixture
async def house(engine: None, driver: str, tmp_path: Path) -> AsyncIterator[House]:
    limits = {"ERRAND_SLOTS": str(SLOTS), "ERRAND_RUNNING_PER_USER": str(SLOTS)}
    before = inventory(tmp_path)
    with errand_up(tmp_path / "data", ERRAND_SANDBOX=driver, **limits) as house:
        yield house
    await until_gone(tmp_path, before)
    held = [path for name in ("held", "spares") for path in (house.data / "sandbox" / name).glob("*/*")]
    assert held == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository" / "greeter")


async def test_some_tasks_leave_nothing(house: House, driver: str, repository: Path) -> None:
    await run_tasks(house, driver, repository, 12 if driver == "bubblewrap" else 6)


@pytest.mark.faults
async def test_a_thousand_tasks_and_ten_killed_runners_leave_nothing(
    house: House, driver: str, repository: Path
) -> None:
    await run_tasks(house, driver, repository, int(os.environ.get("ERRAND_TASKS", "1000")), kills=10)


async def run_tasks(house: House, driver: str, repository: Path, count: int, kills: int = 0) -> None:
    began, kept = time.monotonic(), 0
    at = {count * (kill + 1) // (kills + 1) for kill in range(kills)}
    free = anyio.CapacityLimiter(OPEN)
    async with phone(house) as owner:

        async def run_one(number: int) -> None:
            nonlocal kept
            async with free:
                if number in at:
                    await anyio.to_thread.run_sync(house.kill, "runner")
                task = await owner.submit(PROMPT, str(repository), key=f"task-{number}")
                try:
                    done = await owner.ended(task, 120)
                except TimeoutError:
                    raise AssertionError(f"{owner.tasks[task]}\n{owner.events[task][-4:]}\n{house.logs()}") from None
                assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
                assert_ended_once(owner, task)
                assert_no_gap(owner, task)
                await owner.unwatch(task)
                kept += done.attempt > 1

        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(run_one, number)
        print(f"{driver}: {count} tasks in {time.monotonic() - began:.0f} s, {kept} of them with a killed runner")
    await until_idle(house, driver, 30 if not kills else SWEPT_SECONDS)


async def until_idle(house: House, driver: str, seconds: float) -> None:
    """What is there then is there for the next task: spares."""
    with anyio.fail_after(seconds):
        while any(path for name in EMPTY for path in (house.data / name).iterdir()) or owned(house, driver):
            await anyio.sleep(0.1)


def owned(house: House, driver: str) -> set[str]:
    """Containers of a task."""
    if driver == "bubblewrap":
        return set()
    installation = installation_of(house.data / "sandbox")
    return set(containers_of(installation)) - set(containers_of(installation, task="spare"))
