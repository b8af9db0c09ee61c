"""How a service reads its settings: one frozen Struct, each field from the environment, validated once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

PREFIX = "ERRAND_"

Count = Annotated[int, Meta(ge=1)]
CountOrZero = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Days = Annotated[float, Meta(ge=0)]
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
        raise WrongSetting(_named(config, str(error))) from None


def variable(field: str) -> str:
    """The name of a field's environment variable."""
    return PREFIX + field.upper()


def _named(config: type[Struct], message: str) -> str:
    """msgspec says `... - at `$.port``; people look for the variable that they set, and for what it may be."""
    text, at, path = message.rpartition(" - at `$.")
    if not at:
        return message  # of a check of the settings' own, which names what it means
    field = path.rstrip("`")
    return f"{variable(field)}: {_wanted(text, get_type_hints(config, include_extras=True)[field])}"


def _wanted(text: str, kind: Any) -> str:
    if get_origin(kind) is Annotated:
        kind, *metas = get_args(kind)
        said = [meta.description for meta in metas if meta.pattern and meta.description]
        if said and "matching regex" in text:
            return f"Expected {said[0]}"
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{text}: choose {', '.join(others)} or {last}"
    if text.endswith("got `str`"):  # every value is one, of which msgspec makes what is wanted
        return "Expected " + {bool: "1 or 0", int: "a whole number", float: "a number"}.get(kind, text)
    return text
