"""What the gateway asks about the tasks: lists, the queues, what a user has spent."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from msgspec.structs import replace

from protocol.evolve import Task
from protocol.query import (
    AskSpending,
    ListTasks,
    QueueShown,
    ShowQueue,
    Spending,
    StoppedLog,
    TaskList,
    TaskSummary,
    summarize,
)
from services.bus import Refused
from services.clock import Clock
from services.scheduler.actors import TaskActor
from services.scheduler.money import Money
from services.scheduler.policy import is_queued
from services.scheduler.roster import Roster
from services.scheduler.runners import Runners
from services.scheduler.search import search
from services.scheduler.show import Scene, about_task, places, reason, show

STOPPED = (
    "An event in its log cannot be read by this release: "
    "update Errand, and it goes on with what was sent to it meanwhile."
)
NAMED = 3
"""Of several that are stopped."""


class Queries:
    """Answers from the states as they are."""

    def __init__(self, roster: Roster, runners: Runners, money: Money, clock: Clock) -> None:
        self._roster = roster
        self._runners = runners
        self._money = money
        self._clock = clock

    async def spending(self, asked: AskSpending) -> Spending:
        return self._money.spending(asked.user)

    async def tasks(self, asked: ListTasks) -> TaskList:
        mine = (a for a in self._roster.tasks.values() if a.user == asked.user)
        try:
            tasks, more = await search((a.kept for a in mine if a.is_at_rest or a.task.turn > 0), asked)
        except LookupError:
            why = "You have no task with the id in `before`: give its `updated_at` as `before_at` too, or begin anew."
            raise Refused(why, "not_found") from None
        return TaskList(tasks=self._summaries(tasks), more=more)

    async def queue(self, asked: ShowQueue) -> QueueShown:
        stopped = tuple(islice(self._stopped(asked), places(asked)))
        return replace(show(asked, self._scene()), stopped=stopped)

    def notices(self) -> tuple[str, ...]:
        """What the operator should know."""
        logs = [actor.log.removesuffix(".>").removesuffix(".task") for actor in self._roster.stopped.values()]
        if not logs:
            return ()
        named = ", ".join(logs[:NAMED]) + (f" and {len(logs) - NAMED} more" if len(logs) > NAMED else "")
        return (f"Stopped: {named}. {STOPPED} `errand queue` lists them, `errand dead ls` the events",)

    def _stopped(self, asked: ShowQueue) -> Iterator[StoppedLog]:
        for actor in self._roster.stopped.values():
            task = actor.task if isinstance(actor, TaskActor) else None
            user = task.user if task else actor.id
            if asked.everything or user == asked.user:
                about = about_task(task, asked) if task else {}
                yield StoppedLog(
                    user=user, task=task.id if task else "", commands=len(actor.mailbox), reason=STOPPED, **about
                )

    def _summaries(self, tasks: list[Task]) -> tuple[TaskSummary, ...]:
        scene = self._scene() if any(map(is_queued, tasks)) else None
        return tuple(summarize(task, self._waits(task, scene) if scene and is_queued(task) else "") for task in tasks)

    def _waits(self, task: Task, scene: Scene) -> str:
        return STOPPED if self._roster.task(task.user, task.id).unread else reason(task, scene)

    def _scene(self) -> Scene:
        held, now = [actor.task for actor in self._roster.held.values()], self._clock.now()
        return Scene(
            line=self._roster.line,
            task=lambda task: self._roster.queued[task].task,
            held=held,
            runners=self._runners.present(held, now),
            serving=self._runners.serving(held, now),
            now=now,
        )
