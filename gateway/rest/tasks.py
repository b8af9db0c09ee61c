"""Submit, list, show, speak to and cancel tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from litestar import Request, Router, get, post
from litestar.params import Parameter
from msgspec import Struct

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


class SubmitBody(Struct, frozen=True):
    prompt: str
    repository: str = ""
    """A git URL, or a path on the server (the owner only); a fork's is the other task's."""
    key: str = ""
    """The idempotency key; or in the header `Idempotency-Key`."""
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


class SayBody(Struct, frozen=True):
    text: str
    key: str = ""


class AnswerBody(Struct, frozen=True):
    question: str
    text: str
    key: str = ""


class ApproveBody(Struct, frozen=True):
    question: str
    key: str = ""


class DenyBody(Struct, frozen=True):
    question: str
    reason: str = ""
    """What to do instead: the agent is told."""
    key: str = ""


class ReasonBody(Struct, frozen=True):
    key: str = ""
    reason: str = ""


class BudgetBody(Struct, frozen=True):
    budget: Budget
    """What it says nothing of stays as it is."""
    key: str = ""


class PriorityBody(Struct, frozen=True):
    priority: int
    key: str = ""


class TagBody(Struct, frozen=True):
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    metadata: dict[str, str | None] = {}
    """What to put under these names; null takes away what is there."""
    key: str = ""


class KeyBody(Struct, frozen=True):
    key: str = ""


class Listed(Struct, frozen=True):
    tasks: tuple[TaskSummary, ...]
    more: bool
    """Whether there are older ones: ask again with `before` and `before_at`, the last one's `id` and `updated_at`."""


def key_of(request: Request, key: str) -> str:
    return request.headers.get("idempotency-key", "") or key


@post("/", status_code=202)
async def submit(request: Request, asker: Asker, tasks: Tasks, data: SubmitBody) -> Accepted:
    """Open a task. The same key gives the same task, however often and late it is sent."""
    return await tasks.submit(asker, frame_of(data, key_of(request, data.key)))


def frame_of(data: SubmitBody, key: str) -> Submit:
    return Submit(
        key=key,
        prompt=data.prompt,
        repository=data.repository,
        base=data.base,
        model=data.model,
        budget=data.budget,
        title=data.title,
        queue=data.queue,
        labels=data.labels,
        priority=data.priority,
        pull_request=data.pull_request,
        rules=data.rules,
        tags=data.tags,
        metadata=data.metadata,
        fork_of=data.fork_of,
        start_at=data.start_at,
        queue_seconds=data.queue_seconds,
        turn_seconds=data.turn_seconds,
    )


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


@post("/{task:str}/messages", status_code=202)
async def say(request: Request, asker: Asker, tasks: Tasks, task: str, data: SayBody) -> Accepted:
    """Steer the open turn, or open the next one."""
    return await tasks.store(asker, Say(key=key_of(request, data.key), task=task, text=data.text))


@post("/{task:str}/answers", status_code=202)
async def answer(request: Request, asker: Asker, tasks: Tasks, task: str, data: AnswerBody) -> Accepted:
    """Answer the open question; the first answer wins."""
    key = key_of(request, data.key)
    return await tasks.store(asker, Answer(key=key, task=task, question=data.question, text=data.text))


@post("/{task:str}/approve", status_code=202)
async def approve(request: Request, asker: Asker, tasks: Tasks, task: str, data: ApproveBody) -> Accepted:
    """Yes to what the open question asks to do; the first decision wins."""
    return await tasks.store(asker, Approve(key=key_of(request, data.key), task=task, question=data.question))


@post("/{task:str}/deny", status_code=202)
async def deny(request: Request, asker: Asker, tasks: Tasks, task: str, data: DenyBody) -> Accepted:
    """No to it; the agent goes on without."""
    key = key_of(request, data.key)
    return await tasks.store(asker, Deny(key=key, task=task, question=data.question, reason=data.reason))


@post("/{task:str}/archive", status_code=202)
async def archive(request: Request, asker: Asker, tasks: Tasks, task: str, data: KeyBody) -> Accepted:
    """Put the ended task into the archive now; a message opens it again."""
    return await tasks.store(asker, Archive(key=key_of(request, data.key), task=task))


@post("/{task:str}/cancel", status_code=202)
async def cancel(request: Request, asker: Asker, tasks: Tasks, task: str, data: ReasonBody) -> Accepted:
    """End the open turn now."""
    return await tasks.store(asker, Cancel(key=key_of(request, data.key), task=task, reason=data.reason))


@post("/{task:str}/budget", status_code=202)
async def change_budget(request: Request, asker: Asker, tasks: Tasks, task: str, data: BudgetBody) -> Accepted:
    """What a turn may spend from now on; a running one has it before its next step."""
    return await tasks.store(asker, ChangeBudget(key=key_of(request, data.key), task=task, budget=data.budget))


@post("/{task:str}/priority", status_code=202)
async def prioritize(request: Request, asker: Asker, tasks: Tasks, task: str, data: PriorityBody) -> Accepted:
    """This one sooner, or later, than the asker's others."""
    frame = Prioritize(key=key_of(request, data.key), task=task, priority=data.priority)
    return await tasks.store(asker, frame)


@post("/{task:str}/pause", status_code=202)
async def pause(request: Request, asker: Asker, tasks: Tasks, task: str, data: ReasonBody) -> Accepted:
    """Hold the open turn back: the work is saved, and no attempt starts until it is resumed."""
    return await tasks.store(asker, Pause(key=key_of(request, data.key), task=task, reason=data.reason))


@post("/{task:str}/resume", status_code=202)
async def resume(request: Request, asker: Asker, tasks: Tasks, task: str, data: KeyBody) -> Accepted:
    """Let a paused turn go on."""
    return await tasks.store(asker, Resume(key=key_of(request, data.key), task=task))


@post("/{task:str}/retry", status_code=202)
async def retry(request: Request, asker: Asker, tasks: Tasks, task: str, data: KeyBody) -> Accepted:
    """Try a turn that failed or was cancelled again: the next turn, with the same wish."""
    return await tasks.store(asker, Retry(key=key_of(request, data.key), task=task))


@post("/{task:str}/tags", status_code=202)
async def tag(request: Request, asker: Asker, tasks: Tasks, task: str, data: TagBody) -> Accepted:
    """Mark the task, in any state, so that it is found again."""
    key = key_of(request, data.key)
    frame = Tag(key=key, task=task, add=data.add, remove=data.remove, metadata=data.metadata)
    return await tasks.store(asker, frame)


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
