"""kill -9 of the runner in the middle of tool calls: the sandbox is kept and the next runner goes on in it, or, where
that died too, a new one is restored. Either way a command's outcome is the real one or is said to be unknown."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import psutil
import pytest

from protocol.journal import AttemptStarted, SandboxRestored, StepFinished, StepLost, StepStarted, ToolCall, ToolResult
from protocol.live import Cancel
from protocol.task import TaskState
from sandbox.config import DOCKER_HOST, Config
from sandbox.docker import connect
from services.runner.attempt import DEATHS_LIMIT
from tests.contract.test_sandbox import skip_unless_available
from tests.integration.test_docker import containers_of, docker_cli, installation_of
from tests.journey.house import House, Phone, assert_ended_once, assert_no_gap, errand_up, phone
from tests.journey.test_kills import make_repository

pytestmark = pytest.mark.anyio
KILLS_A_TASK = 4
"""A turn is given up with its fifth runner."""
SECONDS = (1, 2, 7)
"""Of a call. The longest goes on when the next runner comes, the others have ended by then."""
WITHIN_SECONDS = 0.6
DEATHS = 0.2
"""The share of kills at which the sandbox dies too."""
NOTICED_SECONDS = 30.0
NEVER_CAME = "the runner ended before the command came to the sandbox"
GONE = "the sandbox ended: "
CACHING = """
from pathlib import Path
print("found" if Path("cache").exists() else "made")
Path("cache").write_text("dear")
"""


@pytest.fixture(scope="module", params=["bubblewrap", "docker"])
def driver(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def engine(driver: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if driver == "docker":
        docker = connect(Config(), DOCKER_HOST, tmp_path_factory.mktemp("data"), "test")
        try:
            await skip_unless_available(docker)
        finally:
            await docker.close()


@pytest.fixture(scope="module")
def house(engine: None, driver: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    data = tmp_path_factory.mktemp("house")
    # Each sandbox is its task's from the start: it is found by that.
    settings = {"ERRAND_SANDBOX": driver, "ERRAND_SANDBOX_WARM": "0", "ERRAND_SANDBOX_IGNORED_MIB": "1"}
    with errand_up(data, **settings) as house:
        yield house
    assert driver == "bubblewrap" or containers_of(installation_of(data / "sandbox")) == []


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "greeter")


async def test_a_runner_killed_twice_in_tool_calls(house: House, driver: str, repository: Path) -> None:
    """Once with its sandbox, once without."""
    seen = await kill_in_calls(house, driver, repository, [False, True], seed=42)
    assert seen == {"kept": 1, "restored": 1}


@pytest.mark.faults
async def test_a_runner_killed_fifty_times_in_tool_calls(house: House, driver: str, repository: Path) -> None:
    seed = int(os.environ.get("ERRAND_SEED", "50"))
    chance = random.Random(seed)
    dies = [chance.random() < DEATHS for _ in range(int(os.environ.get("ERRAND_KILLS", "50")))]
    seen: Counter[str] = Counter()
    for start in range(0, len(dies), KILLS_A_TASK):
        seen += await kill_in_calls(house, driver, repository, dies[start : start + KILLS_A_TASK], seed=seed + start)
    print(f"{driver}, seed {seed}: {dict(seen)}")
    assert seen == Counter("restored" if died else "kept" for died in dies)


async def test_a_sandbox_that_dies_in_a_tool_call_is_replaced_within_its_attempt(
    house: House, driver: str, repository: Path
) -> None:
    """Removed behind our back: the model is told what is gone, and goes on from the last checkpoint."""
    async with phone(house) as owner:
        prompt = "[scenario: counted] calls=3 seconds=0.1,20,0.1"
        task = await owner.submit(prompt, str(repository), key=f"{driver}-dies")
        await owner.until(lambda: (open_call(owner, task) or 0) > first_call(owner, task))
        end_sandbox(driver, task)
        killed = time.monotonic()
        await owner.until(lambda: restored(owner, task) != [])
        noticed = time.monotonic() - killed
        await owner.until(lambda: open_call(owner, task) is not None)
        again = time.monotonic() - killed
        done = await owner.ended(task, 60)
        print(f"{driver}: noticed after {noticed:.2f} s, the next command after {again:.2f} s")
        assert (done.state, done.attempt) == (TaskState.SUCCEEDED, 1), f"{done.reason}\n{house.logs()}"
        assert noticed < NOTICED_SECONDS
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)
        assert_real_outcomes(owner, task, [])
        [event] = restored(owner, task)
        assert event.restored_step >= first_call(owner, task)
        assert event.reason


async def test_what_git_ignores_is_there_in_the_next_sandbox_and_in_no_branch(
    house: House, repository: Path, tmp_path: Path
) -> None:
    caching = make_repository(tmp_path / "caching", {"main.py": CACHING, ".gitignore": "cache\n"})
    async with phone(house) as owner:
        prompt = "[scenario: program] run=main.py"
        first = await owner.submit(prompt, str(caching), key=f"{house.data}-first")
        done = await owner.ended(first)
        assert (done.summary.splitlines()[0], done.published) == ("made", None)
        # Twice: a fork of a fork has what it was given, too.
        forked = first
        for number in range(2):
            forked = await owner.submit(prompt, "", key=f"{house.data}-{number}", fork_of=forked)
            assert (await owner.ended(forked)).summary.startswith("found\n")


async def test_a_command_that_always_kills_its_sandbox_ends_the_attempt(
    house: House, driver: str, repository: Path
) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: counted] calls=1 seconds=20", str(repository), key=f"{driver}-bomb")
        for number in range(DEATHS_LIMIT + 1):
            await owner.until(lambda: open_call(owner, task) is not None and len(restored(owner, task)) == number)  # noqa: B023
            end_sandbox(driver, task)
        await owner.until(lambda: owner.tasks[task].state is TaskState.DELAYED)
        assert owner.tasks[task].reason.startswith("The sandbox ended")
        await owner.command(Cancel(key=f"{driver}-enough", task=task, reason="Enough."))
        assert (await owner.ended(task)).state is TaskState.CANCELLED
        assert_no_gap(owner, task)


async def kill_in_calls(house: House, driver: str, repository: Path, dies: list[bool], seed: int) -> Counter[str]:
    """One task whose runner is killed once for each of `dies`, with its sandbox where that is true; how it went on."""
    chance = random.Random(seed)
    seconds = ",".join(str(chance.choice(SECONDS)) for _ in range(len(dies) + 1))
    print(f"seed {seed}: calls of {seconds} s, sandboxes that die: {dies}")
    hit: list[int] = []
    async with phone(house) as owner:
        prompt = f"[scenario: counted] calls={len(dies) + 1} seconds={seconds}"
        task = await owner.submit(prompt, str(repository), key=f"{driver}-{seed}-{len(dies)}")
        for number, died in enumerate(dies):
            await owner.until(lambda: open_call(owner, task) not in (None, *hit))
            hit.append(open_call(owner, task) or 0)
            await anyio.sleep(chance.uniform(0, WITHIN_SECONDS))  # the moment is what is drawn
            house.kill("runner")
            if died:
                end_sandbox(driver, task)
            await owner.until(lambda: len(grounds(owner, task)) == number + 2)  # noqa: B023
        done = await owner.ended(task, 120)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)
        assert_real_outcomes(owner, task, hit)
        return Counter("kept" if ground.sandbox_kept else "restored" for ground in grounds(owner, task)[1:])


def end_sandbox(driver: str, task: str) -> None:
    """From outside, as who cleans up a machine by hand."""
    if driver == "docker":
        docker_cli("kill", *docker_cli("ps", "--quiet", "--filter", f"name=errand-{task}-").split())
        return
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("ERRAND_TASK") == task:
                for one in (process, *process.children(recursive=True)):
                    one.kill()


def grounds(owner: Phone, task: str) -> list[AttemptStarted]:
    events = (frame.entry.event for frame in owner.journal(task))
    return [event for event in events if isinstance(event, AttemptStarted)]


def restored(owner: Phone, task: str) -> list[SandboxRestored]:
    events = (frame.entry.event for frame in owner.journal(task))
    return [event for event in events if isinstance(event, SandboxRestored)]


def first_call(owner: Phone, task: str) -> int:
    """The step of the first call that counts."""
    for frame in owner.journal(task):
        match frame.entry.event:
            case StepStarted(step=step, action=ToolCall(name="bash")):
                return step
    return 1 << 30


def open_call(owner: Phone, task: str) -> int | None:
    """The step of a call that counts, while it is the last thing that has begun."""
    journal = owner.journal(task)
    match journal[-1].entry.event if journal else None:
        case StepStarted(step=step, action=ToolCall(name="bash", input=given)) if "COUNT + 1" in given["command"]:
            return step
    return None


def assert_real_outcomes(owner: Phone, task: str, hit: list[int]) -> None:
    """The journal is what one shell does that is kept, or begins again where the sandbox does."""
    count = 0
    is_first = True
    """Whether it is still the task's first sandbox."""
    kept = False
    attempts: dict[int, int] = {}
    calls: dict[int, ToolCall] = {}
    for frame in owner.journal(task):
        match frame.entry.event:
            case AttemptStarted(sandbox_kept=kept):
                is_first = frame.entry.attempt == 1 or (is_first and kept)
                count = count if kept else 0
            case SandboxRestored():
                is_first, kept, count = False, False, 0
            case StepStarted(step=step, action=ToolCall() as call):
                calls[step], attempts[step] = call, frame.entry.attempt
            case StepFinished(step=step, result=result) if step in calls:
                if step in hit:
                    assert frame.entry.attempt > attempts[step], "the kill came in the middle of the call"
                if isinstance(result, StepLost):
                    assert not kept or result.reason == NEVER_CAME or result.reason.startswith(GONE), result
                count = count_after(calls[step], result, count)
                if calls[step].name == "process" and is_first:
                    assert "running for" in shown(result) or "Started" in shown(result)
    assert set(hit) <= set(calls)


def shown(result: object) -> str:
    return result.text if isinstance(result, ToolResult) else ""


def count_after(call: ToolCall, result: object, count: int) -> int:
    """What the shell's variable is by now."""
    command = str(call.input.get("command", ""))
    if not isinstance(result, ToolResult) or result.text.startswith("Not run"):
        return count
    if "COUNT + 1" in command:
        assert (result.text, result.exit_code) == (f"count {count + 1}\n[exit code {count + 1}]", count + 1)
        return count + 1
    if "last" in command:
        assert f"last {count}\n" in result.text
        lines = result.text.split(f"last {count}\n")[1].splitlines()[:-1]
        assert lines[len(lines) - count :] == [f"count {number}" for number in range(1, count + 1)], result.text
    return count
