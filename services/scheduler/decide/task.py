"""What a command to a task leads to. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from protocol.base import tag_of
from protocol.evolve import Task
from protocol.receipts import is_full
from protocol.task import (
    AnswerQuestion,
    AnyTaskCommand,
    AnyTaskEvent,
    ApproveQuestion,
    ArchiveTask,
    CancelTask,
    Decision,
    DenyQuestion,
    FailAttempt,
    FinishAttempt,
    FireTimer,
    ParkAttempt,
    PauseTask,
    RaiseQuestion,
    Receipt,
    ReceiptStatus,
    ResumeTask,
    RetryTask,
    SendMessage,
    SetBudget,
    SetPriority,
    SubmitTask,
    TagTask,
    is_of_a_runner,
)
from services.scheduler.decide.archive import archive, restored
from services.scheduler.decide.attempts import fail, finish, park
from services.scheduler.decide.base import Forgotten, Limits, Rejected, with_state
from services.scheduler.decide.budget import set_budget
from services.scheduler.decide.marks import tag
from services.scheduler.decide.priority import set_priority
from services.scheduler.decide.questions import answer_question, approve_question, deny_question, raise_question
from services.scheduler.decide.submit import submit
from services.scheduler.decide.timers import fire
from services.scheduler.decide.turns import cancel, message, pause, resume, retry

NEVER_TOO_MANY = (CancelTask, RaiseQuestion, FinishAttempt, FailAttempt, ParkAttempt, FireTimer)
"""Commands that are carried out though a task has had all it may have: without them it could not end."""


def answer(task: Task, command: AnyTaskCommand, sequence: int, now: datetime, limits: Limits) -> Decision | None:
    """The decision on a command that the stream has at `sequence`; None when it has its receipt already."""
    if sequence <= task.answered or command.key in task.receipts:
        return None
    if isinstance(command, FireTimer):
        now = max(now, command.due)  # our clock may be behind the server's, which has fired
    events: tuple[AnyTaskEvent, ...] = ()
    try:
        events = restored(task, decide(task, command, now, limits))
        status, reason = ReceiptStatus.CONSUMED, ""
    except Forgotten as forgotten:
        status, reason = ReceiptStatus.INDETERMINATE, str(forgotten)
    except Rejected as rejection:
        status, reason = ReceiptStatus.REJECTED, str(rejection)
    journal = command.journal_sequence if isinstance(command, FinishAttempt | FailAttempt | ParkAttempt) else 0
    decision = Decision(
        at=now,
        state=task.state,
        events=events,
        receipt=Receipt(key=command.key, status=status, reason=reason, command=tag_of(command)),
        command_sequence=sequence,
        journal_sequence=journal if events else 0,
    )
    return with_state(task, decision)


def reject(task: Task, key: str, sequence: int, now: datetime, reason: str) -> Decision:
    """The receipt of a command that could not be handled at all."""
    receipt = Receipt(key=key, status=ReceiptStatus.REJECTED, reason=reason)
    return Decision(at=now, state=task.state, receipt=receipt, command_sequence=sequence)


def decide(task: Task, command: AnyTaskCommand, now: datetime, limits: Limits) -> tuple[AnyTaskEvent, ...]:
    """The events that follow from a command. Raises Rejected."""
    if not isinstance(command, SubmitTask) and task.turn == 0:
        raise Rejected("There is no such task.")
    if not isinstance(command, NEVER_TOO_MANY) and is_full(task.receipts):
        raise Rejected("This task has had all the commands whose receipts it can keep: go on in a new one.")
    if isinstance(command, RaiseQuestion | FinishAttempt | FailAttempt | ParkAttempt):
        _must_be_known(task, command.attempt, command.key)
    match command:
        case SubmitTask():
            return submit(task, command, now)
        case SendMessage():
            return message(task, command)
        case AnswerQuestion():
            return answer_question(task, command)
        case ApproveQuestion():
            return approve_question(task, command)
        case DenyQuestion():
            return deny_question(task, command)
        case CancelTask():
            return cancel(task, command)
        case SetBudget():
            return set_budget(task, command)
        case SetPriority():
            return set_priority(command)
        case PauseTask():
            return pause(task, command)
        case ResumeTask():
            return resume(task, now)
        case RetryTask():
            return retry(task)
        case TagTask():
            return tag(task, command)
        case RaiseQuestion():
            return raise_question(task, command)
        case FinishAttempt():
            return finish(task, command)
        case FailAttempt():
            return fail(task, command, now, limits)
        case ParkAttempt():
            return park(task, command)
        case FireTimer():
            return fire(task, command, limits)
        case ArchiveTask():
            return archive(task)
        case _:
            assert_never(command)


def _must_be_known(task: Task, attempt: int, key: str) -> None:
    """The receipts of an attempt go when the next one is claimed: a repeated word cannot be told from a late one."""
    if attempt < task.attempt and is_of_a_runner(key):
        raise Forgotten(f"Attempt {attempt} is over, and others came after it: the task's log says how it ended.")
