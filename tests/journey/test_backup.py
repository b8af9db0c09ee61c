"""The backup of docs/vps.md without containers: of a running installation or a stopped one, it comes back elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from protocol.task import TaskState
from tests.journey.house import House, assert_ended_once, errand_up, phone
from tests.journey.test_kills import make_repository

pytestmark = pytest.mark.anyio
MADE_AGAIN = ("mirrors", "workspaces", "trash", "sandbox", "history", "logs")
WRITES = "[scenario: chatty] chars=200000"


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
async def test_what_was_backed_up_comes_back_elsewhere(tmp_path: Path, running: bool) -> None:
    repository = str(make_repository(tmp_path / "greeter"))
    backup = tmp_path / "errand.tar.gz"
    with errand_up(tmp_path / "here") as here:
        async with phone(here) as owner:
            done = await owner.submit("[scenario: steps] 3 steps", repository, key="done")
            asks = await owner.submit("[scenario: ask] Which?", repository, key="asks")
            await owner.ended(done)
            await owner.until(lambda: owner.tasks[asks].state is TaskState.WAITING)
            conversation = errand(here.data, "show", done, "--json")
            if running:
                await owner.submit(WRITES, repository, key="writes")
                with frozen(here):
                    await anyio.to_thread.run_sync(save, here.data, backup)
    if not running:
        save(tmp_path / "here", backup)
    restore(backup, tmp_path / "there")
    with errand_up(tmp_path / "there") as there:
        assert errand(there.data, "show", done, "--json") == conversation
        assert '"succeeded"' in errand(there.data, "sql", "--json", f"select state from tasks where task_id = '{done}'")
        async with phone(there) as owner:
            await owner.watch(asks)
            await anyio.to_thread.run_sync(errand, there.data, "answer", asks, "blue")
            await owner.ended(asks)
            assert_ended_once(owner, asks)


@contextmanager
def frozen(house: House) -> Iterator[None]:
    """nats-server writes nothing meanwhile; whoever speaks to it waits."""
    pid = house.pid("nats")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def save(data: Path, backup: Path) -> None:
    left_out = [f"--exclude=./{name}" for name in MADE_AGAIN]
    subprocess.run(["tar", "-C", data, "-czf", backup, *left_out, "."], check=True)


def restore(backup: Path, data: Path) -> None:
    data.mkdir()
    subprocess.run(["tar", "-C", data, "-xzpf", backup], check=True)


def errand(data: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env={**os.environ, "ERRAND_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
