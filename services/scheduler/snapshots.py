"""What all actors are, at one sequence: so that a start reads what came since, and old commands can go.

A snapshot is a shortcut and nothing else. One that is missing, torn, or made by another release's folds is passed over,
and the whole log is folded instead. It is written as JSON lines, its head and then an actor a line: in one piece, a
hundred thousand tasks would hold everybody up for half a second.
"""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import AsyncIterator, Sequence
from types import ModuleType
from typing import NamedTuple

import msgspec
from msgspec import Struct

import protocol.evolve
import protocol.evolve_schedules
import protocol.receipts
import protocol.rules
import protocol.schedule
import protocol.secret
import protocol.task
import protocol.user
import services.scheduler.packed
from protocol.evolve import Task, User
from services import log
from services.bus import SNAPSHOTS, Bus, Unavailable
from services.scheduler.packed import Kept, Packed

NAME = "scheduler"


class KeptTask(Struct, frozen=True, gc=False, tag="task"):
    user: str
    task: Task | None
    """None where it is packed."""
    packed: Packed | None
    sequence: int
    """Of its last decision."""
    archived: int = 0
    is_cleared: bool = True
    unread: int = 0

    @property
    def kept(self) -> Kept:
        kept = self.packed or self.task
        assert kept is not None, "one of them is there"
        return kept


class KeptUser(Struct, frozen=True, tag="user"):
    user: User
    sequence: int
    unread: int = 0
    folded: int = 0
    routine: int = 0
    is_cleared: bool = True


class Head(Struct, frozen=True, tag="head"):
    folds: str
    """The folds that made it, by `FOLDS`."""
    sequence: int
    """Every command up to here has its receipt in the states, but for those to stopped actors, which stay in the
    stream; and every decision up to here is folded. The states may be further, each by itself."""


Line = Head | KeptTask | KeptUser


class Snapshot(NamedTuple):
    sequence: int = 0
    actors: Sequence[KeptTask | KeptUser] = ()


def _source(*modules: ModuleType) -> str:
    """Any change of what is folded, or how, makes another one: also one that nobody thought of."""
    text = "".join(inspect.getsource(module) for module in modules)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


FOLDED = (
    services.scheduler.packed,
    protocol.evolve,
    protocol.evolve_schedules,
    protocol.receipts,
    protocol.rules,
    protocol.schedule,
    protocol.secret,
    protocol.task,
    protocol.user,
)
"""Where what is kept comes from."""
FOLDS = _source(*FOLDED)
NOTHING = Snapshot()
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Line)


async def load(bus: Bus) -> Snapshot:
    """The last snapshot, or `NOTHING`."""
    try:
        return _read(await bus.get_blob(NAME, SNAPSHOTS))
    except KeyError:
        return NOTHING
    except (Unavailable, msgspec.MsgspecError) as error:
        log.get().warning("snapshot_passed_over", error=str(error))
        return NOTHING


def _read(data: bytes) -> Snapshot:
    head = _decoder.decode(data[: data.find(b"\n")])
    if not isinstance(head, Head) or head.folds != FOLDS:
        return NOTHING
    lines = _decoder.decode_lines(data)
    return Snapshot(head.sequence, [line for line in lines if not isinstance(line, Head)])


async def write(sequence: int, actors: AsyncIterator[KeptTask | KeptUser]) -> io.BytesIO:
    """A snapshot, in as many pieces as `actors` come in."""
    file = io.BytesIO()
    file.write(_line(Head(FOLDS, sequence)))
    async for actor in actors:
        file.write(_line(actor))
    file.seek(0)
    return file


def _line(line: Line) -> bytes:
    return _encode(line) + b"\n"


async def save(bus: Bus, snapshot: io.BytesIO) -> None:
    """Raises Unavailable."""
    await bus.put_blob(NAME, snapshot, SNAPSHOTS)
