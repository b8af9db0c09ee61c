"""What the user says, and how a turn ends by it. Pure."""

from __future__ import annotations

from protocol.evolve import Task
from protocol.task import (
    MESSAGES_LIMIT,
    PROMPT_LIMIT_CHARS,
    AnyTaskEvent,
    AttemptEnd,
    AttemptEnded,
    CancelTask,
    MessageSent,
    SendMessage,
    TaskState,
    TurnEnded,
    TurnOpened,
)
from services.scheduler.decide.base import Rejected


def message(task: Task, command: SendMessage) -> tuple[AnyTaskEvent, ...]:
    if not command.text.strip():
        raise Rejected("The message is empty.")
    if len(command.text) > PROMPT_LIMIT_CHARS:
        raise Rejected(f"The message has {len(command.text)} characters; the limit is {PROMPT_LIMIT_CHARS}.")
    if task.messages >= MESSAGES_LIMIT:
        raise Rejected(f"This task has had {MESSAGES_LIMIT} messages: go on in a new task.")
    sent = MessageSent(message=task.messages + 1, text=command.text)
    return (sent,) if task.is_open else (sent, TurnOpened(turn=task.turn + 1))


def cancel(task: Task, command: CancelTask) -> tuple[AnyTaskEvent, ...]:
    if not task.is_open:
        raise Rejected(f"The task has {task.state} already.")
    ended = TurnEnded(
        turn=task.turn,
        outcome=TaskState.CANCELLED,
        reason=command.reason or "Cancelled by the user.",
        device=command.device,
    )
    if task.holder is None:
        return (ended,)
    return AttemptEnded(attempt=task.holder.attempt, how=AttemptEnd.CANCELLED), ended


def next_turn(task: Task, messages_read: int) -> tuple[AnyTaskEvent, ...]:
    """The user spoke after the model's last call of the turn: that is not lost, it opens the next turn."""
    unread = task.messages > max(messages_read, task.messages_before)
    return (TurnOpened(turn=task.turn + 1),) if unread else ()
