"""What outlives a runner, who takes it over, and what ends by itself. A driver that cannot do it says so."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from sandbox.bubblewrap import Bubblewrap
from sandbox.client import ExecClient
from sandbox.config import DOCKER_HOST, Config, limits
from sandbox.contract import Driver, Sandbox, SandboxDied, SandboxSpec
from sandbox.docker import connect
from sandbox.exec_server import FrameReader, pack
from sandbox.owners import Owners
from sandbox.process import SandboxProcess
from sandbox.register import Register, knock, message
from sandbox.unsandboxed import Unsandboxed
from tests.contract.test_sandbox import LIMITED, skip_unless_available

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).resolve().parents[2]
LEASE_SECONDS = 30.0
SHORT_LEASE_SECONDS = 1.0
ASKED = "echo begun; until [ -e go ]; do sleep 0.02; done; echo ended; (exit 3)"


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(params=["bubblewrap", "docker"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def driver(name: str, tmp_path: Path) -> AsyncIterator[Driver]:
    """Of another runner than the one that is killed."""
    async with driver_over(name, tmp_path / "data") as driver:
        yield driver


@asynccontextmanager
async def driver_over(name: str, data: Path, lease_seconds: float = LEASE_SECONDS) -> AsyncIterator[Driver]:
    config = Config(sandbox_lease_seconds=lease_seconds, sandbox_runtime=LIMITED.sandbox_runtime)
    owners = Owners(data / "sandbox", f"next-{lease_seconds}")
    if name == "docker":
        docker = connect(config, os.environ.get("DOCKER_HOST") or DOCKER_HOST, owners.folder, owners.runner)
        try:
            await skip_unless_available(docker)
            yield docker
        finally:
            await docker.close()
    else:
        driver = Bubblewrap(limits(config), Register(owners, Bubblewrap.name, lease_seconds))
        await skip_unless_available(driver)
        yield driver
        owners.release()


def spec_of(workspace: Path, attempt: int) -> SandboxSpec:
    workspace.mkdir(exist_ok=True)
    return SandboxSpec(task="task_1", attempt=attempt, workspace=workspace)


@contextmanager
def left_runner(name: str, workspace: Path, lease_seconds: float = LEASE_SECONDS) -> Iterator[subprocess.Popen[str]]:
    """One whose two commands run."""
    workspace.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "tests.contract.left_runner", name, workspace.parent / "data", workspace]
    path = os.pathsep.join([str(ROOT), *sys.path])
    with subprocess.Popen(
        [*command, str(lease_seconds)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as runner:
        try:
            assert runner.stdout is not None
            said = {runner.stdout.readline().strip(), runner.stdout.readline().strip()}
            assert said == {"named begun", "unnamed begun"}
            yield runner
        finally:
            runner.kill()


async def until_ended(sandbox: Sandbox) -> None:
    """The command without a name, whose runner nobody can tell of it any more."""
    with anyio.fail_after(20):
        while (await sandbox.exec("grep -qsa 'sleep.100[0]' /proc/[0-9]*/cmdline")).exit_code == 0:
            await anyio.sleep(0.02)


def entries(data: Path) -> list[Path]:
    return list((data / "sandbox" / "held").glob("*"))


async def test_the_next_runner_finds_the_shell_the_processes_and_the_command_that_ran(
    driver: Driver, name: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    with left_runner(name, workspace) as runner:
        runner.kill()
    sandbox = await driver.reattach(spec_of(workspace, 3), previous=1)
    assert sandbox is not None
    await until_ended(sandbox)
    shown: list[str] = []

    async def show(text: str) -> None:
        shown.append(text)

    await sandbox.exec("(sleep 0.2; touch go) &")
    result = await sandbox.resume("step 7", on_output=show)
    assert result is not None
    assert (result.exit_code, result.output) == (3, "begun\nkept yes in /workspace/folder\n")
    assert "kept yes" in "".join(shown)
    assert await sandbox.resume("step 7") is None
    (process,) = await sandbox.processes()
    assert process.running
    assert "tick" in (await sandbox.read_process(1)).output
    assert (await sandbox.stop_process(1)).ended_by == "stopped"
    await sandbox.stop()
    assert entries(tmp_path / "data") == []


async def test_what_ended_while_nobody_listened_is_told_and_the_shell_goes_on(
    driver: Driver, name: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    with left_runner(name, workspace) as runner:
        runner.kill()
    sandbox = await driver.reattach(spec_of(workspace, 2), previous=1)
    assert sandbox is not None
    await sandbox.exec("touch go; until [ -e ended ]; do sleep 0.01; done")
    result = await sandbox.resume("step 7")
    assert result is not None
    assert result.output == "begun\nkept yes in /workspace/folder\n"
    assert await sandbox.resume("step 8") is None
    after = await sandbox.shell("echo $KEPT")
    assert (after.shell, after.output, after.cwd) == ("kept", "yes\n", "/workspace/folder")
    await sandbox.stop()


async def test_a_frozen_runner_is_not_heard_any_more_and_harms_nothing_once_thawed(
    driver: Driver, name: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    with left_runner(name, workspace) as runner:
        runner.send_signal(signal.SIGSTOP)
        sandbox = await driver.reattach(spec_of(workspace, 2), previous=1)
        assert sandbox is not None
        runner.send_signal(signal.SIGCONT)
        said = await anyio.to_thread.run_sync(runner.communicate)
    assert "unnamed died: another runner has taken it over" in said[0]
    assert "named died: another runner has taken it over" in said[0]
    await sandbox.exec("touch go")
    result = await sandbox.resume("step 7")
    assert result is not None
    assert "kept yes" in result.output
    await driver.sweep()
    assert (await sandbox.exec("echo alive")).output == "alive\n"
    await sandbox.stop()


async def test_a_sandbox_that_nobody_takes_over_ends_by_itself(name: str, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    async with driver_over(name, tmp_path / "data", SHORT_LEASE_SECONDS) as driver:
        with left_runner(name, workspace, SHORT_LEASE_SECONDS) as runner:
            runner.kill()
        with anyio.fail_after(20):
            while entries(tmp_path / "data"):
                await driver.sweep()
                await anyio.sleep(0.1)
        assert await driver.reattach(spec_of(workspace, 2), previous=1) is None


async def test_only_the_attempt_that_follows_takes_over_and_a_fresh_start_ends_the_rest(
    driver: Driver, name: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    with left_runner(name, workspace) as runner:
        assert await driver.reattach(spec_of(workspace, 3), previous=2) is None
        assert await driver.reattach(spec_of(workspace, 1), previous=1) is None
        fresh = await driver.start(spec_of(tmp_path / "fresh", 2))
        said = await anyio.to_thread.run_sync(runner.communicate)
        assert "named died" in said[0]
        assert [entry.name for entry in entries(tmp_path / "data")] != []
        assert (await fresh.exec("ls -A")).output == ""
        await fresh.stop()
    assert entries(tmp_path / "data") == []


async def test_a_sandbox_that_does_not_answer_is_found_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen, as by `docker pause`: its stream stays open."""
    from sandbox import client

    monkeypatch.setattr(client, "RENEW_SECONDS", 0.1)
    async with driver_over(name, tmp_path / "data") as driver:
        sandbox = await driver.start(spec_of(tmp_path / "workspace", 1))
        freeze(sandbox)
        with anyio.fail_after(10), pytest.raises(SandboxDied, match="does not answer"):
            await sandbox.exec("true")
        await sandbox.stop()


