"""A command in a sandbox and a sandbox's start: in Docker against the engine's own command line, and in bubblewrap."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio

from benchmarks import Row, compared, median, report
from sandbox.bubblewrap import Bubblewrap
from sandbox.config import DOCKER_HOST, Config
from sandbox.contract import Driver, SandboxSpec, SandboxUnavailable
from sandbox.docker import Docker, connect
from sandbox.warm import Warm

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 200
PEER_ROUNDS = 20
STARTS = 15
NO_OP_MILLISECONDS = 1.0
ONE_SHOT_MILLISECONDS = 5.0
WARM_MILLISECONDS = 20.0
COLD_RATIO = 1.2
SPARE_SECONDS = 20.0


async def milliseconds(what: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await what()
    return (time.perf_counter() - began) * 1000


class Workspaces:
    """Fresh ones, each a clone of this repository as a task would get it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        self.mirror = folder / "mirror"
        subprocess.run(["git", "clone", "-q", "--mirror", ROOT, self.mirror], check=True)

    def next(self) -> SandboxSpec:
        self._number += 1
        path = self._folder / f"workspace-{self._number}"
        subprocess.run(["git", "clone", "-q", "--shared", self.mirror, path], check=True)
        return SandboxSpec(
            task=f"bench_{self._number}", attempt=1, workspace=path, readonly_paths=(self.mirror / "objects",)
        )


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        workspaces = Workspaces(folder)
        rows = await in_bubblewrap(workspaces)
        docker = connect(Config(), DOCKER_HOST, folder / "sandbox", "bench")
        try:
            await docker.capabilities()
            rows += await in_docker(docker, workspaces)
        except SandboxUnavailable as error:
            print(f"The Docker rows are left out: {error}", file=sys.stderr)
        finally:
            await docker.close()
    return rows


async def in_bubblewrap(workspaces: Workspaces) -> list[Row]:
    driver = Bubblewrap()
    await driver.capabilities()
    no_op, one_shot = await commands(driver, workspaces)
    starts = [await start(driver, workspaces.next()) for _ in range(STARTS)]
    return [
        *command_rows("bubblewrap", no_op, one_shot, None),
        Row(
            what="bubblewrap: a sandbox ready, cold, p50",
            ours=median(starts),
            unit="ms",
            demanded=f"{WARM_MILLISECONDS:g} ms (warm)",
            ok=median(starts) <= WARM_MILLISECONDS,
        ),
    ]


async def in_docker(docker: Docker, workspaces: Workspaces) -> list[Row]:
    no_op, one_shot = await commands(docker, workspaces)
    peer = await by_docker_exec(docker.image.name)
    cold: list[float] = []
    run: list[float] = []
    for _ in range(STARTS):  # in turns, that both have the same weather
        cold.append(await start(docker, workspaces.next()))
        run.append(await by_docker_run(docker.image.name))
    warm = await warm_starts(docker, workspaces)
    ready = "docker run"
    return [
        *command_rows("Docker", no_op, one_shot, peer),
        compared(
            "Docker: a sandbox ready, cold, p50",
            median(cold),
            median(run),
            "ms",
            demanded=f"{COLD_RATIO:g} x {ready}",
            ok=median(cold) <= COLD_RATIO * median(run),
            peer_name=ready,
        ),
        compared(
            "Docker: a sandbox ready, warm, p50",
            median(warm),
            median(run),
            "ms",
            demanded=f"{WARM_MILLISECONDS:g} ms",
            ok=median(warm) <= WARM_MILLISECONDS,
            peer_name=ready,
        ),
    ]


async def commands(driver: Driver, workspaces: Workspaces) -> tuple[float, float]:
    """The median of a shell's builtin, and of a program."""
    sandbox = await driver.start(workspaces.next())
    try:
        no_op = [await milliseconds(lambda: sandbox.exec("true")) for _ in range(ROUNDS)]
        one_shot = [await milliseconds(lambda: sandbox.exec("/bin/true")) for _ in range(ROUNDS)]
    finally:
        await sandbox.stop()
    return median(no_op), median(one_shot)


def command_rows(name: str, no_op: float, one_shot: float, peer: float | None) -> list[Row]:
    """`peer` is the median of `docker exec`."""
    return [
        against(f"{name}: a no-op in the exec server, p50", no_op, peer, NO_OP_MILLISECONDS),
        against(f"{name}: a one-shot command by it, p50", one_shot, peer, ONE_SHOT_MILLISECONDS),
    ]


def against(what: str, ours: float, peer: float | None, limit: float) -> Row:
    demanded, ok = f"{limit:g} ms", ours <= limit
    if peer is None:
        return Row(what=what, ours=ours, unit="ms", demanded=demanded, ok=ok)
    return compared(what, ours, peer, "ms", demanded=demanded, ok=ok, peer_name="docker exec")


async def start(driver: Driver, spec: SandboxSpec) -> float:
    """Until it takes commands."""
    began = time.perf_counter()
    sandbox = await driver.start(spec)
    taken = (time.perf_counter() - began) * 1000
    await sandbox.stop()
    return taken


async def warm_starts(docker: Docker, workspaces: Workspaces) -> list[float]:
    taken: list[float] = []
    async with anyio.create_task_group() as group:
        warm = Warm(docker, limit=1, idle_seconds=600)
        group.start_soon(warm.keep)
        await start(warm, workspaces.next())
        for _ in range(STARTS):
            spec = workspaces.next()
            with anyio.fail_after(SPARE_SECONDS):
                while spec.readonly_paths not in warm.spares:
                    await anyio.sleep(0.01)
            taken.append(await start(warm, spec))
        group.cancel_scope.cancel()
    return taken


async def by_docker_exec(image: str) -> float:
    command = ["docker", "run", "-d", "--rm", "--network", "none", image, "sleep", "600"]
    name = (await anyio.run_process(command)).stdout.decode().strip()
    try:
        what = partial(anyio.run_process, ["docker", "exec", name, "true"])
        return median([await milliseconds(what) for _ in range(PEER_ROUNDS)])
    finally:
        await anyio.run_process(["docker", "rm", "-f", name])


async def by_docker_run(image: str) -> float:
    """Until the container's first word."""
    command = ["docker", "run", "--rm", "--network", "none", image, "echo", "ready"]
    began = time.perf_counter()
    async with await anyio.open_process(command, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        await process.stdout.receive()
        taken = (time.perf_counter() - began) * 1000
        await process.wait()
    return taken


def rows() -> list[Row]:
    return anyio.run(measure, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    report("sandbox", rows())
