"""Money, time and counts as people read them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from msgspec import UNSET

from protocol.task import Budget, Published, PullRequest, Usage


def money(usd: float) -> str:
    return f"${usd:.2f}" if usd >= 1 or usd == 0 else f"${usd:.4f}"


def count(number: int) -> str:
    if number < 1_000:
        return str(number)
    return f"{number / 1_000:.1f}k" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"


def seconds(duration: float) -> str:
    if duration < 0.0995:
        return f"{duration * 1000:.0f} ms"
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days"


def many(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def used(usage: Usage) -> str:
    return f"{money(usage.cost_usd)} · {count(usage.tokens)} tokens"


def budget(allowed: Budget) -> str:
    """What a turn may spend, as far as it is said."""
    told = (
        _limit(allowed.money_usd, money, "money"),
        _limit(allowed.tokens, lambda number: f"{count(number)} tokens", "tokens"),
        _limit(allowed.steps, lambda number: many(number, "step"), "steps"),
        _limit(allowed.wall_seconds, seconds, "time"),
    )
    return ", ".join(filter(None, told)) or "as configured"


def _limit(limit: Any, show: Callable[[Any], str], what: str) -> str:
    return "" if limit is UNSET else f"any {what}" if limit is None else show(limit)


def pull_request(found: PullRequest) -> str:
    return f"{found.url}{' (draft)' if found.draft else ''}"


def changed(published: Published) -> str:
    return f"{many(published.files_changed, 'file')}, +{published.insertions} -{published.deletions}"


def age(then: str, now: datetime) -> str:
    """How long ago an ISO time was; empty when it is none."""
    try:
        passed = max(0.0, (now - datetime.fromisoformat(then)).total_seconds())
    except (ValueError, TypeError):
        return ""
    for limit, size, unit in AGES:
        if passed < limit:
            return f"{passed // size:.0f} {unit}"
    return f"{passed // 86_400:.0f} d"


AGES = ((60, 1, "s"), (3_600, 60, "min"), (172_800, 3_600, "h"))
"""Below how many seconds an age is told in which unit."""
