"""Which receipts are kept, and that they have room in the one message that stands for an archived task, or a user's
log."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.evolve import User, evolve_user
from protocol.ids import KEY_LIMIT_BYTES
from protocol.receipts import (
    RECEIPTS_LIMIT,
    RECEIPTS_LIMIT_BYTES,
    USER_RECEIPTS_KEPT,
    USER_RECEIPTS_LEAST,
    USER_RECEIPTS_LIMIT,
    USER_RECEIPTS_LIMIT_BYTES,
    is_full,
    newest,
)
from protocol.task import Receipt, ReceiptStatus, SetPriority
from protocol.user import SetDailyLimit, UserDecision
from services.scheduler.decide import answer_user, fold_log
from tests.unit.desk import NOW, Desk

DAY = timedelta(days=1)


def receipts(count: int, key_chars: int = 36) -> dict[str, Receipt]:
    keys = (f"{number:0{key_chars}}" for number in range(count))
    return {key: Receipt(key=key, status=ReceiptStatus.CONSUMED, command="answer_question") for key in keys}


@pytest.mark.parametrize(
    ("count", "key_chars", "full", "why"),
    [
        (RECEIPTS_LIMIT - 1, 36, False, "with UUIDs for keys there is room for all of them"),
        (RECEIPTS_LIMIT, 36, True, "no more of them"),
        (RECEIPTS_LIMIT_BYTES // 500, KEY_LIMIT_BYTES, False, "the longest keys, in their room"),
        (RECEIPTS_LIMIT_BYTES // 400, KEY_LIMIT_BYTES, True, "the longest keys, over it"),
    ],
)
def test_a_task_is_full_by_number_or_by_size(count: int, key_chars: int, full: bool, why: str) -> None:
    assert is_full(receipts(count, key_chars)) is full, why


def test_no_timer_and_no_runner_fills_a_task() -> None:
    assert not is_full({f"finish {n}": Receipt(key=f"finish {n}", status=ReceiptStatus.CONSUMED) for n in range(3_000)})


def test_a_task_that_is_full_gives_every_key_the_same_receipt_for_ever() -> None:
    desk = Desk().submit()
    desk.task = replace(desk.task, receipts=receipts(RECEIPTS_LIMIT - 10))
    keys = [f"{number:0{KEY_LIMIT_BYTES}}" for number in range(20)]
    for key in keys:
        desk.give(SetPriority(key=key, priority=1))
    told = {decision.receipt.key: decision.receipt for decision in desk.decisions if decision.receipt}
    before = desk.task
    assert {receipt.status for receipt in told.values()} == {ReceiptStatus.CONSUMED, ReceiptStatus.REJECTED}
    for key in keys:
        again = desk.give(SetPriority(key=key, priority=2))
        assert again is None or again.receipt == told[key]
    assert desk.task.priority == before.priority == 1


def of_users(count: int, key_chars: int = 36, every: timedelta = timedelta(seconds=1)) -> User:
    """A user's log after so many commands, one after the other."""
    user = User(id="owner", added_at=NOW)
    for number, receipt in enumerate(receipts(count, key_chars).values()):
        user = evolve_user(user, UserDecision(at=NOW + number * every, receipt=receipt))
    return user


def test_a_day_later_a_key_has_its_receipt_though_six_hundred_commands_came_after_it() -> None:
    user = of_users(600)
    [first, *_] = user.receipts
    later = evolve_user(user, UserDecision(at=NOW + DAY, receipt=Receipt(key="new", status=ReceiptStatus.CONSUMED)))
    assert answer_user(later, SetDailyLimit(key=first, daily_usd=1.0), 1_000, NOW + DAY) is None, "it has its receipt"
    folded = evolve_user(later, fold_log(later, NOW + DAY))
    assert folded.receipts == later.receipts, "and keeps it when the log is folded"


@pytest.mark.parametrize(
    ("count", "every", "kept", "why"),
    [
        (600, timedelta(seconds=1), 600, "all of a day"),
        (600, DAY, USER_RECEIPTS_LEAST, "the newest, however old they are"),
        (700, USER_RECEIPTS_KEPT / 600, 600, "those of two days"),
        (2_100, timedelta(seconds=1), USER_RECEIPTS_LIMIT, "no more than there is room for"),
    ],
)
def test_a_users_log_keeps_the_receipts_of_two_days(count: int, every: timedelta, kept: int, why: str) -> None:
    assert list(of_users(count, every=every).receipts) == list(receipts(count))[-kept:], why


def test_a_log_with_the_longest_keys_is_folded_into_one_message() -> None:
    user = of_users(USER_RECEIPTS_LIMIT, KEY_LIMIT_BYTES)
    decision = fold_log(user, NOW)
    assert len(encode(decision)) < MESSAGE_LIMIT_BYTES
    kept = [receipt.key for receipt in newest(user.receipts.values(), USER_RECEIPTS_LIMIT_BYTES)]
    assert list(evolve_user(user, decision).receipts) == kept == list(user.receipts)[-len(kept) :]
