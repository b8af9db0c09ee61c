"""An engine of our own that is stopped under a sandbox, as by an update of its package, and comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from sandbox.config import Config
from sandbox.contract import SandboxDied, SandboxSpec, SandboxUnavailable
from sandbox.docker import Docker, connect
from sandbox.image import own_name

pytestmark = [pytest.mark.anyio, pytest.mark.faults]
NOTICED_SECONDS = 30.0
START_SECONDS = 60.0


class OwnEngine:
    """A second dockerd: its socket, data and process id are its own, and its network namespace: told to have no bridge,
    it would take the machine's docker0 away from the first."""

    def __init__(self, folder: Path) -> None:
        self.host = f"unix://{folder}/engine.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "unshare",
            "--net",
            "dockerd",
            f"--host={self.host}",
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([*self.cli(), "version"], capture_output=True, check=False).returncode != 0:
            assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
            self._process = None

    def cli(self) -> list[str]:
        return ["docker", "--host", self.host]

    def containers(self) -> list[str]:
        return subprocess.run([*self.cli(), "ps", "-aq"], capture_output=True, text=True, check=True).stdout.split()

    def remove_containers(self) -> None:
        subprocess.run([*self.cli(), "rm", "--force", *self.containers()], check=True, capture_output=True)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    has_image = shutil.which("docker") and subprocess.run(
        ["docker", "image", "inspect", own_name()], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not shutil.which("dockerd") or os.geteuid() != 0 or not has_image:
        pytest.skip("needs root, dockerd and the sandbox's image: apt-get install docker.io && make sandbox-image")
    engine = OwnEngine(tmp_path_factory.mktemp("engine"))
    engine.start()
    try:
        with subprocess.Popen(["docker", "save", own_name()], stdout=subprocess.PIPE) as saved:
            subprocess.run([*engine.cli(), "load", "--quiet"], stdin=saved.stdout, check=True, capture_output=True)
        yield engine
    finally:
        engine.stop()


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
    assert len(engine.containers()) == 1
    await again.stop()
    assert engine.containers() == []


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
