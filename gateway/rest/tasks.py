"""Submit, list, show, speak to and cancel tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from litestar import Request, Router, get, post
from litestar.params import Parameter
from msgspec import Struct
from msgspec.structs import asdict

from gateway.errors import Problem
from gateway.tasks import Shown, Tasks
from gateway.users import Asker
from protocol.live import (
    Accepted,
    Answer,
    Approve,
    Archive,
    Cancel,
    ChangeBudget,
    CommandFrame,
    Deny,
    Pause,
    Prioritize,
    Resume,
    Retry,
    Say,
    Submit,
    Tag,
)
from protocol.query import TaskFilter, TaskSummary
from protocol.repo import Diff
from protocol.rules import Rule
from protocol.task import DEFAULT_QUEUE, Budget, TaskState


class KeyBody(Struct, frozen=True, kw_only=True):
    key: str = ""
    """The idempotency key; or in the header `Idempotency-Key`."""


class SubmitBody(KeyBody, frozen=True, kw_only=True):
    prompt: str
    repository: str = ""
    """A git URL, or a path on the server (the owner only); a fork's is the other task's."""
    base: str = ""
    model: str = ""
    budget: Budget = Budget()
    title: str = ""
    queue: str = DEFAULT_QUEUE
    labels: tuple[str, ...] = ()
    """What its runner must have."""
    priority: int = 0
    """-10 to 10: which of the user's own tasks goes first."""
    pull_request: bool = True
    rules: tuple[Rule, ...] = ()
    """What this task asks before; they come before the asker's own."""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    fork_of: str = ""
    """A task of the asker's whose work this one starts from, in its repository."""
    start_at: datetime | None = None
    """Not before this time, which has a time zone; none, or one that has passed, means now."""
    queue_seconds: float | None = None
    """A turn that no runner has begun after so long fails."""
    turn_seconds: float | None = None
    """A turn is ended after so long, its work saved; counted from when a runner could have begun it."""


class SayBody(KeyBody, frozen=True, kw_only=True):
    text: str


class AnswerBody(KeyBody, frozen=True, kw_only=True):
    question: str
    text: str


class ApproveBody(KeyBody, frozen=True, kw_only=True):
    question: str


class DenyBody(KeyBody, frozen=True, kw_only=True):
    question: str
    reason: str = ""
    """What to do instead: the agent is told."""


class ReasonBody(KeyBody, frozen=True, kw_only=True):
    reason: str = ""


class BudgetBody(KeyBody, frozen=True, kw_only=True):
    budget: Budget
    """What it says nothing of stays as it is."""


class PriorityBody(KeyBody, frozen=True, kw_only=True):
    priority: int


class TagBody(KeyBody, frozen=True, kw_only=True):
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    metadata: dict[str, str | None] = {}
    """What to put under these names; null takes away what is there."""


class Listed(Struct, frozen=True):
    tasks: tuple[TaskSummary, ...]
    more: bool
    """Whether there are older ones: ask again with `before` and `before_at`, the last one's `id` and `updated_at`."""


F = TypeVar("F", bound=CommandFrame)


def key_of(request: Request, key: str) -> str:
    return request.headers.get("idempotency-key", "") or key


@post("/", status_code=202)
async def submit(request: Request, asker: Asker, tasks: Tasks, data: SubmitBody) -> Accepted:
    """Open a task. The same key gives the same task, however often and late it is sent."""
    return await tasks.submit(asker, frame_of(data, key_of(request, data.key)))


def frame_of(data: SubmitBody, key: str) -> Submit:
    return Submit(**{**asdict(data), "key": key})


@get("/")
async def list_tasks(
    asker: Asker,
    tasks: Tasks,
    states: Annotated[list[TaskState] | None, Parameter(query="state")] = None,
    tags: Annotated[list[str] | None, Parameter(query="tag")] = None,
    metadata: Annotated[list[str] | None, Parameter(description="`name=value`; all of them.")] = None,
    repository: Annotated[str, Parameter(description="A part of its URL.")] = "",
    search: Annotated[str, Parameter(description="Words that are all in the title or the prompt.")] = "",
    limit: int = 50,
    before: str = "",
    before_at: Annotated[datetime | None, Parameter(description="The `updated_at` of `before` in its line.")] = None,
) -> Listed:
    """The asker's tasks of which all of this is so, the last changed first."""
    where = TaskFilter(
        states=tuple(states or ()),
        tags=tuple(tags or ()),
        metadata=pairs(metadata or ()),
        repository=repository,
        search=search,
    )
    found = await tasks.list(asker, where=where, limit=limit, before=before, before_at=before_at)
    return Listed(found.tasks, found.more)


