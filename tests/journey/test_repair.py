"""The whole way: a real package's broken function, repaired on a pushed branch; and what a user says on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio.to_thread
import psutil
import pytest

from protocol.evolve import Task
from protocol.journal import (
    AttemptStarted,
    CheckpointMade,
    HostRefused,
    ModelCall,
    StepFinished,
    StepStarted,
    ToolResult,
)
from protocol.live import Answer, Cancel, JournalSeen, OutputSeen, Pause, Resume, Say
from protocol.task import OUTCOMES, Budget, TaskState
from tests.journey import stream
from tests.journey.house import House, Phone, assert_ended_once, assert_no_gap, errand_up, phone
from tests.journey.package import NAME, TEST_COMMAND, Broken, broken_package, git, suite_passes
from tests.journey.test_kills import make_repository

pytestmark = pytest.mark.anyio
SEED = int(os.environ.get("ERRAND_SEED", "10"))
"""Chooses the function that is broken, and how."""
REPAIR_SECONDS = 100.0
CANCEL_SECONDS = 2.0


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    # Each sandbox is its task's from the start: its processes are found by that, and none waits for a next one.
    settings = {
        "ERRAND_SANDBOX_WARM": "0",
        "ERRAND_SANDBOX_EGRESS": "registries",
        "ERRAND_SANDBOX_REGISTRIES": "packages.example.org",
    }
    with errand_up(tmp_path_factory.mktemp("house"), **settings) as house:
        yield house


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    broken = broken_package(tmp_path_factory.mktemp("package"), SEED)
    print(f"ERRAND_SEED={SEED}: {broken.fault}")
    return broken


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "greeter")


@pytest.mark.timeout(180)
async def test_a_broken_package_comes_back_repaired_on_a_branch(house: House, broken: Broken, tmp_path: Path) -> None:
    await repair(house, broken, tmp_path)


async def repair(house: House, broken: Broken, tmp_path: Path) -> str:
    """The whole way of the repair's task; its id."""
    refs = git(broken.repository, "for-each-ref")
    async with phone(house) as owner:
        prompt = f"A function of {NAME} is broken: `{TEST_COMMAND}` fails. Repair it. [scenario: repair]"
        unlimited = Budget(steps=None, tokens=None, money_usd=None, wall_seconds=None)
        task = await owner.submit(prompt, str(broken.repository), key=f"repair-{SEED}", budget=unlimited)
        done = await owner.ended(task, REPAIR_SECONDS)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert "passes again" in done.summary, f"{broken.fault}: {done.summary}"
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)
    messages = await stream.raw_stream(house.data, task)
    assert [frame.sequence for frame in owner.events[task]] == [message.sequence for message in messages]
    assert {"bash", "grep", "str_replace_based_edit_tool"} <= {step.tool for step in stream.steps(messages).values()}
    assert_pushed(broken, done, refs)
    assert not await anyio.to_thread.run_sync(passes, broken.repository, "main", tmp_path / "base")
    assert await anyio.to_thread.run_sync(passes, broken.repository, branch_of(done), tmp_path / "pushed")
    await anyio.to_thread.run_sync(assert_history_is, house, task, messages)
    return task


async def test_a_message_after_success_opens_a_turn_that_pushes_on_the_same_branch(
    house: House, repository: Path
) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: tour] Look around.", str(repository), key="follow-up")
        first = await owner.ended(task)
        await owner.command(Say(key="more", task=task, text="It should speak of tides."))
        await owner.until(lambda: owner.tasks[task].turn == 2 and owner.tasks[task].state in OUTCOMES)
        second = owner.tasks[task]
        assert (first.state, second.state) == (TaskState.SUCCEEDED, TaskState.SUCCEEDED), house.logs()
        assert_ended_once(owner, task, turns=2)
        assert_no_gap(owner, task)
        assert messages_read(owner, task) == [0, 1]
    assert first.published is not None
    assert second.published is not None
    assert branch_of(second) == branch_of(first)
    added = git(repository, "rev-list", f"{first.published.commit}..{branch_of(second)}").splitlines()
    assert added == [second.published.commit], "one commit, on top of the first turn's"
    page = git(repository, "show", f"{branch_of(second)}:ERRAND.md")
    assert "A tour of this repository" in page, "what the first turn wrote"
    assert page.endswith("It should speak of tides.")
    messages = await stream.raw_stream(house.data, task)
    await anyio.to_thread.run_sync(assert_history_is, house, task, messages)


