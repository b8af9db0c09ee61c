"""Limits as people give them: a number, or `unlimited`."""

from __future__ import annotations

from typing import Any

import click
from msgspec import UNSET

UNLIMITED = "unlimited"


class Amount(click.ParamType):
    """A number that is not negative, or "unlimited"."""

    def __init__(self, number: type[int] | type[float]) -> None:
        self.name = "number"
        self._number = number

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float | int | str:
        if value == UNLIMITED:
            return UNLIMITED
        try:
            amount = self._number(str(value))
        except ValueError:
            amount = -1
        if not 0 <= amount < float("inf"):
            kind = "a whole number" if self._number is int else "a number"
            self.fail(f"{value!r} is neither {kind} from 0 nor `{UNLIMITED}`.", param, ctx)
        return amount


def wished(given: Any) -> Any:
    """As the protocol has it: absent means the default, null means unlimited."""
    return UNSET if given is None else None if given == UNLIMITED else given
