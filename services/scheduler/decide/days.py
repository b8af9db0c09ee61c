"""What the user's settings, rules and money for the day make of a claim. Pure."""

from __future__ import annotations

from datetime import datetime

from protocol.evolve import Task, User
from protocol.query import Spending
from protocol.task import DEFAULT_BUDGET, Decision, TaskDelayed, TaskQueued, TaskState, Terms
from services.scheduler.decide.base import with_state
from services.scheduler.spending import left


def terms_of(task: Task, user: User, spending: Spending) -> Terms | None:
    """What an attempt would hold to; None where the user's money for the day is spent or set aside."""
    settings = user.settings
    terms = Terms(model=settings.model, budget=settings.budget, rules=user.rules)
    available = left(spending)
    if available is None:
        return terms
    if available <= 0:
        return None
    money = task.budget.over(settings.budget).over(DEFAULT_BUDGET).money_usd
    of_turn = max(0.0, money - task.turn_usage.cost_usd) if isinstance(money, float | int) else available
    return Terms(
        model=terms.model,
        budget=terms.budget,
        rules=terms.rules,
        day_usd=min(available, of_turn),
        day_ends=spending.day_ends,
    )


def time_of_claim(task: Task, now: datetime) -> datetime:
    """Never before the task was queued. By a clock that is behind the server's, whose timer has begun the new day, it
    would be the old day's still, and the turn put off to the same time again and again."""
    return max(now, task.queued_at or now)


def wait_for_day(task: Task, spending: Spending, now: datetime) -> Decision:
    """The queued turn waits until the user's next day, or until there is money before."""
    running = f" and ${spending.reserved_usd:.2f} is set aside for what runs" if spending.reserved_usd else ""
    reason = (
        f"Your limit of ${spending.limit_usd:.2f} a day is reached: ${spending.spent_usd:.2f} is spent{running}. "
        f"It goes on when your next day begins, or with a higher limit."
    )
    delayed = TaskDelayed(until=spending.day_ends, reason=reason, day_usd=left(spending) or 0.0)
    return with_state(task, Decision(at=now, state=task.state, events=(delayed,)))


def is_short(task: Task) -> bool:
    """Whether it waits for money and for nothing else."""
    return task.state is TaskState.DELAYED and task.day_usd is not None


def may_go_on(task: Task, spending: Spending) -> bool:
    """Whether there is more money for the day than there was when the turn was put off for the want of it."""
    available = left(spending)
    return is_short(task) and (available is None or available > (task.day_usd or 0.0))


def go_on(task: Task, now: datetime) -> Decision:
    queued = TaskQueued(reason="There is money for the day again.")
    return with_state(task, Decision(at=now, state=task.state, events=(queued,)))
