"""How long receipts are kept: those of a task for all its life, those of a user's log for two days."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from protocol.base import encode
from protocol.schedule import is_of_a_schedule
from protocol.task import Receipt, ReceiptStatus

RECEIPTS_LIMIT = 2_000
"""Receipts of its users' commands that a task keeps. Past it every command but a cancel is rejected, so that whoever
asks again hears the same."""
RECEIPTS_LIMIT_BYTES = 272_000
"""What they may come to in JSON, to the same effect; 2,000 with UUIDs for keys take 268,000. All of them travel in the
one message that stands for an archived task."""
USER_RECEIPTS_KEPT = timedelta(days=2)
"""A user's log keeps its receipts so long, ..."""
USER_RECEIPTS_LIMIT = 2_000
"""... but no more than these, the newest, ..."""
USER_RECEIPTS_LIMIT_BYTES = 240_000
"""... nor, once the log is folded, than have room in so many bytes; ..."""
USER_RECEIPTS_LEAST = 500
"""... and so many however old they are."""
SCHEDULES_RECEIPTS_LIMIT = 100
"""The newest of commands that a user's schedules gave: they come by the clock."""


def is_full(receipts: Mapping[str, Receipt]) -> bool:
    """Whether a task has had all the commands that it may have. A client's key has no space: timers and runners fill no
    task."""
    sizes = [_size(receipt) for key, receipt in receipts.items() if " " not in key]
    return len(sizes) >= RECEIPTS_LIMIT or sum(sizes) >= RECEIPTS_LIMIT_BYTES


def with_receipt(receipts: dict[str, Receipt], receipt: Receipt | None) -> dict[str, Receipt]:
    """A task's, by key. Past the limit a rejection needs no memory: it comes out the same again."""
    if receipt is None or receipt.status is ReceiptStatus.INDETERMINATE:
        return receipts
    if receipt.status is ReceiptStatus.REJECTED and is_full(receipts):
        return receipts
    return {**receipts, receipt.key: receipt}


def with_user_receipt(receipts: dict[str, Receipt], receipt: Receipt, at: datetime) -> dict[str, Receipt]:
    """A user's log's, by key, the oldest first; `receipt` is given now. Those of schedules by themselves: they would
    push out those of what people sent."""
    of_schedule = is_of_a_schedule(receipt.key)
    alike = [kept for key, kept in receipts.items() if is_of_a_schedule(key) == of_schedule]
    over = len(alike) + 1 - (SCHEDULES_RECEIPTS_LIMIT if of_schedule else _user_limit(alike, at))
    gone = {kept.key for kept in alike[: max(0, over)]}
    return {**{key: kept for key, kept in receipts.items() if key not in gone}, receipt.key: replace(receipt, at=at)}


def _user_limit(receipts: list[Receipt], now: datetime) -> int:
    young = sum(1 for kept in receipts if kept.at is not None and now - kept.at < USER_RECEIPTS_KEPT)
    return max(USER_RECEIPTS_LEAST, min(young + 1, USER_RECEIPTS_LIMIT))


def newest(receipts: Iterable[Receipt], room_bytes: int) -> tuple[Receipt, ...]:
    """Of those, the oldest first, as many of the newest as have room."""
    kept: list[Receipt] = []
    for receipt in reversed(tuple(receipts)):
        room_bytes -= _size(receipt)
        if room_bytes < 0:
            break
        kept.append(receipt)
    return tuple(reversed(kept))


def _size(receipt: Receipt) -> int:
    """As a task has it in JSON: behind its key, with a colon and a comma."""
    return len(encode(receipt)) + len(encode(receipt.key)) + len(":,")
