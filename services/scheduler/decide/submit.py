"""A task begins. Pure."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.evolve import Task
from protocol.marks import MARKS_LIMIT_BYTES
from protocol.rules import RULES_LIMIT_BYTES
from protocol.task import (
    WAIT_LIMIT_SECONDS,
    AnyTaskEvent,
    SubmitTask,
    TaskDelayed,
    TaskSubmitted,
)
from services.scheduler.decide.base import Rejected, must_be_rules, must_be_text
from services.scheduler.decide.marks import must_be_marks
from services.scheduler.decide.priority import must_be_a_priority

TITLE_CHARS = 80
TASK_LIMIT_BYTES = MESSAGE_LIMIT_BYTES - RULES_LIMIT_BYTES - MARKS_LIMIT_BYTES - 24 * 1024
"""Of what a task is submitted with, its marks apart: with the user's rules, the longest marks, and what comes to a task
over its life (who holds it, what it spent, what it published), an attempt of it is granted in one message."""


def submit(task: Task, command: SubmitTask, now: datetime) -> tuple[AnyTaskEvent, ...]:
    if task.turn > 0:
        raise Rejected("This task was submitted before, by another command with the same idempotency key.")
    must_be_text(command.prompt, "prompt")
    must_be_rules(command.rules)
    must_be_a_priority(command.priority)
    must_be_marks(command.tags, command.metadata)
    _must_be_times(command, now)
    submitted = TaskSubmitted(
        prompt=command.prompt,
        repository=command.repository,
        base=command.base,
        model=command.model,
        budget=command.budget,
        title=command.title or title_of(command.prompt),
        queue=command.queue,
        labels=tuple(sorted(set(command.labels))),
        priority=command.priority,
        pull_request=command.pull_request,
        tags=tuple(sorted(set(command.tags))),
        metadata=command.metadata,
        fork_of=command.fork_of,
        rules=command.rules,
        start_at=command.start_at,
        queue_seconds=command.queue_seconds,
        turn_seconds=command.turn_seconds,
        schedule=command.schedule,
    )
    _must_be_grantable(submitted)
    if command.start_at is None or command.start_at <= now:
        return (submitted,)
    return submitted, TaskDelayed(until=command.start_at, reason="It has a start date.")


def _must_be_grantable(submitted: TaskSubmitted) -> None:
    """A task's marks change over its life, and count as the most that they may ever be."""
    if (size := len(encode(replace(submitted, tags=(), metadata={})))) > TASK_LIMIT_BYTES:
        told = f"The task has {size:,} bytes in JSON and the limit is {TASK_LIMIT_BYTES:,}"
        raise Rejected(f"{told}: shorten its prompt or its rules, or put the rest in a file of the repository.")


def _must_be_times(command: SubmitTask, now: datetime) -> None:
    if command.start_at is not None and command.start_at.tzinfo is None:
        raise Rejected("The start date has no time zone.")
    if command.start_at is not None and (command.start_at - now).total_seconds() > WAIT_LIMIT_SECONDS:
        raise Rejected("The start date is more than a year away.")
    for seconds in (command.queue_seconds, command.turn_seconds):
        if seconds is not None and not 0 < seconds <= WAIT_LIMIT_SECONDS:
            raise Rejected("A task waits for more than 0 seconds and at most a year.")


def title_of(prompt: str) -> str:
    """The prompt's first line, cut at a word."""
    line = prompt.strip().splitlines()[0].strip()
    if len(line) <= TITLE_CHARS:
        return line
    return line[:TITLE_CHARS].rsplit(" ", 1)[0] + "…"
