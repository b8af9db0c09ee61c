"""What users may spend in a day: counted from the tasks, set aside at the claim."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import UNSET

from protocol.evolve import Task, User
from protocol.query import Spending
from protocol.task import (
    Budget,
    CancelTask,
    FailAttempt,
    FinishAttempt,
    FireTimer,
    ParkAttempt,
    SendMessage,
    SetBudget,
    SubmitTask,
    TaskState,
    Terms,
    Usage,
)
from protocol.user import Settings
from services.scheduler.decide import go_on, lose_lease, may_go_on, terms_of, time_of_claim, wait_for_day
from services.scheduler.spending import Ledger, day_of, limit_of
from tests.unit.desk import LIMITS, NOW, Desk


@pytest.mark.parametrize(
    ("now", "zone", "begins", "ends"),
    [
        ("2026-11-22T13:00Z", "UTC", "2026-11-22T00:00Z", "2026-11-23T00:00Z"),
        ("2026-11-22T23:30Z", "Europe/Berlin", "2026-11-22T23:00Z", "2026-11-23T23:00Z"),
        ("2026-11-22T04:00Z", "America/New_York", "2026-11-21T05:00Z", "2026-11-22T05:00Z"),
        ("2026-11-22T13:00Z", "Asia/Kathmandu", "2026-11-21T18:15Z", "2026-11-22T18:15Z"),
        ("2026-03-29T12:00Z", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-29T22:00Z"),  # a day of 23 hours
        ("2026-10-25T12:00Z", "Europe/Berlin", "2026-10-24T22:00Z", "2026-10-25T23:00Z"),  # a day of 25 hours
        ("2026-11-22T13:00Z", "Nowhere/Land", "2026-11-22T00:00Z", "2026-11-23T00:00Z"),
        ("2026-11-22T13:00Z", "../../etc/passwd", "2026-11-22T00:00Z", "2026-11-23T00:00Z"),
    ],
)
def test_a_day_is_the_users_own(now: str, zone: str, begins: str, ends: str) -> None:
    day = day_of(datetime.fromisoformat(now), zone)
    assert (day.begins, day.ends) == (datetime.fromisoformat(begins), datetime.fromisoformat(ends))


@pytest.mark.parametrize(
    ("why", "default", "owner", "own", "limit"),
    [
        ("nothing is said: unlimited", None, UNSET, None, None),
        ("the installation's", 5.0, UNSET, None, 5.0),
        ("the owner gives this user more", 5.0, 9.0, None, 9.0),
        ("or takes the limit away", 5.0, None, None, None),
        ("the user lowers it", 5.0, UNSET, 2.0, 2.0),
        ("and cannot raise it", 5.0, UNSET, 9.0, 5.0),
        ("zero is zero", 5.0, 0.0, None, 0.0),
        ("the user's own where there is no other", None, UNSET, 2.0, 2.0),
    ],
)
def test_the_user_may_only_lower_what_the_owner_allows(
    why: str, default: float | None, owner: float | None, own: float | None, limit: float | None
) -> None:
    assert limit_of(User(id="u", daily_usd=owner, settings=Settings(daily_usd=own)), default) == limit, why


def spending(spent: float = 0.0, reserved: float = 0.0, limit: float | None = 5.0) -> Spending:
    return Spending(spent_usd=spent, reserved_usd=reserved, limit_usd=limit, day_ends=NOW + timedelta(hours=5))


USER = User(id="owner", settings=Settings(model="m", budget=Budget(money_usd=2.0)))


@pytest.mark.parametrize(
    ("why", "task", "today", "day_usd"),
    [
        ("no limit, nothing is set aside", {}, spending(limit=None), None),
        ("the turn's budget is set aside", {}, spending(), 2.0),
        ("the task's own where it has one", {"budget": Budget(money_usd=3.0)}, spending(), 3.0),
        ("what the turn has spent needs no setting aside", {"turn_usage": Usage(cost_usd=1.5)}, spending(), 0.5),
        ("no more than is left", {}, spending(spent=3.5), 1.5),
        ("others may spend what is set aside for them", {}, spending(spent=1.0, reserved=3.0), 1.0),
        ("an unlimited turn takes all", {"budget": Budget(money_usd=None)}, spending(spent=1.0), 4.0),
    ],
)
def test_an_attempt_may_spend_its_budget_or_what_the_day_has_left(
    why: str, task: dict, today: Spending, day_usd: float | None
) -> None:
    terms = terms_of(Task(id="t", user="owner", **task), USER, today)
    assert terms is not None
    assert (terms.day_usd, terms.model, terms.budget) == (day_usd, "m", Budget(money_usd=2.0)), why


@pytest.mark.parametrize("today", [spending(spent=5.0), spending(spent=4.0, reserved=1.0), spending(limit=0.0)])
def test_with_nothing_left_the_turn_waits_for_the_next_day_or_for_more_money(today: Spending) -> None:
    desk = Desk().submit()
    assert terms_of(desk.task, USER, today) is None
    desk.take(wait_for_day(desk.task, today, NOW))
    assert (desk.task.state, desk.task.delayed_until) == (TaskState.DELAYED, today.day_ends)
    assert f"limit of ${today.limit_usd:.2f} a day" in desk.task.reason
    assert not may_go_on(desk.task, today)
    assert may_go_on(desk.task, spending(spent=4.9))
    assert may_go_on(desk.task, spending(spent=90.0, limit=None))
    desk.take(go_on(desk.task, NOW))
    assert (desk.task.state, desk.task.delayed_until, desk.task.day_usd) == (TaskState.QUEUED, None, None)


def test_a_turn_that_the_day_stops_goes_on_with_the_next_and_has_lost_no_attempt() -> None:
    desk = Desk().submit()
    ends = NOW + timedelta(hours=5)
    desk.claim(Terms(day_usd=0.3, day_ends=ends))
    desk.give(ParkAttempt(key="p", attempt=1, journal_sequence=3, usage=Usage(cost_usd=0.2), day_is_spent="No money."))
    assert (desk.task.state, desk.task.reason, desk.task.turn_attempts) == (TaskState.DELAYED, "No money.", 0)
    assert not may_go_on(desk.task, spending(spent=4.9)), "as much as was too little"
    assert may_go_on(desk.task, spending(spent=4.0))
    desk.give(FireTimer(key="t", name="delay", due=ends))
    assert desk.task.state is TaskState.QUEUED


def test_a_turn_whose_budget_was_raised_goes_on_at_once_while_the_day_has_more_than_was_set_aside() -> None:
    desk = Desk()
    desk.give(SubmitTask(key="s", prompt="do it", repository="r", budget=Budget(money_usd=5.0)))
    first = terms_of(desk.task, USER, spending(limit=8.0))
    desk.claim(first)
    desk.give(SetBudget(key="b", budget=Budget(money_usd=20.0)))
    desk.give(ParkAttempt(key="p", attempt=1, journal_sequence=3, usage=cost(4.9), day_is_spent="No money."))
    today = spending(spent=4.9, limit=8.0)
    assert may_go_on(desk.task, today), "3.10 are left, and 0.10 were too little"
    desk.take(go_on(desk.task, NOW))
    second = terms_of(desk.task, USER, today)
    assert first is not None
    assert second is not None
    assert (first.day_usd, second.day_usd) == (5.0, pytest.approx(3.1))
    desk.claim(second)
    desk.give(ParkAttempt(key="p", attempt=2, journal_sequence=4, usage=cost(7.95), day_is_spent="No money."))
    assert not may_go_on(desk.task, spending(spent=7.95, limit=8.0)), (
        "the whole day was set aside: it waits for the next"
    )


def test_a_clock_behind_the_servers_puts_a_turn_off_to_the_end_of_its_day_only_once() -> None:
    ledger, midnight = Ledger(), NOW + timedelta(days=1)
    ledger.take(Task(id="other", user="owner", spent={NOW: 5.0}))

    def today(now: datetime) -> Spending:
        return ledger.spending(USER, 0.0, 5.0, now)

    desk = Desk().submit()
    desk.now = midnight - timedelta(seconds=30)
    desk.take(wait_for_day(desk.task, today(desk.now), desk.now))
    assert desk.task.delayed_until == midnight
    desk.give(FireTimer(key="t", name="delay", due=midnight))
    assert (desk.task.state, desk.task.queued_at) == (TaskState.QUEUED, midnight)
    assert terms_of(desk.task, USER, today(desk.now)) is None, "by our own clock it would wait for the same time again"
    now = time_of_claim(desk.task, desk.now)
    terms = terms_of(desk.task, USER, today(now))
    assert terms is not None
    assert (now, terms.day_ends) == (midnight, midnight + timedelta(days=1))
    desk.now = now
    assert desk.claim(terms).task.has_begun
    assert time_of_claim(desk.task, midnight + timedelta(hours=1)) == midnight + timedelta(hours=1)


def test_what_is_spent_is_counted_once_over_all_attempts_and_turns_by_the_quarter_of_an_hour() -> None:
    desk = Desk().submit().claim()
    desk.give(FailAttempt(key="f", attempt=1, journal_sequence=1, reason="x", retry_after_seconds=0, usage=cost(1.0)))
    desk.now += timedelta(minutes=20)
    desk.give(FireTimer(key="t", name="delay", due=desk.now))
    desk.claim()
    desk.give(FinishAttempt(key="d", attempt=2, journal_sequence=2, summary="", usage=cost(1.5)))
    desk.give(SendMessage(key="m", text="go on"))
    desk.claim()
    desk.give(FailAttempt(key="g", attempt=3, journal_sequence=3, reason="x", retry_after_seconds=9, usage=cost(0.25)))
    desk.give(CancelTask(key="c"))
    assert desk.task.spent == {NOW: 1.0, NOW + timedelta(minutes=15): 0.75}
    assert desk.task.usage.cost_usd == 1.75, "a turn that is cancelled between two attempts has cost something too"


def test_a_model_without_a_price_has_its_tokens_counted_and_what_is_known_never_shrinks() -> None:
    desk = Desk().submit().claim()
    free = Usage(input_tokens=900, output_tokens=40)
    desk.give(FailAttempt(key="f", attempt=1, journal_sequence=1, reason="x", retry_after_seconds=0, usage=free))
    assert desk.task.turn_usage == free
    desk.give(FireTimer(key="t", name="delay", due=NOW + timedelta(minutes=1)))
    desk.claim()
    desk.take(lose_lease(desk.task, desk.now, LIMITS))
    desk.give(CancelTask(key="c"))
    assert (desk.task.usage, desk.task.spent) == (free, {})


def cost(dollars: float) -> Usage:
    return Usage(cost_usd=dollars)


def test_the_ledger_counts_what_every_task_spent_in_the_users_day_and_forgets_old_days() -> None:
    ledger = Ledger()
    morning = datetime(2026, 1, 1, 3, tzinfo=UTC)

    def today(user: str, now: datetime) -> float:
        return ledger.spending(User(id=user), 0.0, None, now).spent_usd

    ledger.take(Task(id="a", user="ann", spent={morning: 1.0}))
    ledger.take(Task(id="b", user="ann", spent={morning - timedelta(hours=4): 8.0, morning: 2.0}))
    ledger.take(Task(id="c", user="bob", spent={morning: 4.0}))
    ledger.take(Task(id="a", user="ann", spent={morning: 1.5}))
    ledger.take(Task(id="a", user="ann", spent={morning: 1.5}))
    assert (today("ann", morning), today("bob", morning), today("eve", morning)) == (3.5, 4.0, 0.0)
    later = morning + timedelta(days=3)
    assert today("ann", later) == 0.0
    ledger.take(Task(id="d", user="bob", spent={later: 1.0}))
    ledger.take(Task(id="c", user="bob", spent={morning: 4.0}))
    assert (today("bob", later), list(ledger._tasks), list(ledger._users)) == (1.0, ["d"], ["bob"])
