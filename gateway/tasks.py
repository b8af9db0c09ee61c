"""Commands to tasks, and what is known of a task: shared by REST and the live socket.

Every subject is made from the asker's own user id, so another user's task cannot even be named.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import datetime
from typing import assert_never

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from gateway import checks
from gateway.errors import Problem, no_task, of_refusal
from gateway.remembered import Remembered
from gateway.users import Asker
from protocol.base import tag_of
from protocol.evolve import Task, evolve
from protocol.ids import is_token, task_id
from protocol.live import (
    LIST_LIMIT,
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
from protocol.query import ListTasks, TaskFilter, TaskList
from protocol.repo import CHECK_SECONDS, CheckRepository, Diff, RepositoryKnown, ShowDiff
from protocol.routes import Service, command_subject
from protocol.task import (
    OUTCOMES,
    AnswerQuestion,
    ApproveQuestion,
    ArchiveTask,
    CancelTask,
    DenyQuestion,
    PauseTask,
    Receipt,
    ReceiptStatus,
    ResumeTask,
    RetryTask,
    SendMessage,
    SetBudget,
    SetPriority,
    SubmitTask,
    TagTask,
    TaskCommand,
    TaskState,
    decode_decision,
    decode_task_command,
)
from protocol.user import BulkBegun, decode_user_decision
from services.bus import Bus, Refused, Stored, Unavailable

EVERYTHING = TaskFilter()
COMMANDS: dict[type[CommandFrame], type[TaskCommand]] = {
    Submit: SubmitTask,
    Say: SendMessage,
    Answer: AnswerQuestion,
    Approve: ApproveQuestion,
    Deny: DenyQuestion,
    Cancel: CancelTask,
    ChangeBudget: SetBudget,
    Prioritize: SetPriority,
    Pause: PauseTask,
    Resume: ResumeTask,
    Retry: RetryTask,
    Archive: ArchiveTask,
    Tag: TagTask,
}
"""What each frame asks of its task."""
NOT_DECIDED = "The scheduler has not taken it yet."


class Shown(Struct, frozen=True):
    """A task as its decisions made it."""

    task: Task
    state: TaskState
    sequence: int
    """The stream sequence of its last decision; 0 when the scheduler has not decided yet."""


class Tasks:
    """The tasks of all users, each asker seeing the asker's own."""

    def __init__(self, bus: Bus, repository_cache_seconds: float) -> None:
        self._bus = bus
        self._repositories: Remembered[str] = Remembered(repository_cache_seconds)
        self._known: Remembered[bool] = Remembered(math.inf)

    # Commands. Each raises Problem for what is wrong, Refused or Unavailable when it could not be stored.

    async def submit(self, asker: Asker, frame: Submit) -> Accepted:
        frame = await self.checked(asker, frame)
        task = task_id(asker.user, frame.key)
        command = SubmitTask(
            key=frame.key,
            prompt=frame.prompt,
            repository=frame.repository,
            base=frame.base,
            model=frame.model,
            budget=frame.budget,
            title=frame.title,
            queue=frame.queue,
            labels=frame.labels,
            priority=frame.priority,
            pull_request=frame.pull_request,
            rules=frame.rules,
            tags=frame.tags,
            metadata=frame.metadata,
            fork_of=frame.fork_of,
            start_at=frame.start_at,
            queue_seconds=frame.queue_seconds,
            turn_seconds=frame.turn_seconds,
        )
        return await self.send(asker, task, command)

    async def checked(self, asker: Asker, frame: Submit) -> Submit:
        """What is to be submitted, as it is kept. Raises Problem."""
        frame = checks.submit(frame, is_owner=asker.is_owner)
        if not frame.fork_of:
            return replace(frame, repository=await self.repository(asker, frame.repository))
        try:
            source = (await self.show(asker, frame.fork_of)).task
        except Problem as problem:
            raise Problem(problem.status, problem.error, "fork_of") from None
        return replace(frame, repository=source.repository, base=source.base, model=frame.model or source.model)

    async def store(self, asker: Asker, frame: CommandFrame) -> Accepted:
        if isinstance(frame, Submit):
            return await self.submit(asker, frame)
        checks.key(frame.key)
        command = _command(asker, frame)
        await self.must_exist(asker, frame.task)
        return await self.send(asker, frame.task, command)

    async def cancel_all(self, asker: Asker, reason: str) -> None:
        """Stop every open task."""
        still_open = tuple(state for state in TaskState if state not in OUTCOMES)
        more, before, before_at = True, "", None
        while more:
            page = await self.list(
                asker, where=TaskFilter(states=still_open), limit=LIST_LIMIT, before=before, before_at=before_at
            )
            for task in page.tasks:
                await self.send(asker, task.id, CancelTask(key="cancel-all", reason=reason, device=asker.device))
            more = page.more
            if more:
                last = page.tasks[-1]
                before, before_at = last.id, datetime.fromisoformat(last.updated_at) if last.updated_at else None

    async def send(self, asker: Asker, task: str, command: TaskCommand) -> Accepted:
        """A command that was checked, to a task of the asker's. Raises Refused or Unavailable."""
        # The id counts over the whole stream, so the task is in it: two users may choose the same key.
        sequence = await self._bus.publish(
            command_subject(asker.user, task, command), command, key=f"{task}.{command.key}"
        )
        self._known.put(asker.user, task, True)
        return Accepted(key=command.key, task=task, sequence=sequence)

    async def repository(self, asker: Asker, repository: str) -> str:
        """The repository as it is written from now on. One that cannot be asked for now, the runner will find out."""
        if known := self._repositories.get(asker.user, repository):
            return known
        question = CheckRepository(user=asker.user, repository=repository, is_owner=asker.is_owner)
        try:
            answer = await self._bus.ask(Service.REPOS, question, RepositoryKnown, timeout_seconds=CHECK_SECONDS)
        except Unavailable:
            return checks.without_user(repository)
        except Refused as refused:
            if refused.code in ("unavailable", "internal"):
                return checks.without_user(repository)
            raise Problem(422, refused.reason, "repository") from None
        self._repositories.put(asker.user, repository, answer.repository)
        return answer.repository

    # What is known

    async def list(
        self,
        asker: Asker,
        *,
        where: TaskFilter = EVERYTHING,
        limit: int = 50,
        before: str = "",
        before_at: datetime | None = None,
    ) -> TaskList:
        """Raises Refused or Unavailable."""
        limit = max(1, min(limit, LIST_LIMIT))
        question = ListTasks(user=asker.user, **asdict(where), limit=limit, before=before, before_at=before_at)
        return await self._bus.ask(Service.SCHEDULER, question, TaskList)

    async def must_exist(self, asker: Asker, task: str) -> None:
        """Raises Problem where the asker has no such task."""
        if not _is_id(task):
            raise no_task()
        if not self._known.get(asker.user, task):
            if not await self._bus.last(f"evt.{asker.user}.{task}.>") and not await self._submitted(asker, task):
                raise no_task()
            self._known.put(asker.user, task, True)

    async def show(self, asker: Asker, task: str) -> Shown:
        """Folded from the stream: it needs no other service. Raises Problem or Unavailable."""
        if not _is_id(task):
            raise no_task()
        state, sequence = await self._fold(asker, task)
        if state.turn:
            return Shown(state, state.state, sequence)
        if state.receipts:
            reasons = "; ".join(receipt.reason for receipt in state.receipts.values())
            raise Problem(404, f"This task was not taken: {reasons}")
        return Shown(await self._undecided(asker, task), TaskState.QUEUED, 0)

    async def _fold(self, asker: Asker, task: str) -> tuple[Task, int]:
        """The task and the sequence of its last decision."""
        state, sequence = Task(id=task, user=asker.user), 0
        for stored in await self._bus.replay(f"evt.{asker.user}.{task}.task.>"):
            sequence = stored.sequence
            # What cannot be read is reported by whoever acts on it; the rest is worth showing.
            with suppress(msgspec.MsgspecError):
                state = evolve(state, decode_decision(stored.data))
        return state, sequence

    async def _undecided(self, asker: Asker, task: str) -> Task:
        submitted = await self._submitted(asker, task)
        if not submitted:
            raise no_task()
        command = decode_task_command(submitted[0].data)
        assert isinstance(command, SubmitTask)
        return Task(
            id=task,
            user=asker.user,
            prompt=command.prompt,
            repository=command.repository,
            base=command.base,
            model=command.model,
            budget=command.budget,
            title=command.title,
            queue=command.queue,
            labels=command.labels,
            priority=command.priority,
            pull_request=command.pull_request,
            rules=command.rules,
            tags=command.tags,
            metadata=command.metadata,
            fork_of=command.fork_of,
            start_at=command.start_at,
            queue_seconds=command.queue_seconds,
            turn_seconds=command.turn_seconds,
            created_at=submitted[0].at,
            updated_at=submitted[0].at,
            reason=NOT_DECIDED,
        )

    async def _submitted(self, asker: Asker, task: str) -> list[Stored]:
        return await self._bus.replay(f"cmd.{asker.user}.{task}.submit_task", limit=1)

    async def diff(self, asker: Asker, task: str) -> Diff:
        """Raises Problem, Refused or Unavailable."""
        shown = (await self.show(asker, task)).task
        if shown.published is None:
            raise Problem(404, "This task has not published any change yet.")
        question = ShowDiff(
            repository=shown.repository,
            base_commit=shown.published.base_commit,
            commit=shown.published.commit,
            task=task,
            is_owner=asker.is_owner,
            user=asker.user,
        )
        try:
            return await self._bus.ask(Service.REPOS, question, Diff)
        except Refused as refused:
            raise of_refusal(refused) from None

    async def bulk(self, asker: Asker, key: str) -> BulkBegun | None:
        """The bulk that was begun under this key. Raises Unavailable."""
        for stored in await self._bus.replay(f"evt.{asker.user}.user.bulk_begun"):
            for event in decode_user_decision(stored.data).events:
                if isinstance(event, BulkBegun) and event.bulk == key:
                    return event
        return None

    async def receipt(self, asker: Asker, task: str, key: str, kind: type[TaskCommand]) -> Receipt | None:
        """How a command ended, None while it has not; one whose key stands for another kind of command is rejected.
        Raises Unavailable."""
        state, _ = await self._fold(asker, task)
        found, asked = state.receipts.get(key), tag_of(kind)
        if found is None or found.command in ("", asked):
            return found
        reason = f"This key stands for another command to the task, `{found.command}`: use a new one."
        return Receipt(key=key, status=ReceiptStatus.REJECTED, reason=reason, command=asked)


