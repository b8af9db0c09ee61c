"""What a turn may spend: one table, a reason a row."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from agents.budget import SHORTEST_REPLY_TOKENS, BudgetReached, DayReached, Spent, affordable, check
from agents.contract import ModelRequest
from agents.models.claude import explain, retry_after
from agents.models.prices import DEAREST, is_known, price_of, priced
from protocol.task import DEFAULT_BUDGET, Budget, Usage

UNLIMITED = Budget(money_usd=None, tokens=None, steps=None, wall_seconds=None)


@pytest.mark.parametrize(
    ("asked", "configured", "resolved"),
    [
        (Budget(), Budget(), DEFAULT_BUDGET.money_usd),  # nothing said anywhere
        (Budget(), Budget(money_usd=2.0), 2.0),  # the user's
        (Budget(money_usd=1.0), Budget(money_usd=2.0), 1.0),  # the task's
        (Budget(money_usd=None), Budget(money_usd=2.0), None),  # unlimited on purpose
        (Budget(money_usd=0.0), Budget(money_usd=2.0), 0.0),  # zero is zero
        (Budget(), Budget(money_usd=None), None),  # a user without a limit
    ],
)
def test_absent_is_the_default_null_unlimited_zero_zero(
    asked: Budget, configured: Budget, resolved: float | None
) -> None:
    assert asked.over(configured).over(DEFAULT_BUDGET).money_usd == resolved


@pytest.mark.parametrize(
    ("limit", "spent", "reserve", "said"),
    [
        (Budget(money_usd=1.0), Spent(), Usage(cost_usd=1.0), None),  # exactly fits
        (Budget(money_usd=1.0), Spent(usage=Usage(cost_usd=0.5)), Usage(cost_usd=0.6), "limit of $1: $0.5 spent"),
        (Budget(money_usd=1.0), Spent(usage=Usage(cost_usd=1.0)), Usage(), "$1 spent"),  # used up
        (Budget(money_usd=0.0), Spent(), Usage(), "limit of $0: $0 spent"),  # zero, though the call is free
        (Budget(tokens=100), Spent(usage=Usage(input_tokens=60)), Usage(output_tokens=50), "limit of 100 tokens"),
        (Budget(steps=3), Spent(steps=2), Usage(), None),  # one more fits
        (Budget(steps=3), Spent(steps=3), Usage(), "limit of 3 steps: 3 steps spent"),
        (Budget(wall_seconds=60.0), Spent(wall_seconds=61.0), Usage(), "limit of 60 s: 61 s spent"),
        (UNLIMITED, Spent(usage=Usage(cost_usd=1e6), steps=10**6), Usage(cost_usd=1e6), None),
    ],
)
def test_what_does_not_fit_is_refused_with_numbers(
    limit: Budget, spent: Spent, reserve: Usage, said: str | None
) -> None:
    given = {name: value for name in Budget.__struct_fields__ if (value := getattr(limit, name)) is not msgspec.UNSET}
    budget = msgspec.structs.replace(UNLIMITED, **given)
    if said is None:
        return check(budget, spent, reserve)
    with pytest.raises(BudgetReached) as reached:
        check(budget, spent, reserve)
    assert said in str(reached.value)
    assert "Send a message to go on" in str(reached.value)
    return None


def request(max_tokens: int) -> ModelRequest:
    return ModelRequest(model="m", system="", messages=(), tools=(), max_tokens=max_tokens)


def most(request: ModelRequest) -> Usage:
    return Usage(output_tokens=request.max_tokens)


def test_a_reply_is_shortened_to_what_is_left() -> None:
    budget = msgspec.structs.replace(UNLIMITED, tokens=10_000)
    shorter, reserve = affordable(budget, Spent(), request(32_000), most)
    assert shorter.max_tokens == reserve.tokens == 8_000


def test_a_reply_too_short_to_be_of_use_is_not_asked_for() -> None:
    budget = msgspec.structs.replace(UNLIMITED, tokens=SHORTEST_REPLY_TOKENS - 25)
    with pytest.raises(BudgetReached):
        affordable(budget, Spent(), request(32_000), most)


def test_prices_count_the_cache_and_an_unknown_model_is_the_dearest() -> None:
    assert priced("claude-opus-5-5", input_tokens=10**6).cost_usd == pytest.approx(4.0)
    assert priced("claude-opus-5-5-20261101", cache_read_tokens=10**6).cost_usd == pytest.approx(0.4)
    assert priced("claude-sonnet-5-5", cache_write_tokens=10**6, output_tokens=10**6).cost_usd == pytest.approx(12.5)
    assert price_of("claude-next") == DEAREST == price_of("claude-opus-5-5")
    assert not is_known("claude-next")


@pytest.mark.parametrize(
    ("status", "kind", "after", "said", "wait"),
    [
        (401, "authentication_error", None, "set ANTHROPIC_API_KEY", None),
        (429, "rate_limit_error", 7.0, "rate limit", 7.0),
        (429, "rate_limit_error", None, "spend limit", None),
        (200, "rate_limit_error", None, "rate limit", 0),  # inside a stream there is no header
        (200, "overloaded_error", None, "overloaded", 0),
        (200, "authentication_error", None, "ANTHROPIC_API_KEY", None),
        (503, None, None, "failed (503)", 0),
        (413, None, None, "too large", None),
        (418, None, None, "refused the request (418)", None),
    ],
)
def test_each_error_of_the_api_says_what_to_do(
    status: int, kind: str | None, after: float | None, said: str, wait: float | None
) -> None:
    reason, found = explain(status, kind, "The API's words.", after)
    assert said in reason
    assert "The API's words." in reason
    assert found == wait


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "17"}, 17),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
        ({"retry-after": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:30Z",
                "anthropic-ratelimit-tokens-remaining": "0",
                "anthropic-ratelimit-tokens-reset": "2026-01-01T00:05:00Z",
                "anthropic-ratelimit-input-tokens-remaining": "1000",
                "anthropic-ratelimit-input-tokens-reset": "2026-01-01T01:00:00Z",
            },
            300,
        ),
        ({"anthropic-ratelimit-requests-remaining": "4"}, None),
        ({"anthropic-ratelimit-requests-remaining": "0"}, None),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_a_rate_limit_is_waited_for_until_its_reset(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, datetime(2026, 1, 1, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("day_usd", "attempt_usd", "reserve_usd", "fits"),
    [
        (None, 9.0, 9.0, True),  # no limit of the day
        (1.0, 0.5, 0.5, True),  # exactly fits
        (1.0, 0.5, 0.6, False),  # the next call may cost too much
        (0.0, 0.0, 0.0, True),  # what costs nothing takes nothing
        (0.0, 0.0, 0.1, False),
    ],
)
def test_of_the_day_an_attempt_takes_no_more_than_is_set_aside(
    day_usd: float | None, attempt_usd: float, reserve_usd: float, fits: bool
) -> None:
    spent = Spent(usage=Usage(cost_usd=100.0), attempt_usd=attempt_usd)
    if fits:
        return check(UNLIMITED, spent, Usage(cost_usd=reserve_usd), day_usd)
    with pytest.raises(DayReached, match="next day begins"):
        check(UNLIMITED, spent, Usage(cost_usd=reserve_usd), day_usd)
    return None