def freeze(sandbox: Sandbox) -> None:
    from sandbox.container import ContainerLink
    from sandbox.process import SandboxProcess

    link = sandbox.link  # type: ignore[attr-defined]
    if isinstance(link, ContainerLink):
        subprocess.run(["docker", "pause", link.container], check=True, capture_output=True)
    else:
        assert isinstance(link, SandboxProcess)
        os.kill(link.pid, signal.SIGSTOP)


async def test_a_driver_that_cannot_do_it_says_so(tmp_path: Path) -> None:
    found = await Unsandboxed().capabilities()
    assert not found.reattach
    assert any("take it over" in note for note in found.notes)
    assert await Unsandboxed().reattach(spec_of(tmp_path / "workspace", 2), previous=1) is None


async def test_what_a_runner_leaves_goes_on_for_the_next_one(driver: Driver, name: str, tmp_path: Path) -> None:
    """Told to stop, it cuts off what it waits for, and saves the workspace, while the command goes on."""
    first = await driver.start(spec_of(tmp_path / "workspace", 1))
    begun = anyio.Event()

    async def show(_: str) -> None:
        begun.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: first.shell(ASKED, name="step 7", on_output=show))
        await begun.wait()
        first.let_go()
        tasks.cancel_scope.cancel()
    assert (await first.exec("yes | head -c 300000; touch go")).exit_code == 0
    assert await first.leave()
    second = await driver.reattach(spec_of(tmp_path / "workspace", 2), previous=1)
    assert second is not None
    result = await second.resume("step 7")
    assert result is not None
    assert (result.exit_code, result.output) == (3, "begun\nended\n")
    await second.stop()
    assert entries(tmp_path / "data") == []


