"""What a person sees of the queues. A user sees the own tasks, and of those of others how many go first; the owner sees
where everybody's stand, and what they are about of the own alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import islice

from msgspec import Struct

from protocol.evolve import Task
from protocol.query import QueueLine, QueueShown, RunnerLine, RunningTask, ShowQueue, WaitingTask
from protocol.task import DEFAULT_QUEUE
from services.scheduler.line import Line
from services.scheduler.policy import Slot, Wait, effective_priority, explain, sentence, why
from services.scheduler.runners import Seen

PLACES_LIMIT = 1_000
"""So far the lines are followed in all, so that looking at them holds nobody up: some milliseconds."""


class Scene(Struct):
    """What there is to be seen."""

    line: Line
    task: Callable[[str], Task]
    held: Iterable[Task]
    runners: list[Seen]
    serving: set[Slot] | None
    now: datetime


def show(asked: ShowQueue, scene: Scene) -> QueueShown:
    limit = places(asked)
    may_see = _visible(asked)
    shown = tuple(islice(_waiting(asked, scene), limit))
    held = sorted((task for task in scene.held if may_see(task)), key=lambda task: (task.queue, task.claimed_at))
    return QueueShown(
        queues=tuple(_queues(asked, scene)),
        waiting=shown,
        running=tuple(_running(task, asked) for task in held[:limit]),
        runners=tuple(_runner(seen, asked) for seen in scene.runners),
        more=_counted(asked, scene).total() > len(shown),
    )


def places(asked: ShowQueue) -> int:
    """How many of a kind are told."""
    return max(1, min(asked.limit, PLACES_LIMIT))


def reason(task: Task, scene: Scene) -> str:
    """Why the task waits, for its user; without its place, which would take a look at all others."""
    line = scene.line
    wait = Wait(task, why(task, scene.serving, line.load, line.rules), 0)
    return sentence(wait, line.load, line.rules, asker=task.user)


def _waiting(asked: ShowQueue, scene: Scene) -> Iterator[WaitingTask]:
    line, may_see, left = scene.line, _visible(asked), PLACES_LIMIT
    for queue in sorted(_counted(asked, scene)):
        ordered = (scene.task(task) for task in islice(line.in_order(queue), left))
        for place, wait in enumerate(explain(ordered, scene.serving, line.load, line.rules), 1):
            left -= 1
            if may_see(wait.task):
                yield _waits(wait, place, asked, scene)


def _waits(wait: Wait, place: int, asked: ShowQueue, scene: Scene) -> WaitingTask:
    task, line = wait.task, scene.line
    return WaitingTask(
        id=task.id,
        user=task.user,
        queue=task.queue,
        labels=task.labels,
        place=place,
        why=wait.why,
        reason=sentence(wait, line.load, line.rules, asker=asked.user),
        since=task.in_line_since,
        priority=task.priority,
        effective_priority=round(effective_priority(task, line.rules, scene.now), 2),
        **about_task(task, asked),
    )


def _running(task: Task, asked: ShowQueue) -> RunningTask:
    runner = task.holder.runner if task.holder and asked.everything else ""
    about = about_task(task, asked)
    since = task.claimed_at
    return RunningTask(
        id=task.id, user=task.user, queue=task.queue, labels=task.labels, runner=runner, since=since, **about
    )


def about_task(task: Task, asked: ShowQueue) -> dict[str, str]:
    """What a task is about is its user's business."""
    return {"title": task.title, "repository": task.repository} if task.user == asked.user else {}


def _queues(asked: ShowQueue, scene: Scene) -> Iterator[QueueLine]:
    rules, may_see = scene.line.rules, _visible(asked)
    waiting = _counted(asked, scene)
    running = Counter(task.queue for task in scene.held if may_see(task))
    served = {seen.slot.queue for seen in scene.runners}
    for queue in sorted({DEFAULT_QUEUE, *waiting, *running, *served, *rules.queues}):
        yield QueueLine(
            queue=queue,
            waiting=waiting[queue],
            running=running[queue],
            running_limit=rules.limit_of(queue),
            paused=rules.is_paused(queue),
            served=scene.serving is None or queue in served,
        )


def _runner(seen: Seen, asked: ShowQueue) -> RunnerLine:
    return RunnerLine(
        runner=seen.name if asked.everything else "",
        queue=seen.slot.queue,
        labels=tuple(sorted(seen.slot.labels)),
        slots=seen.slots,
        busy=seen.busy if asked.everything else None,
        heard_at=seen.heard_at,
    )


def _counted(asked: ShowQueue, scene: Scene) -> Counter[str]:
    """How many tasks wait in each queue, of those that the asker may see."""
    return scene.line.waiting(None if asked.everything else asked.user)


def _visible(asked: ShowQueue) -> Callable[[Task], bool]:
    return lambda task: asked.everything or task.user == asked.user
