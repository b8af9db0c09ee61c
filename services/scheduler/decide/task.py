"""What a command to a task leads to. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never

from protocol.evolve import Task
from protocol.task import (
    AnswerQuestion,
    AnyTaskCommand,
    AnyTaskEvent,
    ApproveQuestion,
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
    SetPriority,
    SubmitTask,
)
from services.scheduler.decide.attempts import fail, finish, park
from services.scheduler.decide.base import Limits, Rejected, with_state
from services.scheduler.decide.priority import set_priority
from services.scheduler.decide.questions import answer_question, approve_question, deny_question, raise_question
from services.scheduler.decide.submit import submit
from services.scheduler.decide.timers import fire
from services.scheduler.decide.turns import cancel, message, pause, resume, retry


def answer(task: Task, command: AnyTaskCommand, sequence: int, now: datetime, limits: Limits) -> Decision | None:
    """The decision on a command that the stream has at `sequence`; None when it has its receipt already."""
    if sequence <= task.answered or command.key in task.receipts:
        return None
    try:
        events, receipt = decide(task, command, now, limits), Receipt(key=command.key, status=ReceiptStatus.CONSUMED)
    except Rejected as rejection:
        events, receipt = (), Receipt(key=command.key, status=ReceiptStatus.REJECTED, reason=str(rejection))
    journal = command.journal_sequence if isinstance(command, FinishAttempt | FailAttempt | ParkAttempt) else 0
    decision = Decision(
        at=now,
        state=task.state,
        events=events,
        receipt=receipt,
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
    match command:
        case SubmitTask():
            return submit(task, command)
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
        case SetPriority():
            return set_priority(command)
        case PauseTask():
            return pause(task, command)
        case ResumeTask():
            return resume(task, now)
        case RetryTask():
            return retry(task)
        case RaiseQuestion():
            return raise_question(task, command)
        case FinishAttempt():
            return finish(task, command)
        case FailAttempt():
            return fail(task, command, now, limits)
        case ParkAttempt():
            return park(task, command)
        case FireTimer():
            return fire(task, command)
        case _:
            assert_never(command)
