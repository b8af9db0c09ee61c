"""Anything, read off bytes: hypothesis makes the bytes, and makes them shorter and smaller when a test fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import msgspec.inspect as shapes
from msgspec import Struct

from tests.unit.desk import NOW

T = TypeVar("T")
WORDS = ("a", "b", "")
NUMBERS = (0, 1, 2, -1, 1000)
SECONDS = (0.0, 1.0, 60.0, -1.0, 100_000.0)


class Drawn:
    """Choices, a byte each. Past the end every choice is the first one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def below(self, count: int) -> int:
        byte = 0 if self.over else self._data[self._at]
        self._at += 1
        return byte % count

    def of(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def message(self, kind: type[Struct], known: Mapping[str, Sequence[Any]]) -> Any:
        """A message of class `kind`: a field that `known` names gets one of the values there (`Kind.field` before
        `field`), any other something of its type or its default."""
        values = {}
        for field in _fields(kind):
            name = field.encode_name
            if choices := known.get(f"{kind.__name__}.{name}", known.get(name)):
                values[name] = self.of(choices)
            elif field.required or self.below(2):
                values[name] = self._value(field.type)
        return kind(**values)

    def _value(self, shape: shapes.Type) -> Any:
        match shape:
            case shapes.StructType(cls=cls):
                return self.message(cls, {})
            case shapes.UnionType(types=types):
                return self._value(self.of([t for t in types if not isinstance(t, shapes.CustomType)]))
            case shapes.VarTupleType(item_type=item):
                return tuple(self._value(item) for _ in range(self.below(3)))
            case shapes.DictType(value_type=item):
                return {word: self._value(item) for word in WORDS[: self.below(3)]}
            case shapes.EnumType(cls=cls):
                return self.of([*cls])
            case shapes.LiteralType(values=values):
                return self.of(values)
            case shapes.NoneType():
                return None
            case shapes.BoolType():
                return self.of((False, True))
            case shapes.IntType():
                return self.of(NUMBERS)
            case shapes.FloatType():
                return self.of(SECONDS)
            case shapes.DateTimeType():
                return NOW + timedelta(seconds=self.of(SECONDS))
            case shapes.StrType() | shapes.AnyType():
                return self.of(WORDS)
        raise TypeError(f"how is {shape} drawn?")


@cache
def _fields(kind: type[Struct]) -> tuple[shapes.Field, ...]:
    shape = shapes.type_info(kind)
    assert isinstance(shape, shapes.StructType)
    return shape.fields
