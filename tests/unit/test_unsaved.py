"""What is said of work that no checkpoint has."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.contract import ExecResult
from sandbox.left_out import left_out
from services.runner.unsaved import Unsaved

pytestmark = pytest.mark.anyio
GIT = """\
warning: adding embedded git repository: app
warning: in the working copy of 'a.txt', CRLF will be replaced by LF the next time Git touches it
error: 'new/' does not have a commit checked out
error: open("hidden"): Permission denied
error: unable to index file 'hidden'
warning: could not open directory 'locked/': Permission denied
"""


class Log:
    """Of which nothing is asked but to take notices."""

    def __init__(self) -> None:
        self.notices: list[str] = []

    async def append(self, event: Any) -> None:
        self.notices.append(event.text)


def test_of_what_git_says_only_what_is_missing_counts() -> None:
    assert [phrase.partition(":")[0] for phrase in left_out(GIT)] == ["app", "new", "hidden", "locked"]
    assert left_out("") == ()


async def test_the_user_and_the_agent_are_told_once() -> None:
    log = Log()
    unsaved = Unsaved(log)  # type: ignore[arg-type]
    for _ in range(2):
        await unsaved.saved(["app: a repository"])
    assert log.notices == ["Not saved: app: a repository."]
    said = [unsaved.said_with(ExecResult(exit_code=0, output="x")).output for _ in range(2)]
    assert said == ["x\n[Not saved: app: a repository.]\n", "x"]


async def test_a_checkpoint_that_fails_again_after_one_that_did_not_is_told_again() -> None:
    log = Log()
    unsaved = Unsaved(log)  # type: ignore[arg-type]
    for reason in ("disk full: tmp_1", "disk full: tmp_2", "", "disk full: tmp_3"):
        await (unsaved.failed(reason) if reason else unsaved.saved([]))
    assert [notice.rpartition(" ")[2] for notice in log.notices] == ["tmp_1", "tmp_3"]
