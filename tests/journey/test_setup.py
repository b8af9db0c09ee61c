"""A repository with a set-up, from a submitted task to its end: run once, seen by the user, used by the next task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.journal import SetupFinished, SetupStarted
from protocol.live import OutputSeen
from protocol.task import TaskState
from tests.integration.repos_house import make_origin
from tests.journey.house import House, Phone, errand_up, phone
from tests.journey.test_github import errand

pytestmark = pytest.mark.anyio
TOKEN = "a-token-for-the-registry"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with errand_up(tmp_path_factory.mktemp("house")) as house:
        yield house


def repository(folder: Path, script: str) -> Path:
    return make_origin(folder / "app", {"README.md": "# App\n", ".gitignore": "*.kept\n", ".errand/setup.sh": script})


def seen_of(owner: Phone, task: str) -> tuple[list[SetupStarted], list[SetupFinished]]:
    events = [frame.entry.event for frame in owner.journal(task)]
    return [e for e in events if isinstance(e, SetupStarted)], [e for e in events if isinstance(e, SetupFinished)]


async def test_a_set_up_is_seen_once_and_the_next_task_has_what_it_left(house: House, tmp_path: Path) -> None:
    app = repository(tmp_path, 'echo "with $TOKEN" && sleep 0.3 && echo x > y.kept\n')
    said = errand(house, house.token, "secret", "set", "TOKEN", "--repo", str(app), typed=f"{TOKEN}\n")
    async with phone(house) as owner:
        first = await owner.submit("[scenario: steps] 1 steps", str(app), key="first")
        done = await owner.ended(first)
        assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
        begun, ended = seen_of(owner, first)
        assert [event.script for event in begun] == [".errand/setup.sh"]
        assert [(event.reason, event.output, event.exit_code) for event in ended] == [("", "with [TOKEN]\n", 0)]
        frames = [f.output for f in owner.others if isinstance(f, OutputSeen) and f.task == first]
        assert "".join(output.text for output in frames if output.step == 0) == "with [TOKEN]\n"
        second = await owner.submit("[scenario: steps] 1 steps", str(app), key="second")
        assert (await owner.ended(second)).state is TaskState.SUCCEEDED
        assert seen_of(owner, second) == ([], [])
    said += errand(house, house.token, "secret", "ls") + errand(house, house.token, "secret", "ls", "--json")
    assert TOKEN not in said + house.logs()
    assert [path for path in house.data.rglob("*") if holds(path, TOKEN)] == []


async def test_a_set_up_that_fails_ends_the_turn_with_its_last_words(house: House, tmp_path: Path) -> None:
    app = repository(tmp_path, "echo no such package >&2\nexit 3\n")
    async with phone(house) as owner:
        task = await owner.submit("[scenario: steps] 1 steps", str(app), key="broken")
        done = await owner.ended(task)
        assert done.state is TaskState.FAILED
        assert done.reason.endswith("(.errand/setup.sh) ended with exit code 3. It said last:\nno such package")
        _, ended = seen_of(owner, task)
        assert [event.reason for event in ended] == [done.reason]


def holds(path: Path, text: str) -> bool:
    """False also for what goes away meanwhile: workspaces do."""
    try:
        return path.is_file() and text.encode() in path.read_bytes()
    except FileNotFoundError:
        return False
