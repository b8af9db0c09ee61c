"""What a setting takes, in words: for who set it to something else, and for the page of all settings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import inspect

SHOWN_CHARS = 80
SECRET = re.compile(r"(?<=//)[^/@\s]+(?=@)|(?<=\?)\S+")
"""Of an address: who signs in, and what is asked."""


def taken(kind: Any) -> str:
    """`a whole number from 1 to 64`, `1 or 0`, `warn or refuse`, or as its type describes itself."""
    if get_origin(kind) is Literal:
        return _either([str(value) for value in get_args(kind)])
    info, schema = _known(kind)
    match info:
        case inspect.BoolType():
            return "1 or 0"
        case inspect.IntType() | inspect.FloatType() as number:
            return _number(number)
    return str(schema.get("description", "text"))


def example(kind: Any, default: Any) -> str:
    """A value that is taken; empty where nothing is known that would help."""
    _, schema = _known(kind)
    if examples := schema.get("examples"):
        return str(examples[0])
    return "" if default in (None, msgspec.NODEFAULT) else written(default)


def written(value: Any) -> str:
    """A value as it stands in the environment."""
    match value:
        case None:
            return ""
        case bool() | float() if value == int(value):
            return str(int(value))
    return str(value)


def shown(value: str) -> str:
    """For people and logs: in one line, not too long, and of an address without what may be secret in it."""
    text = SECRET.sub("…", "".join(one if one.isprintable() else "?" for one in value))
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"


def _known(kind: Any) -> tuple[inspect.Type, dict[str, Any]]:
    """Its type, of an optional one what it is otherwise, and what its `Meta` says for people."""
    info, schema = inspect.type_info(kind), {}
    if isinstance(info, inspect.UnionType):
        info = next(one for one in info.types if not isinstance(one, inspect.NoneType))
    if isinstance(info, inspect.Metadata):
        info, schema = info.type, info.extra_json_schema or {}
    return info, schema


def _number(number: inspect.IntType | inspect.FloatType) -> str:
    kind = "a whole number" if isinstance(number, inspect.IntType) else "a number"
    match number.ge, number.gt, number.le:
        case None, None, None:
            return kind
        case None, above, most if above is not None:
            return f"{kind} above {written(above)}" + (f", at most {written(most)}" if most is not None else "")
        case least, _, None:
            return f"{kind}, at least {written(least)}"
        case least, _, most:
            return f"{kind} from {written(least)} to {written(most)}"


def _either(values: Iterable[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last
