"""What a model costs, in dollars per million tokens. From Anthropic's price list, November 2026."""

from __future__ import annotations

from msgspec import Struct

from protocol.task import Usage

CACHE_READ = 0.1
CACHE_WRITE = 1.25
"""Times the price of input."""


class Price(Struct, frozen=True):
    input: float
    output: float


PRICES = {
    "claude-opus-5-5": Price(4.0, 20.0),
    "claude-sonnet-5-5": Price(2.0, 10.0),
    "claude-haiku-5-5": Price(0.10, 0.50),
    # Nobody is billed for it: it has a price so that budgets and reports can be tried.
    "scripted": Price(0.10, 0.50),
}
SCRIPTED = "scripted"
DEAREST = max(PRICES.values(), key=lambda price: price.output)


def price_of(model: str) -> Price:
    """By the longest known name that `model` starts with (a dated snapshot costs what its model does); for an unknown
    one the dearest known price, so that a budget is never overrun for want of knowing (see `is_known`)."""
    known = max((name for name in PRICES if model.startswith(name)), key=len, default=None)
    return PRICES[known] if known else DEAREST


def offered(default: str, *, scripted: bool) -> tuple[str, ...]:
    """Names to choose from, the default first. The scripted model answers to its own alone."""
    others = () if scripted else tuple(name for name in PRICES if name not in (default, SCRIPTED))
    return (default, *others)


def is_known(model: str) -> bool:
    return any(model.startswith(name) for name in PRICES)


def priced(
    model: str,
    *,
    input_tokens: int = 0,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
    output_tokens: int = 0,
) -> Usage:
    price = price_of(model)
    weighted = input_tokens + CACHE_READ * cache_read_tokens + CACHE_WRITE * cache_write_tokens
    return Usage(
        input_tokens=input_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
        output_tokens=output_tokens,
        cost_usd=(weighted * price.input + output_tokens * price.output) / 1e6,
    )
