"""The same way in containers: the repair, a cancel and the next task's start."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from protocol.journal import AttemptStarted
from protocol.live import Cancel
from protocol.task import TaskState
from sandbox.config import DOCKER_HOST, Config
from sandbox.docker import connect
from tests.contract.test_sandbox import skip_unless_available
from tests.integration.test_docker import containers_of, docker_cli, installation_of
from tests.journey.house import House, Phone, errand_up, phone
from tests.journey.package import Broken, broken_package
from tests.journey.test_kills import make_repository, open_tool_call
from tests.journey.test_repair import SEED, output, repair

pytestmark = pytest.mark.anyio
GONE_SECONDS = 10.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    docker = connect(Config(), DOCKER_HOST, tmp_path_factory.mktemp("data"), "test")
    try:
        await skip_unless_available(docker)
        yield
    finally:
        await docker.close()


@pytest.fixture(scope="module")
def house(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with errand_up(tmp_path_factory.mktemp("house"), ERRAND_SANDBOX="docker") as house:
        yield house
    assert containers(house) == [], "nothing is left when the house has stopped"


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    return broken_package(tmp_path_factory.mktemp("package"), SEED)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "greeter")


def containers(house: House, **labels: str) -> list[str]:
    return containers_of(installation_of(house.data / "sandbox"), **labels)


@pytest.mark.timeout(240)
async def test_a_broken_package_comes_back_repaired_from_a_container(
    house: House, broken: Broken, tmp_path: Path
) -> None:
    task = await repair(house, broken, tmp_path)
    async with phone(house) as owner:
        await owner.watch(task)
        await owner.ended(task)
        assert sandboxes(owner, task) == {"docker"}


async def test_a_cancel_ends_the_container_of_a_running_command(house: House, repository: Path) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: slow] 60 seconds", str(repository), key="cancel")
        await owner.until(lambda: "waiting" in output(owner, task))
        assert named_for(task) != []
        await owner.command(Cancel(key="enough", task=task, reason="Enough."))
        assert (await owner.ended(task)).state is TaskState.CANCELLED
    with anyio.fail_after(GONE_SECONDS):
        while named_for(task):
            await anyio.sleep(0.05)


async def test_the_next_task_finds_its_container_started(house: House, repository: Path) -> None:
    async with phone(house) as owner:
        _, mirror = await container_of(owner, repository, "first")
        # A container that is there may not be ready yet: then the next task is started without it, and the one after
        # that finds it.
        for key in ("second", "third"):
            with anyio.fail_after(GONE_SECONDS):
                while not (spares := [one for one in containers(house, task="spare") if mirror_of(one) == mirror]):
                    await anyio.sleep(0.05)
            container, _ = await container_of(owner, repository, key)
            if [container] == spares:
                return
    pytest.fail("neither task was given the container that waited for it")


async def container_of(owner: Phone, repository: Path, key: str) -> tuple[str, list[str]]:
    """The one in which a task ran that has ended now, and its mirror."""
    task = await owner.submit("[scenario: slow] 2 seconds", str(repository), key=key)
    await owner.until(lambda: open_tool_call(owner, task) is not None)
    with anyio.fail_after(GONE_SECONDS):
        while not (named := named_for(task)):
            await anyio.sleep(0.05)
    mirror = mirror_of(named[0])
    assert (await owner.ended(task)).state is TaskState.SUCCEEDED
    return named[0], mirror


def mirror_of(container: str) -> list[str]:
    """What it has mounted read-only; nothing when it is gone by now."""
    try:
        mounts = json.loads(docker_cli("inspect", "--format", "{{json .Mounts}}", container))
    except subprocess.CalledProcessError:
        return []
    return [mount["Destination"] for mount in mounts if not mount["RW"]]


def sandboxes(owner: Phone, task: str) -> set[str]:
    """Of every attempt, as the journal says."""
    started = (frame.entry.event for frame in owner.journal(task))
    return {event.sandbox for event in started if isinstance(event, AttemptStarted)}


def named_for(task: str) -> list[str]:
    return docker_cli("ps", "--all", "--quiet", "--no-trunc", "--filter", f"name=errand-{task}-").split()
