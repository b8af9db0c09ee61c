"""A command in the sandbox's exec server, and one by `docker exec` where an engine answers."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio

from benchmarks import Row, compared, median, report
from sandbox.bubblewrap import Bubblewrap
from sandbox.contract import SandboxSpec

ROUNDS = 200
PEER_ROUNDS = 20
WARM_MILLISECONDS = 20.0
"""Demanded of a start. There is no warm one yet, so every start is held against it."""


async def milliseconds(what: Callable[[], Awaitable[object]], rounds: int) -> float:
    taken: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        await what()
        taken.append((time.perf_counter() - began) * 1000)
    return median(taken)


@contextmanager
def container() -> Iterator[str | None]:
    """A running container of any image at hand; None where no engine or no image is."""
    if shutil.which("docker") is None or docker("info") is None:
        yield None
        return
    image = (docker("images", "-q") or "").split("\n")[0]
    name = docker("run", "-d", "--rm", "--network", "none", image, "sleep", "600") if image else None
    try:
        yield name
    finally:
        if name:
            docker("rm", "-f", name)


def docker(*arguments: str) -> str | None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as folder, container() as name:
        driver = Bubblewrap()
        await driver.capabilities()
        workspace = Path(folder)
        workspace.chmod(0o755)
        spec = SandboxSpec(task="bench", attempt=1, workspace=workspace)
        began = time.perf_counter()
        sandbox = await driver.start(spec)
        started = (time.perf_counter() - began) * 1000
        try:
            no_op = await milliseconds(lambda: sandbox.exec("true"), ROUNDS)
            one_shot = await milliseconds(lambda: sandbox.exec("/bin/true"), ROUNDS)
        finally:
            await sandbox.stop()
        theirs = None if name is None else await milliseconds(partial(by_docker, name), PEER_ROUNDS)
    return [
        against("a no-op in the exec server, p50", no_op, theirs, "1 ms", ok=no_op <= 1),
        against("a one-shot command by the exec server, p50", one_shot, theirs, "5 ms", ok=one_shot <= 5),
        Row(
            what="a bubblewrap sandbox ready, cold",
            ours=started,
            unit="ms",
            demanded="20 ms (warm)",
            ok=started <= WARM_MILLISECONDS,
        ),
    ]


async def by_docker(name: str) -> None:
    await anyio.run_process(["docker", "exec", name, "true"])


def against(what: str, ours: float, theirs: float | None, demanded: str, *, ok: bool) -> Row:
    """With the peer where an engine answers."""
    if theirs is None:
        return Row(what=what, ours=ours, unit="ms", demanded=demanded, ok=ok)
    return compared(what, ours, theirs, "ms", demanded=demanded, ok=ok, peer_name="docker exec")


def rows() -> list[Row]:
    return anyio.run(measure)


if __name__ == "__main__":
    report("sandbox", rows())
