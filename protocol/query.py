"""Questions between services: request and reply on `qry.<service>.<name>`, nothing is stored."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import Struct

from protocol.base import Message, Part
from protocol.evolve import Task
from protocol.journal import Output
from protocol.task import DEFAULT_QUEUE, TaskState


class Refusal(Message, frozen=True):
    """The reply to a request that cannot be done: a reason a person can act on."""

    reason: str
    code: str = "refused"
    """`refused`, `not_found`, `unavailable` or `internal`; only `unavailable` is worth another try."""


LIST_TASKS_LIMIT = 500
"""Lines of one answer to `ListTasks`."""


# To the active scheduler.


class ClaimAttempt(Message, frozen=True):
    """A runner has a free slot and waits for work. The same request id gets the same attempt."""

    request: str
    runner: str
    queue: str = DEFAULT_QUEUE
    labels: tuple[str, ...] = ()
    """What the runner has: it gets tasks that ask for these or fewer."""
    slots: int = 1
    """How many attempts the runner takes side by side, those it has included."""
    wait_seconds: float = 2.0


class AttemptGranted(Message, frozen=True):
    """The attempt is the runner's."""

    task: Task
    sequence: int
    """The stream sequence of the decision: what the runner expects to be the last of the whole task."""


class NothingToClaim(Message, frozen=True):
    """Nothing came within the time asked for."""


class Why(StrEnum):
    """Why a queued task waits."""

    NO_SLOT = "no_slot"
    """Every slot that fits is taken: its turn comes."""
    PAUSED = "paused"
    """The owner holds its queue back."""
    NOT_SERVED = "not_served"
    """No runner takes work from its queue: a wrong name, or a machine that is off."""
    NO_LABELS = "no_labels"
    """Runners serve its queue, and none has all its labels."""
    QUEUE_LIMIT = "queue_limit"
    USER_LIMIT = "user_limit"
    REPOSITORY_LIMIT = "repository_limit"


class ShowQueue(Message, frozen=True):
    """What waits and why, what runs where, and who serves which queue."""

    user: str
    everything: bool = False
    """Of all users, for the owner; otherwise of the asker alone."""
    limit: int = 100
    """Of the tasks that wait, and of those that run."""


class WaitingTask(Part, frozen=True):
    """A task in the line. Title and repository of the asker's own alone."""

    id: str
    user: str
    queue: str
    place: int
    """In its queue, from 1: the order in which they are served if no other comes."""
    why: Why
    reason: str
    """The same as a sentence."""
    labels: tuple[str, ...] = ()
    since: datetime | None = None
    """From when its wait counts."""
    priority: int = 0
    effective_priority: float = 0.0
    """With what the wait has added."""
    title: str = ""
    repository: str = ""


class RunningTask(Part, frozen=True):
    """A task that has a slot: it runs, or a runner holds it while the user is asked."""

    id: str
    user: str
    queue: str
    labels: tuple[str, ...] = ()
    runner: str = ""
    since: datetime | None = None
    title: str = ""
    repository: str = ""


class QueueLine(Part, frozen=True):
    """One queue. The numbers are of the tasks that the asker may see."""

    queue: str
    waiting: int = 0
    running: int = 0
    running_limit: int = 0
    paused: bool = False
    served: bool = False
    """Whether a runner takes work from it now."""


class RunnerLine(Part, frozen=True):
    """A runner, by what was last heard of it: a hint."""

    queue: str
    runner: str = ""
    """For the owner."""
    labels: tuple[str, ...] = ()
    slots: int = 1
    busy: int | None = None
    """Slots in use, for the owner."""
    heard_at: datetime | None = None
    """When it last asked for work: one that is full asks no more."""


class StoppedLog(Part, frozen=True):
    """A task, or a user, of which nothing can be decided. Title and repository of the asker's own alone."""

    user: str
    task: str = ""
    """Empty: the user itself."""
    reason: str = ""
    """A sentence that says what to do."""
    commands: int = 0
    """How many wait for it."""
    title: str = ""
    repository: str = ""


class QueueShown(Message, frozen=True):
    queues: tuple[QueueLine, ...] = ()
    waiting: tuple[WaitingTask, ...] = ()
    running: tuple[RunningTask, ...] = ()
    runners: tuple[RunnerLine, ...] = ()
    more: bool = False
    """Whether more wait than are shown."""
    stopped: tuple[StoppedLog, ...] = ()


