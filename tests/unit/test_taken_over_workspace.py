"""A sandbox that was taken over is used with its workspace, or ended."""

from __future__ import annotations

from typing import Any

import pytest

from protocol.evolve import Task
from protocol.repo import WorkspacePrepared
from sandbox.egress.policy import Egress
from services.bus import Refused, Unavailable
from services.runner.log import TaskLog
from services.runner.workspace import Workspace

pytestmark = pytest.mark.anyio


class Kept:
    """A sandbox, and the driver that finds it."""

    name = "bubblewrap"

    copies_workspaces = False

    def __init__(self) -> None:
        self.is_stopped = False

    async def reattach(self, spec: object, previous: int) -> Kept:
        return self

    async def stop(self) -> None:
        self.is_stopped = True


class Repos:
    """The bus, of which nothing is asked but the workspace."""

    def __init__(self, answer: WorkspacePrepared | Exception) -> None:
        self._answer = answer

    async def ask(self, *_: object, **__: object) -> WorkspacePrepared:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (WorkspacePrepared(path="/workspaces/2"), True),
        (WorkspacePrepared(path=""), False),  # somebody removed it
        (Unavailable("repos is away"), False),
        (Refused("this task's repository is not allowed any more"), False),
    ],
)
async def test_it_ends_where_its_workspace_cannot_be_had(answer: Any, is_kept: bool) -> None:
    kept, repos = Kept(), Repos(answer)
    log = TaskLog(repos, Task(id="task_1", user="owner"), 0)  # type: ignore[arg-type]
    workspace = Workspace(repos, kept, log, base_commit="", branch="", egress=Egress())  # type: ignore[arg-type]
    assert await workspace.take_over(1) is is_kept
    assert kept.is_stopped is not is_kept
