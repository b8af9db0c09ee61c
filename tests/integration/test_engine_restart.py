"""An engine of our own that is stopped under a sandbox, as by an update of its package, and comes back."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from sandbox.config import Config
from sandbox.contract import SandboxDied, SandboxSpec, SandboxUnavailable
from sandbox.docker import Docker, connect
from tests.integration.own_engine import OwnEngine, own_engine

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
NOTICED_SECONDS = 30.0


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    with own_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
async def docker(engine: OwnEngine, tmp_path: Path) -> AsyncIterator[Docker]:
    docker = connect(Config(), engine.host, tmp_path / "data", "me")
    await docker.capabilities()
    yield docker
    await docker.close()


def spec_of(folder: Path, attempt: int) -> SandboxSpec:
    workspace = folder / f"workspace-{attempt}"
    workspace.mkdir()
    return SandboxSpec(task="task_1", attempt=attempt, workspace=workspace)


async def test_an_engine_that_is_restarted_is_noticed_and_the_next_attempt_starts_afresh(
    engine: OwnEngine, docker: Docker, tmp_path: Path
) -> None:
    sandbox = await docker.start(spec_of(tmp_path, 1))
    stopped_at = 0.0

    async def stop() -> None:
        nonlocal stopped_at
        stopped_at = time.monotonic()
        await anyio.to_thread.run_sync(engine.stop)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stop)
        with pytest.raises(SandboxDied):
            await sandbox.shell("sleep 1000", timeout_seconds=1000, name="step 1")
        assert time.monotonic() - stopped_at < NOTICED_SECONDS
    await sandbox.stop()
    with pytest.raises(SandboxUnavailable, match="no Docker Engine answers"):
        await docker.start(spec_of(tmp_path, 2))
    await anyio.to_thread.run_sync(engine.start)
    assert await docker.reattach(spec_of(tmp_path, 3), previous=1) is None
    again = await docker.start(spec_of(tmp_path, 4))
    assert (await again.exec("echo fine")).output == "fine\n"
    await docker.sweep()
    assert (len(engine.containers()), len(engine.volumes())) == (1, 1)
    await again.stop()
    assert (engine.containers(), engine.volumes()) == ([], [])


async def test_a_container_removed_behind_our_back_is_noticed_at_once(
    engine: OwnEngine, docker: Docker, tmp_path: Path
) -> None:
    sandbox = await docker.start(spec_of(tmp_path, 1))
    began = time.monotonic()
    engine.remove_containers()
    with pytest.raises(SandboxDied):
        await sandbox.exec("sleep 1000", timeout_seconds=1000)
    assert time.monotonic() - began < NOTICED_SECONDS
    await sandbox.stop()
