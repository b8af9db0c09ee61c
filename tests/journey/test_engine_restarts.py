"""The Docker Engine under a whole house ends in the middle of a tool call and comes back, as after an update of its
package or a crash: the task goes on from its last checkpoint and ends as if nothing had been, and nothing is left."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from protocol.evolve import Task
from protocol.journal import StepFinished, StepLost
from protocol.task import TaskState
from tests.contract.test_nothing_left import inventory, until_gone
from tests.integration.own_engine import OwnEngine, own_engine
from tests.journey.house import Phone, assert_ended_once, assert_no_gap, errand_up, phone
from tests.journey.test_kills import make_repository
from tests.journey.test_runner_kills import (
    GONE,
    NOTICED_SECONDS,
    assert_real_outcomes,
    first_call,
    open_call,
    restored,
)

pytestmark = [pytest.mark.anyio, pytest.mark.faults, pytest.mark.timeout(300)]
PROMPT = "[scenario: counted] calls=3 seconds=0.1,8,0.1"
LEFT = "count 1\ncount 1\ncount 2\n"
"""In the task's file: the first call as its checkpoint has it, and in a new shell the call that was lost and the last
one."""
SWEPT_SECONDS = 30.0
GIVEN_UP_SECONDS = 60.0
"""An attempt waits for an engine for 30."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    with own_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository" / "greeter")


@pytest.fixture(autouse=True)
def told(engine: OwnEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an engine here, the house or what counts what is left, gets that one."""
    monkeypatch.setenv("DOCKER_HOST", engine.host)


@pytest.mark.parametrize("live_restore", [False, True], ids=["containers-end", "live-restore"])
@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_an_engine_that_ends_in_a_tool_call_costs_the_task_that_call_and_no_more(
    engine: OwnEngine, repository: Path, tmp_path: Path, how: str, live_restore: bool
) -> None:
    engine.stop()
    engine.start(live_restore=live_restore)
    start = partial(engine.start, live_restore=live_restore)
    done = await run_through(engine, how, start, lambda task: True, repository, tmp_path)
    assert done.attempt == 1


async def test_an_engine_that_stays_away_until_the_attempt_is_given_up_costs_that_and_not_the_task(
    engine: OwnEngine, repository: Path, tmp_path: Path
) -> None:
    engine.stop()
    engine.start()

    def given_up(task: Task) -> bool:
        return task.state is TaskState.DELAYED

    done = await run_through(engine, "kill", engine.start, given_up, repository, tmp_path)
    assert done.attempt > 1


async def run_through(
    engine: OwnEngine,
    how: str,
    start: Callable[[], None],
    when: Callable[[Task], bool],
    repository: Path,
    folder: Path,
) -> Task:
    """A task under which the engine ends in its second call, and starts when that is true of the task."""
    before = inventory(folder)
    with errand_up(folder / "data", ERRAND_SANDBOX="docker") as house:
        async with phone(house) as owner:
            task = await owner.submit(PROMPT, str(repository), key="engine")
            await owner.until(lambda: (open_call(owner, task) or 0) > first_call(owner, task))
            hit = open_call(owner, task) or 0
            began, noticed = time.monotonic(), 0.0
            async with anyio.create_task_group() as ending:
                ending.start_soon(anyio.to_thread.run_sync, engine.stop if how == "stop" else engine.kill)
                await owner.until(lambda: restored(owner, task) != [], NOTICED_SECONDS)
                noticed = time.monotonic() - began
            await owner.until(lambda: when(owner.tasks[task]), GIVEN_UP_SECONDS)
            await anyio.to_thread.run_sync(start)
            up = time.monotonic() - began
            done = await owner.ended(task, 120)
            print(f"{how}: noticed {noticed:.2f} s, up again {up:.2f} s, ended {time.monotonic() - began:.2f} s after")
            assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
            assert_went_on(owner, task, hit)
        assert done.published is not None
        assert pushed(repository, done.published.branch, "counts.txt") == LEFT
        await until_only_spares(engine)
    await until_gone(folder, before)
    return done


def assert_went_on(owner: Phone, task: str, hit: int) -> None:
    """The model was told the truth of each call, and of the one that was `hit` that its outcome is unknown, and why."""
    assert_ended_once(owner, task)
    assert_no_gap(owner, task)
    assert_real_outcomes(owner, task, [])
    events = (frame.entry.event for frame in owner.journal(task))
    [lost] = [event.result for event in events if isinstance(event, StepFinished) and event.step == hit]
    assert isinstance(lost, StepLost), lost
    assert lost.reason.startswith(GONE)


def pushed(repository: Path, branch: str, file: str) -> str:
    command = ["git", "-C", str(repository), "show", f"{branch}:{file}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def until_only_spares(engine: OwnEngine) -> None:
    """While the house goes on: nobody has to end it."""
    with anyio.move_on_after(SWEPT_SECONDS):
        while True:
            spares = engine.containers("label=errand.task=spare")
            if spares == engine.containers() and len(spares) == len(engine.volumes()):
                return
            await anyio.sleep(0.2)
    containers = engine.said("ps", "--all", "--format", "{{.ID}} {{.Names}} {{.State}}")
    pytest.fail(f"there are {containers} and volumes {engine.volumes()}: {engine.log()}")
