"""The commands that states owe to other actors: a schedule's tasks, and to the schedule how they ended.

What is owed follows from the states alone and carries a key that follows from them too: it may be sent again, by this
scheduler or the next one, and is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import anyio

from protocol.routes import command_subject, user_command_subject
from protocol.task import OUTCOMES, SubmitTask
from protocol.user import EndRun
from services import log
from services.bus import Bus, Refused, Unavailable
from services.scheduler.actors import LogActor, TaskActor, UserActor
from services.scheduler.decide import end_unsent, owed

AGAIN_SECONDS = 1.0


class Outbox:
    """`look_at` tells it of a change, `keep` sends what follows from it."""

    def __init__(self, bus: Bus, user_of: Callable[[str], UserActor], task_of: Callable[[str, str], TaskActor]) -> None:
        self._bus = bus
        self._user_of = user_of
        self._task_of = task_of
        self._owing: set[str] = set()
        """Users whose runs are to be looked at."""
        self._stirred = anyio.Event()

    def look_at(self, actor: LogActor) -> None:
        """Something may be owed after the actor's change."""
        match actor:
            case UserActor() if any(one.runs for one in actor.user.schedules.values()):
                self._mark(actor.id)
            case TaskActor() if actor.task.schedule and actor.task.state in OUTCOMES:
                self._mark(actor.user)
            case TaskActor() if actor.task.turn == 0 and self._user_of(actor.user).user.schedules:
                self._mark(actor.user)  # a submission that was rejected

    def _mark(self, user: str) -> None:
        self._owing.add(user)
        self._stirred.set()

    async def keep(self, actors: Callable[[], Iterable[LogActor]]) -> None:
        """Send what is owed, for as long as this scheduler is active."""
        for actor in actors():
            if isinstance(actor, UserActor):
                self.look_at(actor)
        while True:
            await self._stirred.wait()
            self._stirred = anyio.Event()
            while self._owing:
                await self._settle(self._owing.pop())

    async def _settle(self, user: str) -> None:
        try:
            for each in owed(self._user_of(user).user, lambda task: self._task_of(user, task).task):
                if isinstance(each, EndRun):
                    await self._bus.publish(user_command_subject(user, each), each, key=f"{user}.{each.key}")
                else:
                    await self._submit(user, *each)
        except (Unavailable, Refused) as error:
            log.get().warning("not_sent", user=user, error=str(error))
            await anyio.sleep(AGAIN_SECONDS)
            self._mark(user)

    async def _submit(self, user: str, task: str, command: SubmitTask) -> None:
        try:
            await self._bus.publish(command_subject(user, task, command), command, key=f"{task}.{command.key}")
        except Refused as error:
            # Too long, say: it stays so, and whoever waits behind it would wait for ever.
            log.get().warning("run_refused", user=user, task=task, error=error.reason)
            end = end_unsent(task, command, error.reason)
            await self._bus.publish(user_command_subject(user, end), end, key=f"{user}.{end.key}")
