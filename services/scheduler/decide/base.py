"""What the parts of the decision share. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from protocol.evolve import Task, evolve
from protocol.rules import Rule, too_many
from protocol.task import (
    Decision,
)
from protocol.texts import wrong_text


class Limits(Struct, frozen=True, kw_only=True):
    """Numbers that decisions depend on."""

    attempts_per_turn: int = 5
    """A turn whose runner died, or that failed for a passing reason, is tried so often."""
    first_retry_seconds: float = 2.0
    """The wait after a turn's first passing failure, doubled with each one more; what the failure asks for may be
    longer."""
    longest_retry_seconds: float = 300.0
    """To which it is doubled."""
    jitter_seconds: float = 30.0
    """Each wait is made up to half of itself longer, and at most so much: many tasks that failed at one time do not
    all come back at one time."""
    grace_seconds: float = 60.0
    """A runner ends its turn at the deadline, to save the work first. One that has not, so long after it, is cut
    off."""


class Rejected(Exception):
    """The command changes nothing; the reason goes into its receipt."""


class Forgotten(Exception):
    """Whether the command was carried out long ago is not known any more; it changes nothing now."""


def must_be_text(text: str, what: str) -> None:
    if wrong := wrong_text(text, what):
        raise Rejected(wrong)


def must_be_rules(rules: Sequence[Rule]) -> None:
    if wrong := too_many(rules):
        raise Rejected(wrong)


def so_long(seconds: float) -> str:
    """As a person says it: 90 s, 15 min, 2 h, 3 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (seconds == size and unit != "days"):
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def with_state(task: Task, decision: Decision) -> Decision:
    """`decision` naming the state it leads to."""
    return replace(decision, state=evolve(task, decision).state)
