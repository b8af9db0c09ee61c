"""What all actors are, at one sequence: so that a start reads what came since, and old commands can go.

A snapshot is a shortcut and nothing else. One that is missing, torn, or made by another release's folds is passed over,
and the whole log is folded instead.
"""

from __future__ import annotations

import hashlib
import inspect
from types import ModuleType

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


class KeptTask(Struct, frozen=True, gc=False):
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


class KeptUser(Struct, frozen=True):
    user: User
    sequence: int
    unread: int = 0
    folded: int = 0
    routine: int = 0
    is_cleared: bool = True


class Snapshot(Struct, frozen=True, kw_only=True):
    folds: str
    """The folds that made it, by `FOLDS`."""
    sequence: int
    """Every command up to here has its receipt in the states, but for those to stopped actors, which stay in the
    stream; and every decision up to here is folded. The states may be further."""
    tasks: tuple[KeptTask, ...] = ()
    users: tuple[KeptUser, ...] = ()


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
NOTHING = Snapshot(folds=FOLDS, sequence=0)
_decode = msgspec.json.Decoder(Snapshot).decode


async def load(bus: Bus) -> Snapshot:
    """The last snapshot, or `NOTHING`."""
    try:
        snapshot = _decode(await bus.get_blob(NAME, SNAPSHOTS))
    except KeyError:
        return NOTHING
    except (Unavailable, msgspec.MsgspecError) as error:
        log.get().warning("snapshot_passed_over", error=str(error))
        return NOTHING
    return snapshot if snapshot.folds == FOLDS else NOTHING


async def save(bus: Bus, snapshot: Snapshot) -> None:
    """Raises Unavailable."""
    await bus.put_blob(NAME, msgspec.json.encode(snapshot), SNAPSHOTS)
