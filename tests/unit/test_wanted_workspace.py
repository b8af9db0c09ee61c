"""Which workspaces repos keeps that no runner holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from protocol.evolve import Holder, Task
from protocol.task import TaskState
from sandbox.config import Config
from services.config import WrongSetting, from_environment
from services.repos.workspaces import KEPT_SECONDS, is_wanted

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATE = NOW - timedelta(seconds=KEPT_SECONDS)
JUST = NOW - timedelta(seconds=1)


def task(state: TaskState, at: datetime | None, held: int = 0) -> Task:
    holder = Holder(attempt=held, runner="r", request="q") if held else None
    return Task(id="t1", user="owner", state=state, attempt=2, holder=holder, updated_at=at)


@pytest.mark.parametrize(
    ("state", "is_kept"),
    [
        (task(TaskState.RUNNING, LATE, held=2), True),  # its runner works, however long
        (task(TaskState.QUEUED, JUST), True),  # its runner was lost: the next one may go on in the sandbox over it
        (task(TaskState.DELAYED, JUST), True),
        (task(TaskState.RUNNING, JUST, held=3), True),  # the next one has just been given the turn
        (task(TaskState.QUEUED, LATE), False),  # every lease has ended
        (task(TaskState.RUNNING, LATE, held=3), False),
        (task(TaskState.SUCCEEDED, JUST), False),
        (task(TaskState.CANCELLED, JUST), False),
        (Task(id="t1", user=""), False),  # nobody knows it
    ],
)
def test_a_workspace_is_kept_while_a_sandbox_over_it_may_be_taken_over(state: Task, is_kept: bool) -> None:
    assert is_wanted(state, 2, NOW) is is_kept


def test_it_is_kept_for_the_longest_lease_that_can_be_set() -> None:
    longest = {"ERRAND_SANDBOX_LEASE_SECONDS": str(KEPT_SECONDS - 60)}
    assert from_environment(Config, longest).sandbox_lease_seconds == KEPT_SECONDS - 60
    with pytest.raises(WrongSetting, match="ERRAND_SANDBOX_LEASE_SECONDS"):
        from_environment(Config, {"ERRAND_SANDBOX_LEASE_SECONDS": str(KEPT_SECONDS - 59)})
