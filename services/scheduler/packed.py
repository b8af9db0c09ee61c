"""An archived task's state in little room. There may be many more of them than of all others, and of one that lies in
the archive nobody asks but lists and who opens it again."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from datetime import datetime

import msgspec
from msgspec import Struct

from protocol.evolve import SPENT_KEPT, Task
from protocol.task import Receipt, TaskState, Usage

LEVEL = 1
"""zlib's quickest: 20 µs a task. Level 6 takes thrice as long for 3 % less."""


class Packed(Struct, frozen=True, gc=False):
    """A whole `Task`, and what a list asks of each before it unpacks one (8 µs)."""

    id: str
    state: TaskState
    updated_at: datetime | None
    data: bytes


Kept = Task | Packed


def is_at_rest(task: Task, now: datetime) -> bool:
    """Whether nothing but its own list and commands needs it: it is archived, and what it spent counts no more."""
    return task.archived_at is not None and all(now - quarter >= SPENT_KEPT for quarter in task.spent)


def pack(task: Task) -> Packed:
    packing = zlib.compressobj(LEVEL, zdict=_KNOWN)
    data = packing.compress(_encode(task)) + packing.flush()
    return Packed(task.id, task.state, task.updated_at, data)


def whole(kept: Kept) -> Task:
    return _decode(zlib.decompressobj(zdict=_KNOWN).decompress(kept.data)) if isinstance(kept, Packed) else kept


def _names() -> Iterator[str]:
    """What every task has in it, the most frequent last, as zlib wants it."""
    for each in (Usage, Receipt, Task):
        yield from (field.encode_name for field in msgspec.structs.fields(each))


_KNOWN = "".join(_names()).encode()
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Task).decode
