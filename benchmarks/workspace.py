"""A workspace from a fresh mirror, as the runner asks for it, and `git clone --shared` of the same mirror."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from benchmarks import Row, compared, median, report
from protocol.query import AskHealth, Health
from protocol.repo import (
    BaseResolved,
    PrepareWorkspace,
    ReleaseWorkspace,
    ResolveBase,
    WorkspacePrepared,
    WorkspaceReleased,
)
from protocol.routes import Service
from services.bus import Bus, Refused, Unavailable, connect
from services.nats_server import password_file
from tests.integration.nats_house import nats_house

FILES = 1400
ROUNDS = 11
RATIO = 1.5


def make_repository(folder: Path) -> Path:
    """A bare repository of `FILES` files of 2 KB."""
    work = folder / "work"
    for number in range(FILES):
        path = work / f"package{number % 20}" / f"module{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# module {number}\n" * 120)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *identity, *command], cwd=work, check=True)
    bare = folder / "repository"
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    return bare


@asynccontextmanager
async def repos_service(folder: Path) -> AsyncIterator[Bus]:
    """The real service over a real nats-server; asked as the runner."""
    with nats_house(folder / "nats") as house:
        environment = {
            **os.environ,
            "ERRAND_DATA": str(folder / "data"),
            "ERRAND_NATS_URL": house.url,
            "ERRAND_NATS_PASSWORD_FILE": str(password_file(house.data, Service.REPOS)),
        }
        process = subprocess.Popen([sys.executable, "-m", "services.repos"], env=environment, stderr=subprocess.DEVNULL)
        try:
            async with (
                connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as maker,
                connect(house.bus_config(Service.OPERATOR), Service.OPERATOR) as operator,
                connect(house.bus_config(Service.RUNNER), Service.RUNNER) as runner,
            ):
                await maker.make_streams()
                with anyio.fail_after(20):
                    while not await healthy(operator):
                        await anyio.sleep(0.02)
                yield runner
        finally:
            process.terminate()
            process.wait()


async def healthy(operator: Bus) -> bool:
    try:
        return (await operator.ask(Service.REPOS, AskHealth(), Health)).healthy
    except (Unavailable, Refused):
        return False


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as name:
        folder = Path(name)
        repository = make_repository(folder)
        async with repos_service(folder) as bus:
            asked = ResolveBase(task="tbench", repository=str(repository), is_owner=True)
            base = await bus.ask(Service.REPOS, asked, BaseResolved, timeout_seconds=60)
            ours: list[float] = []
            peer: list[float] = []
            for number in range(1, ROUNDS + 1):
                peer.append(clone_shared(repository, folder / "peer"))
                ours.append(await prepare(bus, str(repository), base.commit, number))
    what = f"a workspace of {FILES} files, mirror fresh, p50"
    mine, theirs = median(ours) * 1000, median(peer) * 1000
    row = compared(
        what, mine, theirs, "ms", demanded="1.5 x", ok=mine <= RATIO * theirs, peer_name="git clone --shared"
    )
    return [row]


def clone_shared(repository: Path, target: Path) -> float:
    began = time.perf_counter()
    subprocess.run(["git", "clone", "-q", "--shared", str(repository), str(target)], check=True)
    taken = time.perf_counter() - began
    shutil.rmtree(target)
    return taken


async def prepare(bus: Bus, repository: str, commit: str, attempt: int) -> float:
    asked = PrepareWorkspace(
        task="tbench", attempt=attempt, repository=repository, commit=commit, branch="errand/tbench"
    )
    began = time.perf_counter()
    await bus.ask(Service.REPOS, asked, WorkspacePrepared, timeout_seconds=60)
    taken = time.perf_counter() - began
    await bus.ask(Service.REPOS, ReleaseWorkspace(task="tbench", attempt=attempt), WorkspaceReleased)
    return taken


def rows() -> list[Row]:
    return anyio.run(measure)


if __name__ == "__main__":
    report("workspace", rows())
