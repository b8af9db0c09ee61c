"""Sandboxes that wait for their task, of every driver that can start some ahead."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace

from sandbox.bubblewrap import Bubblewrap
from sandbox.client import ExecClient
from sandbox.config import DOCKER_HOST, limits
from sandbox.contract import SandboxError
from sandbox.docker import Docker, connect
from sandbox.image import own_name
from sandbox.owners import Owners
from sandbox.register import Register
from sandbox.spare import Ahead, Spare, SparingDriver
from sandbox.warm import Warm
from tests.contract.test_sandbox import LIMITED, skip_unless_available, spec_of

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["bubblewrap", "docker"])
async def driver(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[SparingDriver]:
    if request.param == "docker":
        driver = connect(LIMITED, os.environ.get("DOCKER_HOST") or DOCKER_HOST, data, "me")
    else:
        driver = Bubblewrap(limits(LIMITED), Register(Owners(data, "me"), Bubblewrap.name, lease_seconds=60))
    try:
        await skip_unless_available(driver)
        yield driver
    finally:
        await driver.close()


@asynccontextmanager
async def kept_warm(driver: SparingDriver) -> AsyncIterator[Warm[SparingDriver]]:
    async with anyio.create_task_group() as group:
        warm = Warm(driver, limit=1, idle_seconds=600)
        group.start_soon(warm.keep)
        yield warm
        group.cancel_scope.cancel()


async def until_spare(warm: Warm[SparingDriver], *readonly: Path) -> Spare:
    with anyio.fail_after(20):
        while Ahead(readonly) not in warm.spares:
            await anyio.sleep(0.02)
    return warm.spares[Ahead(readonly)]


async def use(warm: Warm[SparingDriver], workspace: Path, *readonly: Path) -> ExecClient:
    """A sandbox that has worked and ended."""
    sandbox = await warm.start(spec_of(workspace, *readonly))
    assert (await sandbox.exec("echo here > /tmp/task_trace; echo here > task_trace")).exit_code == 0
    await sandbox.stop()
    return sandbox


async def test_the_next_task_of_a_repository_gets_a_started_sandbox_that_nobody_has_used(
    driver: SparingDriver, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "object").write_text("object")
    async with kept_warm(driver) as warm:
        await use(warm, tmp_path / "task_1-1", mirror)
        spare = await until_spare(warm, mirror)
        workspace = tmp_path / "task_2-1"
        (workspace / "folder").mkdir(parents=True)
        (workspace / "folder" / "file").write_text("prepared")
        (workspace / ".hidden").write_text("too")
        second = await warm.start(spec_of(workspace, mirror))
        assert second is spare.client
        look = f"cat folder/file .hidden {mirror}/object; ls -A; ls /tmp/task_trace; echo $GIVEN; touch folder/new new"
        assert (await second.exec(look)).output == (
            "preparedtooobject.hidden\nfolder\nls: cannot access '/tmp/task_trace': No such file or directory\n1\n"
        )
        assert (await second.exec("ls -A; [ -O folder/file ] && echo mine")).output == ".hidden\nfolder\nnew\nmine\n"
        assert workspace.stat().st_uid == spare.uid
        if not driver.copies_workspaces:
            assert (workspace / "folder" / "new").stat().st_uid == spare.uid
        await second.stop()
        assert (await until_spare(warm, mirror)).client is not second


async def test_a_workspace_that_waits_sees_nothing_of_another_task(driver: SparingDriver, tmp_path: Path) -> None:
    async with kept_warm(driver) as warm:
        await use(warm, tmp_path / "first")
        waiting = await until_spare(warm)
        other = await driver.start(spec_of(tmp_path / "other"))
        try:
            await other.write("/workspace/errand-secret", b"secret")
            found = await waiting.client.exec("find / -name 'errand-s[e]cret' -o -name task_trace 2>/dev/null; ls -A")
            assert found.output == ""
        finally:
            await other.stop()


async def test_one_that_waited_too_long_or_died_is_not_used(driver: SparingDriver, data: Path, tmp_path: Path) -> None:
    async with kept_warm(driver) as warm:
        await use(warm, tmp_path / "first")
        dead = (await until_spare(warm)).client
        assert dead.link is not None
        dead.link.kill()
        with anyio.fail_after(20):
            while not dead.is_dead:
                await anyio.sleep(0.01)
        assert await use(warm, tmp_path / "second") is not dead
        await until_spare(warm)
        warm.idle_seconds = 0
        await warm.remove_old()
        assert not warm.spares
    assert list((data / "spares" / "me").iterdir()) == []


async def test_one_of_an_image_or_with_a_disk_that_is_no_more_is_not_used(
    driver: SparingDriver, tmp_path: Path
) -> None:
    """The image got another's name while it waited, or its engine was restarted without loop devices."""
    if not isinstance(driver, Docker):
        assert driver.ground == ""
        return
    machine = driver._machine
    assert machine is not None
    async with kept_warm(driver) as warm:
        await use(warm, tmp_path / "first")
        for change in ({"image": own_name()}, {"disks": "none" if machine.disk_limit else "own"}):
            waiting = await until_spare(warm)
            driver._machine = replace(machine, **change)
            workspace = tmp_path / f"task-{len(change)}-{next(iter(change))}"
            workspace.mkdir()
            (workspace / "file").write_text("prepared")
            sandbox = await warm.start(spec_of(workspace))
            assert sandbox is not waiting.client
            assert waiting.client.is_dead
            assert (await sandbox.exec("cat file")).output == "prepared"
            driver._machine = machine
            await sandbox.stop()


async def test_one_that_cannot_be_made_is_no_loss(driver: SparingDriver, data: Path, tmp_path: Path) -> None:
    async with kept_warm(driver) as warm:
        await driver.capabilities()
        await (await driver.spare(Ahead())).remove()
        spares = data / "spares"
        spares.rename(data / "another")
        spares.touch()
        with pytest.raises(SandboxError, match="cannot be used"):
            await driver.spare(Ahead())
        warm._want(Ahead())
        await anyio.wait_all_tasks_blocked()
        assert not warm.spares
        spares.unlink()
        warm._want(Ahead())
        await until_spare(warm)


async def test_none_is_left_when_the_runner_stops(driver: SparingDriver, data: Path, tmp_path: Path) -> None:
    async with kept_warm(driver) as warm:
        await use(warm, tmp_path / "first")
        spare = await until_spare(warm)
    assert spare.client.is_dead
    assert list((data / "spares" / "me").iterdir()) == []
