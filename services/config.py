"""How a service reads its settings: one frozen Struct, each field from the environment, validated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

PREFIX = "ERRAND_"

Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
SecondsOrZero = Annotated[float, Meta(ge=0)]
LogLevel = Literal["debug", "info", "warning", "error"]

C = TypeVar("C", bound=Struct)


class WrongSetting(SystemExit):
    """A setting's value is refused: the process ends with a message that names the setting, and no traceback."""


def from_environment(config: type[C], environment: Mapping[str, str]) -> C:
    """`config` with its field `port` from `ERRAND_PORT` and so on; a field that is not set keeps its default."""
    values: dict[str, str] = {}
    for field in msgspec.structs.fields(config):
        name = variable(field.name)
        if environment.get(name):
            values[field.name] = environment[name]
        elif field.required:
            raise WrongSetting(f"{name} is not set, and it has no default.")
    try:
        return msgspec.convert(values, config, strict=False)
    except msgspec.ValidationError as error:
        raise WrongSetting(_named(str(error))) from None


def variable(field: str) -> str:
    """The name of a field's environment variable."""
    return PREFIX + field.upper()


def _named(message: str) -> str:
    """msgspec says `... - at `$.port``; people look for the variable that they set."""
    text, _, path = message.rpartition(" - at `$.")
    return f"{variable(path.rstrip('`'))}: {text}" if path else message
