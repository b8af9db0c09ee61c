"""What a user's tasks have and may do unless they say otherwise, and what they may spend in a day."""

from __future__ import annotations

import secrets
from datetime import datetime

from litestar import Router, get, put
from msgspec import UNSET, Struct, UnsetType

from gateway import checks
from gateway.errors import Problem
from gateway.rest.account import consumed
from gateway.rest.identify import Owner
from gateway.users import Asker, Users
from protocol.query import AskSpending, Spending
from protocol.routes import Service
from protocol.rules import Rule
from protocol.user import SetDailyLimit, SetRules, SetSettings, Settings
from services.bus import Bus


class SettingsShown(Struct, frozen=True):
    settings: Settings
    spent_usd: float
    """Today, by attempts that have ended."""
    reserved_usd: float
    """Set aside for those that run."""
    limit_usd: float | None
    """What may be spent today; null means unlimited."""
    day_ends: datetime


class Rules(Struct, frozen=True):
    rules: tuple[Rule, ...]
    """The first that matches decides; where none does, a call is allowed."""


class DailyLimitBody(Struct, frozen=True):
    daily_usd: float | UnsetType | None = UNSET
    """Absent means the installation's default, null unlimited."""


def _key() -> str:
    return f"set-{secrets.token_hex(16)}"


@get("/settings")
async def show_settings(asker: Asker, users: Users, bus: Bus) -> SettingsShown:
    """The asker's settings, and what was spent today."""
    user = users.get(asker.user)
    today = await bus.ask(Service.SCHEDULER, AskSpending(user=asker.user), Spending)
    settings = user.settings if user else Settings()
    return SettingsShown(settings, today.spent_usd, today.reserved_usd, today.limit_usd, today.day_ends)


@put("/settings")
async def set_settings(asker: Asker, users: Users, data: Settings) -> Settings:
    """In the place of all settings before. They count from each task's next attempt."""
    checks.settings(data)
    consumed(await users.command(asker.user, SetSettings(key=_key(), settings=data)), 409)
    return data


@get("/rules")
async def show_rules(asker: Asker, users: Users) -> Rules:
    """What the asker's tasks may do unasked, must ask for, or may not do."""
    user = users.get(asker.user)
    return Rules(user.rules if user else ())


@put("/rules")
async def set_rules(asker: Asker, users: Users, data: Rules) -> Rules:
    """In the place of all rules before. They count from each task's next attempt."""
    checks.rules(data.rules)
    consumed(await users.command(asker.user, SetRules(key=_key(), rules=data.rules)), 409)
    return data


@put("/users/{user:str}/daily-limit", status_code=204)
async def set_daily_limit(owner: Owner, users: Users, user: str, data: DailyLimitBody) -> None:
    """What a user may spend in a day."""
    checks.daily_usd(data.daily_usd)
    if users.get(user) is None:
        raise Problem(404, "There is no such user.")
    consumed(await users.command(user, SetDailyLimit(key=_key(), daily_usd=data.daily_usd)), 409)


ROUTER = Router("/api", route_handlers=[show_settings, set_settings, show_rules, set_rules, set_daily_limit])
