"""Questions between services: request and reply on `qry.<service>.<name>`, nothing is stored."""

from __future__ import annotations

from protocol.base import Message, Part
from protocol.evolve import Task
from protocol.task import DEFAULT_QUEUE, TaskState


class Refusal(Message, frozen=True):
    """The reply to a request that cannot be done: a reason a person can act on."""

    reason: str
    code: str = "refused"
    """`refused`, `not_found`, `unavailable` or `internal`; only `unavailable` is worth another try."""


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


class ListTasks(Message, frozen=True):
    """A user's tasks, the last changed first."""

    user: str
    states: tuple[TaskState, ...] = ()
    """Empty means all."""
    limit: int = 50
    before: str = ""
    """The last task id of the page before."""


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


class TaskList(Message, frozen=True):
    tasks: tuple[TaskSummary, ...] = ()
    more: bool = False


def summarize(task: Task) -> TaskSummary:
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
    )


# Between gateways.


class AskLooking(Message, frozen=True):
    """Whether a device's page is on somebody's screen. Answered only where it is: by a gateway that has such a socket,
    once the phone has answered a ping."""


class DeviceLooks(Message, frozen=True):
    """It is."""


# To any service.


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
