"""A snapshot of another release's folds is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from protocol.evolve import Task, User
from services.scheduler.snapshots import FOLDED


def test_a_change_of_whatever_a_state_is_made_of_makes_another_snapshot() -> None:
    parts = {*parts_of(Task, set()), *parts_of(User, set())}
    assert {part.__module__ for part in parts} <= {module.__name__ for module in FOLDED}


def parts_of(kind: Any, seen: set[type[Struct]]) -> Iterator[type[Struct]]:
    """Every Struct in a type, itself too."""
    if isinstance(kind, type) and issubclass(kind, Struct) and kind not in seen:
        seen.add(kind)
        yield kind
        for field in msgspec.structs.fields(kind):
            yield from parts_of(field.type, seen)
    for argument in getattr(kind, "__args__", ()):
        yield from parts_of(argument, seen)
