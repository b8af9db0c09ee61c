"""Every actor, and kept beside their states what is queued, held, short of money and stopped."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from protocol.ids import OWNER
from services import log
from services.scheduler.actors import LogActor, TaskActor, UserActor
from services.scheduler.decide import is_short
from services.scheduler.line import Line
from services.scheduler.policy import Rules, is_queued
from services.scheduler.spending import Ledger


class Roster:
    """`index` each actor once its state has changed."""

    def __init__(self, rules: Rules) -> None:
        self.tasks: dict[str, TaskActor] = {}
        self.users: dict[str, UserActor] = {}
        self.queued: dict[str, TaskActor] = {}
        self.held: dict[str, TaskActor] = {}
        self.short: dict[str, TaskActor] = {}
        """Those whose user's money for the day is spent."""
        self.granting: dict[str, TaskActor] = {}
        """Those that are being given to a slot: they count as running, and are in no other's reach."""
        self.stopped: dict[str, LogActor] = {}
        """Those with an event that cannot be read, by their logs."""
        self.ledger = Ledger()
        self.line = Line(rules)

    def task(self, user: str, task: str) -> TaskActor:
        # Two users cannot share a task id: it is a hash over the user. A forged subject must not find another's actor.
        actor = self.tasks.get(f"{user}.{task}")
        if actor is None:
            actor = self.tasks[f"{user}.{task}"] = TaskActor(user, task)
        return actor

    def user(self, user: str) -> UserActor:
        actor = self.users.get(user)
        if actor is None:
            actor = self.users[user] = UserActor(user)
        return actor

    def of_subject(self, subject: str) -> LogActor:
        """Whose command or decision it is."""
        _, user, name, *_ = subject.split(".")
        return self.user(user) if name == "user" else self.task(user, name)

    def all(self) -> list[LogActor]:
        return [*self.tasks.values(), *self.users.values()]

    def index(self, actor: LogActor) -> bool:
        """Take in what the actor has become; whether anything may be different for a slot."""
        self._note_stopped(actor)
        if isinstance(actor, TaskActor):
            return self._index_task(actor)
        if isinstance(actor, UserActor):
            self._heed(actor)
        return True  # what the user's tasks may spend may have changed

    def _index_task(self, actor: TaskActor) -> bool:
        indices = (self.queued, self.held, self.short, self.granting)
        if actor.is_at_rest and not any(actor.id in index for index in indices):
            return False  # as most are at a start: it left them when it ended
        task, is_granted = actor.task, actor.id in self.granting
        self.ledger.take(task)
        for index, belongs in (
            (self.queued, is_queued(task) and not is_granted and not actor.unread),
            (self.held, task.holder is not None),
            (self.short, is_short(task) and not actor.unread),
        ):
            if belongs:
                index[actor.id] = actor
            else:
                index.pop(actor.id, None)
        # A task more in the queue, or a slot more in its user's limit.
        return self.line.update(task, is_granted=is_granted, is_stopped=actor.unread > 0)

    def _note_stopped(self, actor: LogActor) -> None:
        if actor.unread and actor.log not in self.stopped:
            self.stopped[actor.log] = actor
            log.get().error("stopped", log=actor.log, sequence=actor.unread)
        elif not actor.unread and self.stopped.pop(actor.log, None):
            log.get().info("goes_on", log=actor.log)

    def _heed(self, actor: UserActor) -> None:
        """The owner's log says how the queues are served."""
        if actor.id == OWNER and actor.user.queues != self.line.rules.queues:
            self.line.rules = replace(self.line.rules, queues=actor.user.queues)

    def waiting(self) -> Iterator[int]:
        """Of each mailbox with a command in it, the sequence of the first; of one that is stopped it is not known when
        it will be answered."""
        return (actor.mailbox[0].sequence for actor in self.all() if actor.mailbox and not actor.unread)
