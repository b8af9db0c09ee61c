"""What the user says, and how a turn ends, pauses and begins by it. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from protocol.evolve import Task
from protocol.task import (
    MESSAGES_LIMIT,
    AnyTaskEvent,
    AttemptEnd,
    AttemptEnded,
    CancelTask,
    MessageSent,
    PauseTask,
    SendMessage,
    TaskDelayed,
    TaskPaused,
    TaskQueued,
    TaskResumed,
    TaskState,
    TurnEnded,
    TurnOpened,
)
from services.scheduler.decide.base import Rejected, must_be_text


def message(task: Task, command: SendMessage) -> tuple[AnyTaskEvent, ...]:
    must_be_text(command.text, "message")
    if task.messages >= MESSAGES_LIMIT:
        raise Rejected(f"This task has had {MESSAGES_LIMIT} messages: go on in a new task.")
    sent = MessageSent(message=task.messages + 1, text=command.text)
    return (sent,) if task.is_open else (sent, TurnOpened(turn=task.turn + 1))


def cancel(task: Task, command: CancelTask) -> tuple[AnyTaskEvent, ...]:
    if not task.is_open:
        raise Rejected(f"The task {_how(task)} already.")
    ended = TurnEnded(
        turn=task.turn,
        outcome=TaskState.CANCELLED,
        reason=command.reason or "Cancelled by the user.",
        device=command.device,
        usage=task.turn_usage,
    )
    if task.holder is None:
        return (ended,)
    return AttemptEnded(attempt=task.holder.attempt, how=AttemptEnd.CANCELLED), ended


def pause(task: Task, command: PauseTask) -> tuple[AnyTaskEvent, ...]:
    if not task.is_open:
        raise Rejected(f"The task {_how(task)} already: there is nothing to hold back.")
    if task.state is TaskState.PAUSED:
        raise Rejected("The task is paused already.")
    return (TaskPaused(reason=command.reason or "Paused by the user."),)


def resume(task: Task, now: datetime) -> tuple[AnyTaskEvent, ...]:
    if task.state is not TaskState.PAUSED:
        raise Rejected(f"The task is not paused: it is {task.state}.")
    if task.holder is not None or task.question is not None:
        return (TaskResumed(),)
    # Of one that waits for its user's money the claim shows whether there is any.
    if task.delayed_until is None or task.delayed_until <= now or task.day_usd is not None:
        return TaskResumed(), TaskQueued(reason="Resumed by the user.")
    # A moment later than before: the old time's timer may have fired meanwhile, and then has its receipt.
    until = task.delayed_until + timedelta(milliseconds=1)
    return TaskResumed(), TaskDelayed(until=until, reason="Resumed by the user: its time has not come yet.")


def retry(task: Task) -> tuple[AnyTaskEvent, ...]:
    if task.is_open:
        raise Rejected(f"The task is {task.state}: its turn has not ended yet.")
    if task.state is TaskState.SUCCEEDED:
        raise Rejected("The last turn did what was asked: say in a message what is to be done next.")
    return (TurnOpened(turn=task.turn + 1, retries=task.turn),)


def over_time(task: Task, reason: str) -> tuple[AnyTaskEvent, ...]:
    """The turn fails, whatever it is doing."""
    ended = TurnEnded(turn=task.turn, outcome=TaskState.FAILED, reason=reason, usage=task.turn_usage)
    if task.holder is None:
        return (ended,)
    return AttemptEnded(attempt=task.holder.attempt, how=AttemptEnd.DEADLINE), ended


def next_turn(task: Task, messages_read: int) -> tuple[AnyTaskEvent, ...]:
    """The user spoke after the model's last call of the turn: that is not lost, it opens the next turn. One that was
    paused when its runner was done stays paused."""
    if task.messages <= max(messages_read, task.messages_before):
        return ()
    opened = TurnOpened(turn=task.turn + 1)
    return (opened, TaskPaused(reason=task.reason)) if task.state is TaskState.PAUSED else (opened,)


def _how(task: Task) -> str:
    """What became of a task that has ended."""
    return "was cancelled" if task.state is TaskState.CANCELLED else f"has {task.state}"