class TaskFilter(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which tasks: those of which all that is given here is so."""

    states: tuple[TaskState, ...] = ()
    """Any of these; empty means all."""
    tags: tuple[str, ...] = ()
    """All of these."""
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    """All of these, with these values."""
    repository: str = ""
    """A part of its URL."""
    search: str = ""
    """Words, all of which are in the title or the prompt; large and small letters are the same."""


class AskSpending(Message, frozen=True):
    """What a user has spent today."""

    user: str


class Spending(Message, frozen=True):
    """Of the user's day that ends at `day_ends`, in dollars."""

    spent_usd: float
    """By attempts that have ended."""
    reserved_usd: float
    """Set aside for those that run, where there is a limit."""
    limit_usd: float | None
    """Null means unlimited."""
    day_ends: datetime


class ListTasks(Message, TaskFilter, frozen=True):
    """A user's tasks, the last changed first."""

    user: str
    limit: int = 50
    before: str = ""
    """The last task id of the page before."""
    before_at: datetime | None = None
    """That one's `updated_at` there: the page goes on from then, also where the task has changed since. None: from
    where the task is now."""


class TaskSummary(Part, frozen=True):
    """A line of the task list."""

    id: str
    title: str
    state: TaskState
    repository: str
    created_at: str
    updated_at: str
    turn: int = 0
    reason: str = ""
    branch: str = ""
    pull_request: str = ""
    """Its URL."""
    cost_usd: float = 0.0
    question: str = ""
    waits: str = ""
    """Why a queued one waits, by who asked the scheduler."""
    archived: bool = False
    """It ended long ago, or its user put it away. A message opens it again."""
    tags: tuple[str, ...] = ()
    until: str = ""
    """When a delayed one goes on."""


class TaskList(Message, frozen=True):
    tasks: tuple[TaskSummary, ...] = ()
    more: bool = False


def summarize(task: Task, waits: str = "") -> TaskSummary:
    return TaskSummary(
        id=task.id,
        title=task.title,
        state=task.state,
        repository=task.repository,
        created_at=task.created_at.isoformat() if task.created_at else "",
        updated_at=task.updated_at.isoformat() if task.updated_at else "",
        turn=task.turn,
        reason=task.reason,
        branch=task.published.branch if task.published else "",
        pull_request=task.published.pull_request.url if task.published and task.published.pull_request else "",
        cost_usd=round(task.usage.cost_usd, 6),
        question=task.question.text if task.question else "",
        waits=waits,
        archived=task.archived_at is not None,
        tags=task.tags,
        until=task.delayed_until.isoformat() if task.state is TaskState.DELAYED and task.delayed_until else "",
    )


# Between gateways.


class AskLooking(Message, frozen=True):
    """Whether a device's page is on somebody's screen. Answered only where it is: by a gateway that has such a socket,
    once the phone has answered a ping."""


class DeviceLooks(Message, frozen=True):
    """It is."""


# To the runner that has a task's attempt.


class AskPrinted(Message, frozen=True):
    """What the running steps of a task's attempt have put out so far: previews are heard from now on only. Answered
    only where the attempt is."""


class Printed(Message, frozen=True):
    """The end of it, in order: whatever is not in it was before the first piece of its step, or the step has ended."""

    output: tuple[Output, ...] = ()


# To any service.


class AskInForce(Message, frozen=True):
    """What the service works with; asked by `errand doctor`."""


class InForce(Message, frozen=True):
    """Of the process that answers, whatever the settings of who asks are."""

    service: str
    process: str = ""
    """Its host and process id."""
    settings: tuple[SettingInForce, ...] = ()
    """All of its settings."""
    checks: tuple[Check, ...] = ()
    """What it has looked at on its machine: of a runner, what its sandboxes are held to."""


class SettingInForce(Struct, frozen=True):
    """A setting as a process has it."""

    name: str
    value: str
    """As it would stand in the environment. Of a secret `set` or nothing, of an address without what may be secret."""
    is_default: bool = False


class Check(Struct, frozen=True):
    """One thing that was looked at, as `errand doctor` shows it."""

    name: str
    status: str
    """`ok`, `warn` or `fail`."""
    text: str
    """What was found, and what to do where it is not ok."""


class AskHealth(Message, frozen=True):
    """Whether the service moves; asked by `errand doctor`, Compose and `errand up`."""


class Health(Message, frozen=True):
    """Healthy only with a connection to NATS and with every reader moving."""

    healthy: bool
    service: str
    detail: str = ""
    notices: tuple[str, ...] = ()
    """Sentences to show the user on every screen: scripted model, unsandboxed."""
    models: tuple[str, ...] = ()
    """From a runner: names to offer for a task, the default first. Another name that the API knows is taken too."""
