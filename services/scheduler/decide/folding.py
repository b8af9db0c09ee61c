"""A user's log is folded: what came by the clock is written down in one event. Pure."""

from __future__ import annotations

from datetime import datetime

from protocol.evolve import User
from protocol.receipts import USER_RECEIPTS_LIMIT_BYTES, newest
from protocol.schedule import Progress, Schedule
from protocol.user import LogFolded, UserDecision


def fold_log(user: User, now: datetime) -> UserDecision:
    """The decision that what is routine in the user's log may leave it."""
    folded = LogFolded(
        schedules=tuple(map(_progress, user.schedules.values())),
        github_sealed=user.github.sealed if user.github else "",
        receipts=newest(user.receipts.values(), USER_RECEIPTS_LIMIT_BYTES),
        answered=user.answered,
    )
    return UserDecision(at=now, events=(folded,))


def _progress(schedule: Schedule) -> Progress:
    return Progress(**{name: getattr(schedule, name) for name in Progress.__struct_fields__})
