"""What users may spend in a day: what is spent, and what is set aside for what runs or is about to."""

from __future__ import annotations

from datetime import datetime

from protocol.query import Spending
from services.clock import Clock
from services.scheduler.roster import Roster


class Money:
    """All users' money for the day."""

    def __init__(self, roster: Roster, clock: Clock, limit: float | None) -> None:
        """`limit`: in dollars a day, where the owner has not set another one for the user."""
        self._roster = roster
        self._clock = clock
        self._limit = limit
        self._set_aside: dict[str, tuple[str, float]] = {}
        """By task: its user, and what it may spend."""

    def set_aside(self, user: str, task: str, dollars: float) -> None:
        """For a claim, until it is committed: other claims are decided before that."""
        self._set_aside[task] = user, dollars

    def release(self, task: str) -> None:
        self._set_aside.pop(task, None)

    def spending(self, user: str, now: datetime | None = None) -> Spending:
        held = self._roster.held
        holders = (actor.task.holder for actor in held.values() if actor.user == user)
        reserved = sum(holder.terms.day_usd or 0.0 for holder in holders if holder)
        reserved += sum(usd for task, (of, usd) in self._set_aside.items() if of == user and task not in held)
        state = self._roster.user(user).user
        return self._roster.ledger.spending(state, reserved, self._limit, now or self._clock.now())
