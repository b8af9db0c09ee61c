"""A task begins. Pure."""

from __future__ import annotations

from protocol.evolve import Task
from protocol.task import (
    PROMPT_LIMIT_CHARS,
    AnyTaskEvent,
    SubmitTask,
    TaskSubmitted,
)
from services.scheduler.decide.base import Rejected
from services.scheduler.decide.marks import must_be_marks
from services.scheduler.decide.priority import must_be_a_priority

TITLE_CHARS = 80


def submit(task: Task, command: SubmitTask) -> tuple[AnyTaskEvent, ...]:
    if task.turn > 0:
        raise Rejected("This task was submitted before, by another command with the same idempotency key.")
    if not command.prompt.strip():
        raise Rejected("The prompt is empty: say what is to be done.")
    if len(command.prompt) > PROMPT_LIMIT_CHARS:
        raise Rejected(f"The prompt has {len(command.prompt)} characters; the limit is {PROMPT_LIMIT_CHARS}.")
    must_be_a_priority(command.priority)
    must_be_marks(command.tags, command.metadata)
    return (
        TaskSubmitted(
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
            rules=command.rules,
        ),
    )


def title_of(prompt: str) -> str:
    """The prompt's first line, cut at a word."""
    line = prompt.strip().splitlines()[0].strip()
    if len(line) <= TITLE_CHARS:
        return line
    return line[:TITLE_CHARS].rsplit(" ", 1)[0] + "…"
