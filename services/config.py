"""How a service reads its settings: one frozen Struct, each field from the environment, validated once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import msgspec
from msgspec import Meta, Struct

from protocol.query import SettingInForce
from services.setting_names import OTHERS, SETTINGS
from services.setting_words import example, shown, taken, written

PREFIX = "ERRAND_"
DAY_SECONDS = 86_400
WEEK_SECONDS = 7 * DAY_SECONDS
"""What is to be longer was meant in other units."""

Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Bytes = Annotated[int, Meta(ge=1, le=1024**3)]
Seconds = Annotated[float, Meta(gt=0, le=WEEK_SECONDS)]
SecondsOrZero = Annotated[float, Meta(ge=0, le=WEEK_SECONDS)]
Days = Annotated[float, Meta(ge=0, le=36_500)]
LogLevel = Literal["debug", "info", "warning", "error"]

C = TypeVar("C", bound=Struct)


class WrongSetting(SystemExit):
    """A setting's name or value is refused: the process ends with a message that names it, and no traceback."""


def from_environment(config: type[C], environment: Mapping[str, str]) -> C:
    """`config` with its field `port` from `ERRAND_PORT` and so on; a field that is not set keeps its default.

    A name that nobody knows is refused too: a limit that somebody set, and that holds for nothing, is worse than a
    start that fails.
    """
    if wrong := [*unknown(environment), *refusals(config, environment)]:
        raise WrongSetting("\n".join(wrong))
    values = {field: _value(kind, text) for field, kind, text in _given(config, environment)}
    try:
        return config(**values)
    except ValueError as error:  # of a check of the settings' own, which names what it means
        raise WrongSetting(str(error)) from None


def unknown(environment: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that looks like a setting and is none."""
    names = sorted(name for name, value in environment.items() if name.startswith(PREFIX) and value)
    return [_is_none(name) for name in names if name not in SETTINGS and name not in OTHERS]


def refusals(config: type[Struct], environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each value that is not taken, and for what has to be set."""
    given = {field for field, _, _ in _given(config, environment)}
    for field in msgspec.structs.fields(config):
        if field.required and field.name not in given:
            yield f"{variable(field.name)} is not set, and it has no default."
    defaults = {field.name: field.default for field in msgspec.structs.fields(config)}
    for field, kind, text in _given(config, environment):
        try:
            _value(kind, text)
        except ValueError:
            yield _is_not_taken(variable(field), text, kind, defaults[field])


def in_force(*configs: Struct, **secrets: str) -> tuple[SettingInForce, ...]:
    """For `errand doctor`: what these settings are, and whether those secrets are set."""
    plain = {
        name: SettingInForce(name, shown(written(value)), is_default=value == field.default)
        for config in configs
        for field in msgspec.structs.fields(config)
        for name, value in ((variable(field.name), getattr(config, field.name)),)
    }
    hidden = {name: SettingInForce(name, "set" if text else "", is_default=not text) for name, text in secrets.items()}
    return tuple((plain | hidden).values())


def variable(field: str) -> str:
    """The name of a field's environment variable."""
    return PREFIX + field.upper()


def _given(config: type[Struct], environment: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """What is set, as field, type and text."""
    kinds = get_type_hints(config, include_extras=True)
    names = {field.name: variable(field.name) for field in msgspec.structs.fields(config)}
    return [(field, kinds[field], environment[name]) for field, name in names.items() if environment.get(name)]


def _value(kind: Any, text: str) -> Any:
    """ValueError where it is not taken."""
    value = msgspec.convert(text, kind, strict=False)
    if isinstance(value, float) and not isfinite(value):  # `nan` is within all limits
        raise ValueError(text)
    return value


def _is_not_taken(name: str, text: str, kind: Any, default: Any) -> str:
    one = example(kind, default)
    return f'{name}: "{shown(text)}" is not {taken(kind)}' + (f". For example: {name}={one}" if one else "")


def _is_none(name: str) -> str:
    from difflib import get_close_matches

    rests = [setting.removeprefix(PREFIX) for setting in SETTINGS]
    meant = get_close_matches(name.removeprefix(PREFIX).upper(), rests, n=1)
    what_to_do = f"Did you mean {PREFIX}{meant[0]}?" if meant else "docs/settings.md has all there are: take it out."
    return f"{name} is no setting. {what_to_do}"