async def test_a_sandbox_without_a_lease_cannot_be_left(name: str, tmp_path: Path) -> None:
    async with driver_over(name, tmp_path / "data", lease_seconds=0) as driver:
        sandbox = await driver.start(spec_of(tmp_path / "workspace", 1))
        assert not await sandbox.leave()
        assert (await sandbox.exec("echo alive")).output == "alive\n"
        await sandbox.stop()


async def test_a_runner_that_lives_leaves_alone_what_another_one_took(
    driver: Driver, name: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    with left_runner(name, workspace) as runner:
        sandbox = await driver.reattach(spec_of(workspace, 2), previous=1)
        assert sandbox is not None
        said = await anyio.to_thread.run_sync(runner.communicate)
    assert "unnamed died: another runner has taken it over" in said[0]
    assert (await sandbox.exec("echo alive")).output == "alive\n"
    await sandbox.stop()


async def test_a_look_that_a_take_over_interrupts_is_no_answer_to_the_next_runner(tmp_path: Path) -> None:
    async with driver_over("bubblewrap", tmp_path / "data") as driver:
        left = await driver.start(spec_of(tmp_path / "workspace", 1))
        assert isinstance(left, ExecClient)
        assert isinstance(left.link, SandboxProcess)
        await left.exec("mkdir -p .git/errand {1..90} && touch {1..90}/{1..100}")
        os.kill(left.link.pid, signal.SIGSTOP)
        async with anyio.create_task_group() as group:
            group.start_soon(look_in_vain, left)
            await anyio.wait_all_tasks_blocked()
            with knock(tmp_path / "data" / "sandbox" / "held" / left.key, message(2, 1, 1.0)) as stream:
                stream.sendall(pack({"op": "look", "id": 9, "skip": []}))
                os.kill(left.link.pid, signal.SIGCONT)
                assert await anyio.to_thread.run_sync(answered, stream, 9) == [0, 9]
        await left.stop()


async def look_in_vain(sandbox: ExecClient) -> None:
    with pytest.raises(SandboxDied, match="another runner"):
        await sandbox.look(())


def answered(stream: socket.socket, last: int) -> list[int]:
    """The calls of which it is told, up to the last one."""
    reader, ids = FrameReader(), [-1]
    while ids[-1] != last:
        ids += [json.loads(head)["id"] for head, _ in reader.feed(stream.recv(100_000))]
    return ids[1:]


async def test_a_sandbox_that_goes_from_attempt_to_attempt_in_one_runner_stays_its(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it swept away as what nobody holds: here at once, else after its lease."""
    from sandbox import register

    monkeypatch.setattr(register, "GRACE_SECONDS", -2 * LEASE_SECONDS)
    async with driver_over(name, tmp_path / "data") as driver:
        first = await driver.start(spec_of(tmp_path / "workspace", 1))
        second = await driver.reattach(spec_of(tmp_path / "workspace", 2), previous=1)
        assert second is not None
        await first.stop()
        await driver.sweep()
        assert (await second.exec("echo alive")).output == "alive\n"
        await second.stop()
        assert entries(tmp_path / "data") == []


async def test_an_entry_whose_sandbox_was_never_made_is_nothing_to_take_over(
    driver: Driver, name: str, tmp_path: Path
) -> None:
    Register(Owners(tmp_path / "data" / "sandbox", "died"), name, LEASE_SECONDS).client(
        spec_of(tmp_path / "workspace", 1), "a1"
    )
    assert await driver.reattach(spec_of(tmp_path / "workspace", 2), previous=1) is None
