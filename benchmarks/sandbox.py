"""Commands, output, checkpoints and starts of a sandbox: in Docker against what a user would pick instead, and in
bubblewrap. All of one run, on one machine, in turns."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
from docker import DockerClient
from msgspec import Struct

from benchmarks import Row, compared, median, report
from benchmarks.peers import FOLDER, HERE, Commands, Missing, said
from sandbox.bubblewrap import Bubblewrap
from sandbox.config import DOCKER_HOST, Config
from sandbox.contract import Driver, Sandbox, SandboxSpec, SandboxUnavailable
from sandbox.docker import Docker, connect
from sandbox.owners import Owners
from sandbox.register import Register
from sandbox.spare import SparingDriver, ahead_of
from sandbox.warm import Warm

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 200
PEER_ROUNDS = 20
STARTS = 15
OUTPUTS = 5
OUTPUT_BYTES = 100 * 1024 * 1024
TREE_FILES = 1400
NO_OP_MILLISECONDS = 1.0
NO_OP_RATIO = 1 / 50
ONE_SHOT_MILLISECONDS = 5.0
CHECKPOINT_MILLISECONDS = 10.0
WARM_MILLISECONDS = 20.0
COLD_RATIO = 1.2
SPARE_SECONDS = 20.0


async def milliseconds(what: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await what()
    return (time.perf_counter() - began) * 1000


class Workspaces:
    """Fresh ones, each a clone of one repository as a task would get it."""

    def __init__(self, folder: Path, source: Path) -> None:
        self._folder = folder
        self._number = 0
        self.mirror = folder / f"mirror-{source.name}"
        subprocess.run(["git", "clone", "-q", "--mirror", source, self.mirror], check=True)

    def for_driver(self, driver: Driver | SparingDriver) -> SandboxSpec:
        """As a task gets it there: without its files where they are checked out inside."""
        return self.next("--no-checkout") if driver.copies_workspaces else self.next()

    def next(self, *options: str) -> SandboxSpec:
        self._number += 1
        path = self._folder / f"{self.mirror.name}-{self._number}"
        subprocess.run(["git", "clone", "-q", "--shared", *options, self.mirror, path], check=True)
        return SandboxSpec(
            task=f"bench_{self._number}", attempt=1, workspace=path, readonly_paths=(self.mirror / "objects",)
        )


def make_tree(folder: Path) -> Path:
    """A repository of TREE_FILES files in folders of 20."""
    repository = folder / "tree"
    for number in range(TREE_FILES):
        path = repository / f"folder{number // 20}" / f"file{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"x = {number}\n" * 40)
    git = ["git", "-C", str(repository), "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "tree"]):
        subprocess.run([*git, *words], check=True)
    return repository


class Measured(Struct):
    """Of one driver, medians in milliseconds."""

    in_shell: float
    one_shot: float
    output: float
    checkpoint: float


class Peers(Struct):
    """The same of what a user would pick instead."""

    exec_run: float
    docker_exec: float
    output: float
    mini_swe_agent: float | None
    swe_rex: float | None


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        workspaces, tree = Workspaces(folder, ROOT), Workspaces(folder, make_tree(folder))
        rows = await in_bubblewrap(folder, workspaces, tree)
        docker = connect(Config(), DOCKER_HOST, folder / "sandbox", "bench")
        try:
            await docker.capabilities()
            rows += await in_docker(docker, workspaces, tree)
        except SandboxUnavailable as error:
            print(f"The Docker rows are left out: {error}", file=sys.stderr)
        finally:
            await docker.close()
    return rows


async def in_bubblewrap(folder: Path, workspaces: Workspaces, tree: Workspaces) -> list[Row]:
    driver = Bubblewrap(
        register=Register(Owners(folder / "bubblewrap", "bench"), Bubblewrap.name, Config().sandbox_lease_seconds)
    )
    await driver.capabilities()
    ours = await commands(driver, tree)
    cold = [await start(driver, workspaces.next()) for _ in range(STARTS)]
    warm = await warm_starts(driver, workspaces)
    await driver.close()
    return [
        *command_rows("bubblewrap", ours, None),
        Row(what="bubblewrap: a sandbox ready, cold, p50", ours=median(cold), unit="ms", demanded="-", ok=True),
        limited("bubblewrap: a sandbox ready, warm, p50", median(warm), WARM_MILLISECONDS),
    ]


async def in_docker(docker: Docker, workspaces: Workspaces, tree: Workspaces) -> list[Row]:
    ours = await commands(docker, tree)
    peers = await of_peers(docker.image.name)
    cold: list[float] = []
    run: list[float] = []
    for _ in range(STARTS):  # in turns, that both have the same weather
        cold.append(await start(docker, workspaces.for_driver(docker)))
        run.append(await by_docker_run(docker.image.name))
    warm = await warm_starts(docker, workspaces)
    ready = "docker run"
    return [
        *command_rows("Docker", ours, peers),
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


async def commands(driver: Driver, tree: Workspaces) -> Measured:
    """In a workspace of TREE_FILES files that nothing changes."""
    spec = tree.next()
    sandbox = await driver.start(spec)
    try:
        return Measured(
            in_shell=await median_of(lambda: sandbox.shell("true"), ROUNDS),
            one_shot=await median_of(lambda: sandbox.exec("/bin/true"), ROUNDS),
            output=await median_of(lambda: much_output(sandbox), OUTPUTS),
            checkpoint=await checkpoint(sandbox, spec.workspace),
        )
    finally:
        await sandbox.stop()


async def median_of(what: Callable[[], Awaitable[object]], rounds: int) -> float:
    return median([await milliseconds(what) for _ in range(rounds)])


async def much_output(sandbox: Sandbox) -> None:
    async def show(text: str) -> None: ...

    await sandbox.shell(f"head -c {OUTPUT_BYTES} /dev/zero", on_output=show)


async def checkpoint(sandbox: Sandbox, workspace: Path) -> float:
    base = (await sandbox.exec("git rev-parse HEAD")).output.strip()
    first = await sandbox.checkpoint(base, "bench")
    return await median_of(lambda: sandbox.checkpoint(base, "bench", unless=first.commit), PEER_ROUNDS)


def command_rows(name: str, ours: Measured, peers: Peers | None) -> Iterator[Row]:
    if peers is None:
        yield limited(f"{name}: a no-op in the shell, p50", ours.in_shell, NO_OP_MILLISECONDS)
    else:
        yield from in_shell_rows(f"{name}: a no-op in the shell, p50", ours.in_shell, peers)
    theirs = peers.docker_exec if peers else None
    yield limited(f"{name}: a one-shot command, p50", ours.one_shot, ONE_SHOT_MILLISECONDS, theirs)
    if peers is None:
        yield Row(what=f"{name}: 100 MB of output", ours=ours.output, unit="ms", demanded="-", ok=True)
    else:
        yield limited(f"{name}: 100 MB of output", ours.output, peers.output, peers.output)
    yield limited(f"{name}: checkpoint of {TREE_FILES} unchanged files", ours.checkpoint, CHECKPOINT_MILLISECONDS)


def in_shell_rows(what: str, ours: float, peers: Peers) -> Iterator[Row]:
    yield compared(
        what,
        ours,
        peers.exec_run,
        "ms",
        demanded=f"{NO_OP_MILLISECONDS:g} ms, 1/50 of exec_run",
        ok=ours <= NO_OP_MILLISECONDS and ours <= NO_OP_RATIO * peers.exec_run,
        peer_name="Docker SDK exec_run",
    )
    for name, theirs in (("mini-swe-agent", peers.mini_swe_agent), ("SWE-ReX's local session", peers.swe_rex)):
        if theirs is not None:
            yield compared(what, ours, theirs, "ms", demanded="-", ok=True, peer_name=name)


def limited(what: str, ours: float, limit: float, docker_exec: float | None = None) -> Row:
    demanded, ok = f"{limit:.4g} ms", ours <= limit
    if docker_exec is None:
        return Row(what=what, ours=ours, unit="ms", demanded=demanded, ok=ok)
    return compared(what, ours, docker_exec, "ms", demanded=demanded, ok=ok, peer_name="docker exec")


async def start(driver: Driver, spec: SandboxSpec) -> float:
    """Until it takes commands."""
    began = time.perf_counter()
    sandbox = await driver.start(spec)
    taken = (time.perf_counter() - began) * 1000
    await sandbox.stop()
    return taken


async def warm_starts(driver: SparingDriver, workspaces: Workspaces) -> list[float]:
    taken: list[float] = []
    async with anyio.create_task_group() as group:
        warm = Warm(driver, limit=1, idle_seconds=600)
        group.start_soon(warm.keep)
        await start(warm, workspaces.for_driver(driver))
        for _ in range(STARTS):
            spec = workspaces.for_driver(driver)
            with anyio.fail_after(SPARE_SECONDS):
                while ahead_of(spec) not in warm.spares:
                    await anyio.sleep(0.01)
            taken.append(await start(warm, spec))
        group.cancel_scope.cancel()
    return taken


async def of_peers(image: str) -> Peers:
    """Of those that are not installed the command that does it is printed."""
    container = ["docker", "run", "-d", "--rm", "--network", "none", image, "sleep", "600"]
    name = (await anyio.run_process(container)).stdout.decode().strip()
    python = FOLDER / "bin" / "python"
    try:
        output = ["docker", "exec", name, "head", "-c", str(OUTPUT_BYTES), "/dev/zero"]
        return Peers(
            exec_run=await anyio.to_thread.run_sync(by_exec_run, name),
            docker_exec=await median_of(partial(anyio.run_process, ["docker", "exec", name, "true"]), PEER_ROUNDS),
            output=await median_of(partial(anyio.run_process, output, stdout=subprocess.DEVNULL), OUTPUTS),
            mini_swe_agent=await beside(
                "mini-swe-agent", python, HERE / "mini_swe_agent_commands.py", image, str(PEER_ROUNDS)
            ),
            swe_rex=await beside("SWE-ReX", python, HERE / "swe_rex_commands.py", str(PEER_ROUNDS)),
        )
    finally:
        await anyio.run_process(["docker", "rm", "-f", name])


def by_exec_run(name: str) -> float:
    client = DockerClient(base_url=DOCKER_HOST)
    container, taken = client.containers.get(name), []
    for _ in range(PEER_ROUNDS):
        began = time.perf_counter()
        container.exec_run("true")
        taken.append((time.perf_counter() - began) * 1000)
    client.close()
    return median(taken)


async def beside(name: str, *command: str | Path) -> float | None:
    try:
        found = await anyio.to_thread.run_sync(partial(said, Commands, *command))
    except Missing as missing:
        print(f"  {name} was not run: {missing}")
        return None
    return median(found.no_op_milliseconds)


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
