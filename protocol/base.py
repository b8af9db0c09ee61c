"""What all messages have in common: how they are tagged and how they are encoded."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

MESSAGE_LIMIT_BYTES = 512 * 1024
"""The largest message on any subject; what is larger goes into the object store and travels by reference."""


def snake(name: str) -> str:
    """`SubmitTask` -> `submit_task`: a class, its tag and its subject's token use the same words."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


class Message(Struct, frozen=True, kw_only=True, tag_field="type", tag=snake, omit_defaults=True, gc=False):
    """A message that others are told apart from by its `type`. An unknown field is ignored, an unknown tag is
    refused."""


class Part(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A piece of a message that never travels alone."""


D = TypeVar("D")
T = TypeVar("T")
_encoder = msgspec.json.Encoder()


def encode(message: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return _encoder.encode(message)


def reader(decode: Callable[[D], T]) -> Callable[[D], T]:
    """`decode`, which says of what is no UTF-8, or nested too deep, the same as of everything else that it cannot read:
    msgspec's own errors there are no MsgspecError, and would end who parks what cannot be read."""

    def read(data: D) -> T:
        try:
            return decode(data)
        except (UnicodeDecodeError, RecursionError) as error:
            raise msgspec.DecodeError(str(error)) from None

    return read


def tag_of(message: Struct | type[Struct]) -> str:
    """The `type` under which a message travels."""
    tag = message.__struct_config__.tag
    assert isinstance(tag, str)
    return tag