def pairs(given: Sequence[str]) -> dict[str, str]:
    """`name=value`, each."""
    if any("=" not in pair for pair in given):
        raise Problem(422, "Metadata is asked for as name=value.", "metadata")
    return dict(pair.split("=", 1) for pair in given)


@get("/{task:str}")
async def show(asker: Asker, tasks: Tasks, task: str) -> Shown:
    """One task, folded from the stream."""
    return await tasks.show(asker, task)


@get("/{task:str}/diff")
async def diff(asker: Asker, tasks: Tasks, task: str) -> Diff:
    """What the task changed."""
    return await tasks.diff(asker, task)


def on_task(kind: type[F], request: Request, task: str, data: KeyBody) -> F:
    """The frame that says over HTTP's body what a phone says over its socket."""
    return kind(**{**asdict(data), "key": key_of(request, data.key), "task": task})


@post("/{task:str}/messages", status_code=202)
async def say(request: Request, asker: Asker, tasks: Tasks, task: str, data: SayBody) -> Accepted:
    """Steer the open turn, or open the next one."""
    return await tasks.store(asker, on_task(Say, request, task, data))


@post("/{task:str}/answers", status_code=202)
async def answer(request: Request, asker: Asker, tasks: Tasks, task: str, data: AnswerBody) -> Accepted:
    """Answer the open question; the first answer wins."""
    return await tasks.store(asker, on_task(Answer, request, task, data))


@post("/{task:str}/approve", status_code=202)
async def approve(request: Request, asker: Asker, tasks: Tasks, task: str, data: ApproveBody) -> Accepted:
    """Yes to what the open question asks to do; the first decision wins."""
    return await tasks.store(asker, on_task(Approve, request, task, data))


@post("/{task:str}/deny", status_code=202)
async def deny(request: Request, asker: Asker, tasks: Tasks, task: str, data: DenyBody) -> Accepted:
    """No to it; the agent goes on without."""
    return await tasks.store(asker, on_task(Deny, request, task, data))


@post("/{task:str}/archive", status_code=202)
async def archive(request: Request, asker: Asker, tasks: Tasks, task: str, data: KeyBody) -> Accepted:
    """Put the ended task into the archive now; a message opens it again."""
    return await tasks.store(asker, on_task(Archive, request, task, data))


@post("/{task:str}/cancel", status_code=202)
async def cancel(request: Request, asker: Asker, tasks: Tasks, task: str, data: ReasonBody) -> Accepted:
    """End the open turn now."""
    return await tasks.store(asker, on_task(Cancel, request, task, data))


@post("/{task:str}/budget", status_code=202)
async def change_budget(request: Request, asker: Asker, tasks: Tasks, task: str, data: BudgetBody) -> Accepted:
    """What a turn may spend from now on; a running one has it before its next step."""
    return await tasks.store(asker, on_task(ChangeBudget, request, task, data))


@post("/{task:str}/priority", status_code=202)
async def prioritize(request: Request, asker: Asker, tasks: Tasks, task: str, data: PriorityBody) -> Accepted:
    """This one sooner, or later, than the asker's others."""
    return await tasks.store(asker, on_task(Prioritize, request, task, data))


@post("/{task:str}/pause", status_code=202)
async def pause(request: Request, asker: Asker, tasks: Tasks, task: str, data: ReasonBody) -> Accepted:
    """Hold the open turn back: the work is saved, and no attempt starts until it is resumed."""
    return await tasks.store(asker, on_task(Pause, request, task, data))


@post("/{task:str}/resume", status_code=202)
async def resume(request: Request, asker: Asker, tasks: Tasks, task: str, data: KeyBody) -> Accepted:
    """Let a paused turn go on."""
    return await tasks.store(asker, on_task(Resume, request, task, data))


@post("/{task:str}/retry", status_code=202)
async def retry(request: Request, asker: Asker, tasks: Tasks, task: str, data: KeyBody) -> Accepted:
    """Try a turn that failed or was cancelled again: the next turn, with the same wish."""
    return await tasks.store(asker, on_task(Retry, request, task, data))


@post("/{task:str}/tags", status_code=202)
async def tag(request: Request, asker: Asker, tasks: Tasks, task: str, data: TagBody) -> Accepted:
    """Mark the task, in any state, so that it is found again."""
    return await tasks.store(asker, on_task(Tag, request, task, data))


ROUTER = Router(
    "/api/tasks",
    route_handlers=[
        submit,
        list_tasks,
        show,
        diff,
        say,
        answer,
        approve,
        deny,
        cancel,
        change_budget,
        prioritize,
        pause,
        resume,
        retry,
        archive,
        tag,
    ],
)