async def test_a_question_waits_for_the_phones_answer(house: House, repository: Path) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: ask]", str(repository), key="question")
        await owner.until(lambda: owner.tasks[task].state is TaskState.WAITING)
        question = owner.tasks[task].question
        assert question is not None
        assert question.choices == ("red", "blue")
        await owner.command(Answer(key="answer", task=task, question=question.id, text="Blue, as the sea is."))
        done = await owner.ended(task)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)
    assert "Blue, as the sea is." in git(repository, "show", f"{branch_of(done)}:ANSWER.md")


async def test_a_cancel_ends_a_running_command_at_once_and_leaves_no_process(house: House, repository: Path) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: slow] 60 seconds", str(repository), key="cancel")
        await owner.until(lambda: "waiting" in output(owner, task))
        running = sandbox_processes(task)
        assert running, "the sandbox runs"
        asked = time.monotonic()
        await owner.command(Cancel(key="enough", task=task, reason="Enough."))
        done = await owner.ended(task, CANCEL_SECONDS)
        left = CANCEL_SECONDS - (time.monotonic() - asked)
        _, alive = await anyio.to_thread.run_sync(psutil.wait_procs, running, left)
        assert alive == []
        assert sandbox_processes(task) == []
        assert (done.state, done.reason) == (TaskState.CANCELLED, "Enough.")
        assert done.published is None
        assert_no_gap(owner, task)
    assert git(repository, "for-each-ref", "--format=%(refname)") == "refs/heads/main"


async def test_a_paused_task_gives_its_sandbox_back_with_the_work_saved_and_goes_on_when_it_is_resumed(
    house: House, repository: Path
) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: slow] 3 seconds", str(repository), key="pause")
        await owner.until(lambda: "waiting" in output(owner, task))
        running = sandbox_processes(task)
        assert running, "the sandbox runs"
        await owner.command(Pause(key="hold", task=task))
        await owner.until(lambda: owner.tasks[task].state is TaskState.PAUSED and owner.tasks[task].holder is None)
        saved = [frame for frame in owner.journal(task) if isinstance(frame.entry.event, CheckpointMade)]
        assert saved, "the runner journals its work after the pause"
        await owner.command(Say(key="meanwhile", task=task, text="It should speak of tides."))
        await owner.until(lambda: owner.tasks[task].messages == 1)
        assert owner.tasks[task].state is TaskState.PAUSED
        # The sandbox is given back once the attempt is over.
        _, alive = await anyio.to_thread.run_sync(psutil.wait_procs, running, CANCEL_SECONDS)
        assert (alive, sandbox_processes(task)) == ([], [])
        await owner.command(Resume(key="go-on", task=task))
        done = await owner.ended(task)
        assert (done.state, done.turn, done.attempt) == (TaskState.SUCCEEDED, 1, 2), f"{done.reason}\n{house.logs()}"
        assert messages_read(owner, task) == [0, 1]
        assert_ended_once(owner, task)
        assert_no_gap(owner, task)


async def test_a_fork_starts_from_the_other_tasks_work_and_leaves_that_one_as_it_is(
    house: House, repository: Path
) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: tour] Look around.", str(repository), key="trunk")
        trunk = await owner.ended(task)
        forked = await owner.submit("[scenario: steps] steps=1", "", key="fork", fork_of=task)
        done = await owner.ended(forked)
        assert (trunk.state, done.state) == (TaskState.SUCCEEDED, TaskState.SUCCEEDED), f"{done.reason}\n{house.logs()}"
        assert (done.fork_of, done.repository) == (task, trunk.repository)
        assert owner.tasks[task] == trunk
        started = next(f.entry.event for f in owner.journal(forked) if isinstance(f.entry.event, AttemptStarted))
        assert "Look around." in started.told
        assert_no_gap(owner, forked)
    assert trunk.published is not None
    assert done.published is not None
    added = git(repository, "rev-list", f"{trunk.published.commit}..{branch_of(done)}").splitlines()
    assert added == [done.published.commit], "one commit, on top of the other task's"
    assert git(repository, "show", f"{branch_of(done)}:ERRAND.md")
    assert git(repository, "rev-parse", branch_of(trunk)) == trunk.published.commit


def assert_pushed(broken: Broken, done: Task, refs: str) -> None:
    """The host's repository has the branch, one commit on the base that says whose it is, and no other new ref."""
    published = done.published
    assert published is not None
    branch = f"refs/heads/{published.branch}"
    assert published.base_commit == broken.base
    new = set(git(broken.repository, "for-each-ref").splitlines()) - set(refs.splitlines())
    assert new == {f"{published.commit} commit\t{branch}"}
    assert git(broken.repository, "rev-parse", branch) == published.commit
    assert git(broken.repository, "rev-list", f"{broken.base}..{branch}") == published.commit
    message = git(broken.repository, "log", "-1", "--format=%B", branch)
    assert "scripted, not Claude" in message
    changed = git(broken.repository, "diff", "--numstat", broken.base, branch).split("\t")
    assert changed[:2] == ["1", "1"], "one line"
    assert changed[2].startswith(f"{NAME}/"), "of the package, not of its tests"


