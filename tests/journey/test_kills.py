"""kill -9 of every service, at rest and under an attempt: nothing is lost, nothing happens twice, all goes on within
10 s. Of the runner in tool calls: test_runner_kills.py."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import psutil
import pytest

from protocol.journal import AttemptStarted, StepFinished, StepLost, StepStarted, ToolCall
from protocol.live import DecisionSeen
from protocol.task import AttemptClaimed, AttemptEnd, AttemptEnded, TaskState
from tests.journey.house import House, Phone, assert_ended_once, assert_no_gap, errand_up, phone

pytestmark = pytest.mark.anyio
AGAIN_SECONDS = 10.0
STEPS = 12
TIMES = range(1)
TIMES_FAULTS = range(1, 10)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    # Each sandbox is its task's from the start: its processes are found by that, and none waits for a next one.
    with errand_up(tmp_path_factory.mktemp("house"), ERRAND_SANDBOX_WARM="0") as house:
        yield house


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "greeter")


IDENTITY = {
    **os.environ,
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}


def make_repository(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """A bare repository with one commit, as a host would have it; `files` beside two others."""
    work = folder.with_suffix(".work")
    work.mkdir(parents=True)
    (work / "README.md").write_text("# Greeter\n\nIt greets.\n")
    (work / "greet.py").write_text('def greet(name):\n    return f"Hello, {name}"\n')
    for name, text in (files or {}).items():
        (work / name).write_text(text)
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "Begin"]):
        subprocess.run(["git", *command], cwd=work, check=True, env=IDENTITY)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(folder)], check=True)
    return folder


def cases(times: range) -> list[object]:
    return [
        pytest.param(name, when, time_, id=f"{name}-{when}-{time_}")
        for name in ("scheduler", "gateway", "history", "nats")
        for when in ("at-rest", "under-an-attempt")
        for time_ in times
    ]


@pytest.mark.parametrize(("name", "when", "count"), cases(TIMES))
async def test_a_killed_service_is_missed_for_less_than_ten_seconds(
    house: House, repository: Path, name: str, when: str, count: int
) -> None:
    await kill_and_go_on(house, repository, name, when, count)


@pytest.mark.faults
@pytest.mark.parametrize(("name", "when", "count"), cases(TIMES_FAULTS))
async def test_a_service_killed_again_and_again(
    house: House, repository: Path, name: str, when: str, count: int
) -> None:
    await kill_and_go_on(house, repository, name, when, count)


async def kill_and_go_on(house: House, repository: Path, name: str, when: str, count: int) -> None:
    prompt = f"[scenario: steps] {STEPS} steps"
    async with phone(house) as owner:
        if when == "at-rest":
            house.kill(name)
            killed = time.monotonic()
            task = await owner.submit(prompt, str(repository), key=f"{name}-{when}-{count}")
        else:
            task = await owner.submit(prompt, str(repository), key=f"{name}-{when}-{count}")
            await owner.until(lambda: tool_calls(owner, task) >= 3)
            house.kill(name)
            killed = time.monotonic()
        done = await owner.ended(task)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        # With the rest of the task in it, and the whole task when the kill came at rest.
        assert time.monotonic() - killed < AGAIN_SECONDS
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)
        assert tool_calls(owner, task) >= STEPS
    await anyio.to_thread.run_sync(history_has, house, task)
    if name == "history":
        assert time.monotonic() - killed < AGAIN_SECONDS


async def test_a_frozen_runner_loses_its_attempt_and_once_thawed_writes_nothing_more(
    house: House, repository: Path
) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: slow] seconds=8", str(repository), key="frozen")
        await owner.until(lambda: open_tool_call(owner, task) is not None)
        runner = psutil.Process(house.pid("runner"))
        sandbox = runner.children(recursive=True)
        runner.suspend()
        try:
            await owner.until(lambda: AttemptEnd.LEASE_LOST in ends(owner, task))
        finally:
            runner.resume()
        done = await owner.ended(task)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)
        assert_no_stale_write(owner, task)
        assert runner.is_running(), "it goes on, with the next attempt"
        assert psutil.wait_procs(sandbox, timeout=10)[1] == [], "the lost attempt's sandbox is left running"


def assert_no_stale_write(owner: Phone, task: str) -> None:
    """Nothing is in the journal by an attempt that was over."""
    held = 0
    for frame in owner.events[task]:
        if isinstance(frame, DecisionSeen):
            for event in frame.decision.events:
                match event:
                    case AttemptClaimed(attempt=attempt):
                        held = attempt
                    case AttemptEnded():
                        held = 0
        else:
            assert frame.entry.attempt == held, frame


async def test_a_runner_that_is_told_to_stop_gives_its_attempt_back_and_leaves_the_sandbox(
    house: House, repository: Path
) -> None:
    async with phone(house) as owner:
        # Longer than a claim that is under way: the runner lets that end first, or it would take its own task back.
        task = await owner.submit("[scenario: slow] seconds=6", str(repository), key="drained")
        await owner.until(lambda: open_tool_call(owner, task) is not None)
        psutil.Process(house.pid("runner")).terminate()
        done = await owner.ended(task)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert_parked_first(owner, task)
        assert_kept(owner, task)
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)


def assert_parked_first(owner: Phone, task: str) -> None:
    """The first attempt was given back, none was lost, and the last one finished."""
    how = ends(owner, task)
    assert how[0] is AttemptEnd.PARKED
    assert how[-1] is AttemptEnd.FINISHED
    assert AttemptEnd.LEASE_LOST not in how


def assert_kept(owner: Phone, task: str) -> None:
    """Each attempt but the first went on in the first one's sandbox, and no outcome was lost."""
    events = [frame.entry.event for frame in owner.journal(task)]
    first, *others = (event.sandbox_kept for event in events if isinstance(event, AttemptStarted))
    assert not first
    assert others
    assert all(others)
    lost = [event for event in events if isinstance(event, StepFinished) and isinstance(event.result, StepLost)]
    assert [event.result for event in lost if tool_of(events, event.step)] == []


def tool_of(events: Sequence[object], step: int) -> str:
    """Empty for a call of the model."""
    started = next(event for event in events if isinstance(event, StepStarted) and event.step == step)
    return started.action.name if isinstance(started.action, ToolCall) else ""


def ends(owner: Phone, task: str) -> list[AttemptEnd]:
    """How the task's attempts ended."""
    decisions = [frame.decision for frame in owner.events[task] if isinstance(frame, DecisionSeen)]
    return [event.how for decision in decisions for event in decision.events if isinstance(event, AttemptEnded)]


def tool_calls(owner: Phone, task: str) -> int:
    steps = (frame.entry.event for frame in owner.journal(task))
    return sum(isinstance(step, StepStarted) and isinstance(step.action, ToolCall) for step in steps)


def open_tool_call(owner: Phone, task: str) -> str | None:
    journal = owner.journal(task)
    if journal and isinstance(event := journal[-1].entry.event, StepStarted) and isinstance(event.action, ToolCall):
        return event.action.name if event.action.name == "bash" else None
    return None


def history_has(house: House, task: str) -> None:
    """The task's row says what the phone saw, however soon it is asked."""
    import sys

    command = [
        sys.executable,
        "-m",
        "services.cli",
        "sql",
        "--json",
        f"select state from tasks where task_id = '{task}'",
    ]
    while True:
        asked = subprocess.run(
            command, env={**os.environ, "ERRAND_DATA": str(house.data)}, capture_output=True, text=True, check=False
        )
        if '"succeeded"' in asked.stdout:
            return
