"""What is submitted again and again, by a cron expression in a user's log."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from protocol.base import Part
from protocol.rules import Rule
from protocol.task import DEFAULT_QUEUE, Budget, TaskState

SCHEDULES_LIMIT = 50
"""Schedules one user may have."""
OPEN_RUNS_LIMIT = 10
"""Tasks of one schedule that may be open at one time; what falls due beyond it is left out."""
FAILURES_LIMIT = 3
"""So many failures in a row pause a schedule."""
LATE_SECONDS = 60.0
"""An occurrence that comes later is a missed one."""


class CatchUp(StrEnum):
    """What becomes of occurrences that fell due while the server was down."""

    SKIP = "skip"
    """Nothing."""
    ONCE = "once"
    """One task for all of them."""
    ALL = "all"
    """A task for each, the last `OPEN_RUNS_LIMIT` of them."""


class Submission(Part, frozen=True):
    """What a schedule submits, as `SubmitTask` has it."""

    prompt: str
    repository: str
    base: str = ""
    model: str = ""
    budget: Budget = Budget()
    title: str = ""
    queue: str = DEFAULT_QUEUE
    labels: tuple[str, ...] = ()
    priority: int = 0
    pull_request: bool = True
    rules: tuple[Rule, ...] = ()
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    queue_seconds: float | None = None
    turn_seconds: float | None = None


class Run(Part, frozen=True):
    """One occurrence whose task has not come to an outcome yet."""

    task: str
    due: datetime


class Progress(Part, frozen=True):
    """What a schedule's runs change of it."""

    id: str
    next_at: datetime | None = None
    paused: str = ""
    failures: int = 0
    runs: tuple[Run, ...] = ()
    last_task: str = ""
    last_due: datetime | None = None
    last_outcome: TaskState | None = None


class Schedule(Part, frozen=True):
    """As the user's log made it."""

    id: str
    name: str
    cron: str
    time_zone: str
    submission: Submission
    added_at: datetime
    catch_up: CatchUp = CatchUp.ONCE
    next_at: datetime | None = None
    """None while it is paused."""
    paused: str = ""
    """Why it is; empty while it is not."""
    failures: int = 0
    """In a row."""
    runs: tuple[Run, ...] = ()
    last_task: str = ""
    last_due: datetime | None = None
    last_outcome: TaskState | None = None


def is_of_a_schedule(key: str) -> bool:
    """Whether a command is one of a schedule's own, by its key: `fire` its timer or `end` its run. A client's key has
    no space."""
    return key.partition(" ")[0] in ("fire", "end") and " " in key
