"""What a turn may spend, checked before each call: a call's most is reserved, and what does not fit is not made."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import UNSET, Struct

from agents.contract import ModelRequest
from protocol.task import DEFAULT_BUDGET, Budget, Usage

SHORTEST_REPLY_TOKENS = 1024
"""Below so many output tokens a call is not worth its input; the turn stops instead."""


class Spent(Struct, frozen=True, kw_only=True):
    """What the turn has used so far, in all its attempts."""

    usage: Usage = Usage()
    steps: int = 0
    wall_seconds: float = 0.0
    """While an attempt ran; the time spent waiting for the user is not counted."""
    attempt_usd: float = 0.0
    """By this attempt alone."""


class BudgetReached(Exception):
    """A limit is reached. The text names it, its number, what was spent and what to do."""


class DayReached(BudgetReached):
    """It is the limit of the user's day, and not the turn's own."""


def check(budget: Budget, spent: Spent, reserve: Usage = Usage(), day_usd: float | None = None) -> None:  # noqa: B008 - frozen
    """Raise BudgetReached when one more step, which may cost `reserve`, does not fit. `day_usd` is what the attempt may
    spend of the user's day."""
    budget = budget.over(DEFAULT_BUDGET)
    money, tokens = spent.usage.cost_usd, spent.usage.tokens
    _fits("budget", budget.money_usd, money, reserve.cost_usd, lambda n: f"${n:.4g}")
    _fits("limit of tokens", budget.tokens, tokens, reserve.tokens, lambda n: f"{n:,.0f} tokens")
    _fits("limit of steps", budget.steps, spent.steps, 1, lambda n: f"{n:,.0f} steps")
    _fits("limit of time", budget.wall_seconds, spent.wall_seconds, 0, lambda n: f"{n:,.0f} s")
    if day_usd is not None and spent.attempt_usd + reserve.cost_usd > day_usd:
        raise DayReached(
            f"Your limit for the day left this turn ${day_usd:.4g}, which is too little for its next step. "
            f"It goes on when your next day begins, or with a higher limit."
        )


def affordable(
    budget: Budget,
    spent: Spent,
    request: ModelRequest,
    most: Callable[[ModelRequest], Usage],
    day_usd: float | None = None,
) -> tuple[ModelRequest, Usage]:
    """The request, its `max_tokens` halved until it fits what is left, and its reserve. Raises BudgetReached."""
    while True:
        reserve = most(request)
        try:
            check(budget, spent, reserve, day_usd)
        except BudgetReached:
            if request.max_tokens < 2 * SHORTEST_REPLY_TOKENS:
                raise
            request = msgspec.structs.replace(request, max_tokens=request.max_tokens // 2)
        else:
            return request, reserve


def _fits(
    what: str, limit: float | msgspec.UnsetType | None, spent: float, reserve: float, show: Callable[[float], str]
) -> None:
    if limit is None or limit is UNSET or (spent < limit and spent + reserve <= limit):
        return
    next_one = f" and the next call may take up to {show(reserve)}" if spent < limit else ""
    raise BudgetReached(
        f"The turn reached its limit of {show(limit)}: {show(spent)} spent{next_one}. "
        f"Send a message to go on with a fresh budget; raise the {what} first where it is too small."
    )
