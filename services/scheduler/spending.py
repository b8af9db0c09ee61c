"""What users spend in their days: derived from the tasks as they are folded, and logged nowhere else. Pure."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import UNSET, Struct

from protocol.evolve import SPENT_KEPT, Task, User
from protocol.query import Spending


class Day(Struct, frozen=True):
    begins: datetime
    ends: datetime


def day_of(now: datetime, time_zone: str) -> Day:
    """The calendar day of `now`; of a time zone that this machine does not know, UTC's."""
    try:
        zone = ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):
        zone = ZoneInfo("UTC")
    begins = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    return Day(begins.astimezone(UTC), (begins + timedelta(days=1)).astimezone(UTC))


def limit_of(user: User, default: float | None) -> float | None:
    """In dollars a day: what the owner allows, which the user may lower; None is unlimited."""
    allowed = default if user.daily_usd is UNSET else user.daily_usd
    limits = [limit for limit in (allowed, user.settings.daily_usd) if limit is not None]
    return min(limits, default=None)


class Ledger:
    """The dollars that each user's tasks have spent in each quarter of an hour of the last days."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        """As their spending is counted."""
        self._users: defaultdict[str, defaultdict[datetime, float]] = defaultdict(lambda: defaultdict(float))
        self._newest = datetime.min.replace(tzinfo=UTC)
        """The last quarter in which anybody spent anything."""

    def take(self, task: Task) -> None:
        """The task's spending, in the place of what was known of it. What is archived stays counted."""
        known = self._tasks.get(task.id)
        if task.spent == (known.spent if known else {}) or _is_old(task, self._newest):
            return
        if known:
            self._add(known, -1)
        self._add(task, 1)
        self._tasks[task.id] = task
        if max(task.spent) > self._newest:
            self._newest = max(task.spent)
            self._forget()

    def _add(self, task: Task, times: int) -> None:
        for quarter, dollars in task.spent.items():
            self._users[task.user][quarter] += times * dollars

    def _forget(self) -> None:
        """What no day that goes on can have in it."""
        for task in [task for task in self._tasks.values() if _is_old(task, self._newest)]:
            self._add(task, -1)
            del self._tasks[task.id]
        for user, quarters in list(self._users.items()):
            kept = {quarter: dollars for quarter, dollars in quarters.items() if self._newest - quarter < SPENT_KEPT}
            if kept:
                self._users[user] = defaultdict(float, kept)
            else:
                del self._users[user]

    def spending(self, user: User, reserved: float, default: float | None, now: datetime) -> Spending:
        """Of the user's day. `reserved` is set aside for what runs."""
        day = day_of(now, user.settings.time_zone)
        quarters = self._users[user.id].items() if user.id in self._users else ()
        spent = sum(dollars for quarter, dollars in quarters if quarter >= day.begins)
        limit = limit_of(user, default)
        return Spending(spent_usd=round(spent, 6), reserved_usd=round(reserved, 6), limit_usd=limit, day_ends=day.ends)


def _is_old(task: Task, newest: datetime) -> bool:
    return not task.spent or newest - max(task.spent) >= SPENT_KEPT


def left(spending: Spending) -> float | None:
    """What may still be set aside today; None is unlimited."""
    if spending.limit_usd is None:
        return None
    return max(0.0, spending.limit_usd - spending.spent_usd - spending.reserved_usd)