def passes(repository: Path, branch: str, folder: Path) -> bool | None:
    """Whether the package's own tests pass on a fresh clone."""
    subprocess.run(["git", "clone", "-q", "--branch", branch, str(repository), str(folder)], check=True)
    return suite_passes(folder)


def assert_history_is(house: House, task: str, messages: list[stream.Message]) -> None:
    """§10.9: DuckDB's rows are what the raw stream says."""
    of_task = f"where task_id = '{task}'"
    usage = ", ".join(stream.USAGE)
    sums = ", ".join(f"sum({name})" for name in stream.USAGE)

    def rows(query: str) -> list[list[Any]]:
        answer = json.loads(errand(house, "sql", "--json", query))
        assert answer["sequence"] >= messages[-1].sequence
        return answer["rows"]

    errand(house, "watch", "--json", task)  # `sql` answers from a history that has what was seen here
    events = rows(f"select source, kind, count(*) from events {of_task} group by all")
    assert {(source, kind): count for source, kind, count in events} == stream.kinds(messages)
    steps = stream.steps(messages)
    assert rows(f"select step, tool, outcome from steps {of_task} order by step") == [
        [number, step.tool, step.outcome] for number, step in sorted(steps.items())
    ]
    assert rows(f"select {sums} from steps {of_task}")[0] == pytest.approx(
        stream.total([step.usage for step in steps.values()])
    )
    turns = rows(f"select turn, outcome, branch, commit, base_commit, {usage} from turns {of_task} order by turn")
    assert [turn[:5] for turn in turns] == [turn[:5] for turn in stream.turns(messages)]
    for ours, raw in zip(turns, stream.turns(messages), strict=True):
        assert ours[5:] == pytest.approx(raw[5:])
    attempts = f"select attempt, turn, base_commit, branch, scripted, how from attempts {of_task} order by attempt"
    assert rows(attempts) == stream.attempts(messages)
    assert rows(f"select sequence, key, status from receipts {of_task} order by sequence") == stream.receipts(messages)


async def test_a_host_that_is_refused_is_told_to_the_user_and_to_the_agent(house: House, repository: Path) -> None:
    async with phone(house) as owner:
        task = await owner.submit("[scenario: download] host=elsewhere.example.org", str(repository), key="egress")
        assert (await owner.ended(task)).state is TaskState.SUCCEEDED
        entries = [seen.entry.event for seen in owner.events[task] if isinstance(seen, JournalSeen)]
    started = next(entry for entry in entries if isinstance(entry, AttemptStarted))
    assert started.egress == ("registries",)
    [refused] = [entry for entry in entries if isinstance(entry, HostRefused)]
    assert (refused.host, refused.port) == ("elsewhere.example.org", 443)
    assert refused.reason.endswith("the owner can add elsewhere.example.org to ERRAND_SANDBOX_EGRESS")
    told = [
        entry.result.text
        for entry in entries
        if isinstance(entry, StepFinished) and isinstance(entry.result, ToolResult)
    ]
    assert f"[network: {refused.reason}]" in told[0]
    assert f"! Network: {refused.reason}" in await anyio.to_thread.run_sync(errand, house, "watch", task)
    assert "which reaches registries of the network" in await anyio.to_thread.run_sync(errand, house, "doctor")


def errand(house: House, *arguments: str) -> str:
    asked = subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        env={**os.environ, "ERRAND_DATA": str(house.data)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 0, f"errand {arguments[0]}: {asked.stderr}{asked.stdout[-500:]}"
    return asked.stdout


def branch_of(task: Task) -> str:
    assert task.published is not None
    return task.published.branch


def messages_read(owner: Phone, task: str) -> list[int]:
    """By the model, in order."""
    steps = (frame.entry.event for frame in owner.journal(task))
    calls = (step.action for step in steps if isinstance(step, StepStarted))
    return [number for call in calls if isinstance(call, ModelCall) for number in call.messages_read]


def output(owner: Phone, task: str) -> str:
    """Of the running tools, as it was previewed."""
    frames = (frame for frame in owner.others if isinstance(frame, OutputSeen) and frame.task == task)
    return "".join(frame.output.text for frame in frames if frame.output.channel == "tool")


def sandbox_processes(task: str) -> list[psutil.Process]:
    """Every process of the task's sandbox, which names the task in its environment, with all below it."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get("ERRAND_TASK") == task:
                for one in (process, *process.children(recursive=True)):
                    found[one.pid] = one
    return list(found.values())
