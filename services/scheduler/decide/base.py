"""What the parts of the decision share. Pure."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from protocol.evolve import Task, evolve
from protocol.task import (
    Decision,
)


class Limits(Struct, frozen=True, kw_only=True):
    """Numbers that decisions depend on."""

    attempts_per_turn: int = 5
    """A turn whose runner died, or that failed for a passing reason, is tried so often."""


class Rejected(Exception):
    """The command changes nothing; the reason goes into its receipt."""


class Forgotten(Exception):
    """Whether the command was carried out long ago is not known any more; it changes nothing now."""


def with_state(task: Task, decision: Decision) -> Decision:
    """`decision` naming the state it leads to."""
    return replace(decision, state=evolve(task, decision).state)
