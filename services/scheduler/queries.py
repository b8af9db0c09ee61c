"""What the gateway asks about the tasks: lists, the queues, what a user has spent."""

from __future__ import annotations

from protocol.evolve import Task
from protocol.query import AskSpending, ListTasks, QueueShown, ShowQueue, Spending, TaskList, TaskSummary, summarize
from services.clock import Clock
from services.scheduler.money import Money
from services.scheduler.policy import is_queued
from services.scheduler.roster import Roster
from services.scheduler.runners import Runners
from services.scheduler.search import search
from services.scheduler.show import Scene, reason, show

STOPPED = "An event in its log cannot be read by this release: it goes on after an update."


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
        mine = (a.task for a in self._roster.tasks.values() if a.user == asked.user and a.task.turn > 0)
        tasks, more = search(mine, asked)
        return TaskList(tasks=self._summaries(tasks), more=more)

    async def queue(self, asked: ShowQueue) -> QueueShown:
        return show(asked, self._scene())

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