def _command(
    asker: Asker,
    frame: Say | Answer | Approve | Deny | Cancel | ChangeBudget | Prioritize | Pause | Resume | Retry | Tag | Archive,
) -> TaskCommand:
    match frame:
        case Say(key=key, text=text):
            return SendMessage(key=key, text=checks.text(text, "text"))
        case Answer(key=key, question=question, text=text):
            return AnswerQuestion(key=key, question=question, text=checks.text(text, "text"))
        case Approve(key=key, question=question):
            return ApproveQuestion(key=key, question=question, device=asker.device)
        case Deny(key=key, question=question, reason=reason):
            return DenyQuestion(key=key, question=question, reason=checks.reason(reason), device=asker.device)
        case Cancel(key=key, reason=reason):
            return CancelTask(key=key, reason=checks.reason(reason), device=asker.device)
        case ChangeBudget(key=key, budget=budget):
            checks.budget(budget)
            return SetBudget(key=key, budget=budget)
        case Prioritize(key=key, priority=priority):
            checks.priority(priority)
            return SetPriority(key=key, priority=priority)
        case Pause(key=key, reason=reason):
            return PauseTask(key=key, reason=checks.reason(reason))
        case Resume(key=key):
            return ResumeTask(key=key)
        case Retry(key=key):
            return RetryTask(key=key)
        case Archive(key=key):
            return ArchiveTask(key=key)
        case Tag(key=key, add=add, remove=remove, metadata=metadata):
            checks.marks(add, metadata)
            return TagTask(key=key, add=add, remove=remove, metadata=metadata)
        case _:
            assert_never(frame)


def _is_id(task: str) -> bool:
    """Whether it can be a task's: `user` stands in the same place of a subject."""
    return is_token(task) and task != "user"
