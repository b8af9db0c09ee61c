"""A task begins. Pure."""

from __future__ import annotations

from datetime import datetime

from protocol.evolve import Task
from protocol.task import (
    PROMPT_LIMIT_CHARS,
    WAIT_LIMIT_SECONDS,
    AnyTaskEvent,
    SubmitTask,
    TaskDelayed,
    TaskSubmitted,
)
from services.scheduler.decide.base import Rejected
from services.scheduler.decide.marks import must_be_marks
from services.scheduler.decide.priority import must_be_a_priority

TITLE_CHARS = 80


def submit(task: Task, command: SubmitTask, now: datetime) -> tuple[AnyTaskEvent, ...]:
    if task.turn > 0:
        raise Rejected("This task was submitted before, by another command with the same idempotency key.")
    if not command.prompt.strip():
        raise Rejected("The prompt is empty: say what is to be done.")
    if len(command.prompt) > PROMPT_LIMIT_CHARS:
        raise Rejected(f"The prompt has {len(command.prompt)} characters; the limit is {PROMPT_LIMIT_CHARS}.")
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
    if command.start_at is None or command.start_at <= now:
        return (submitted,)
    return submitted, TaskDelayed(until=command.start_at, reason="It has a start date.")


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
