"""What the user marks a task with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from protocol.evolve import Task
from protocol.marks import wrong_metadata, wrong_tags
from protocol.task import AnyTaskEvent, TagTask, TaskTagged
from services.scheduler.decide.base import Rejected


def tag(task: Task, command: TagTask) -> tuple[AnyTaskEvent, ...]:
    tags = sorted({*task.tags, *command.add} - set(command.remove))
    metadata = {name: value for name, value in {**task.metadata, **command.metadata}.items() if value is not None}
    must_be_marks(tags, metadata)
    return (TaskTagged(tags=tuple(tags), metadata=metadata),)


def must_be_marks(tags: Iterable[str], metadata: Mapping[str, str]) -> None:
    if wrong := wrong_tags(tags) or wrong_metadata(metadata):
        raise Rejected(wrong)
