"""Which settings hold: those that the server was started with, beside those of the shell of `errand doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from shlex import quote

from msgspec import Struct

from protocol.query import Check, SettingInForce
from services.setting_words import shown

OF_ITS_PLACE = frozenset(
    f"ERRAND_{name}"
    for name in (
        "ALLOW_HTTP",
        "BIND",
        "DATA",
        "GITHUB_CLIENT_SECRET_FILE",
        "HEALTH_FILE",
        "NATS_PASSWORD_FILE",
        "NATS_URL",
        "PORT",
        "PUBLIC_URL",
        "SCRIPTED",
        "TRUSTED_PROXIES",
    )
)
"""What `errand up` and compose.yaml tell each process: it need not be what a shell has."""
MEANS = {"true": 1.0, "false": 0.0}


class Told(Struct, frozen=True):
    """Of one service, by `GET /api/doctor`."""

    service: str
    settings: tuple[SettingInForce, ...]
    process: str = ""


def in_the_server(told: tuple[Told, ...]) -> Check:
    """What is not as docs/settings.md has it by itself."""
    values: dict[str, dict[str, list[str]]] = {}
    for one in told:
        for setting in one.settings:
            if not setting.is_default and setting.name not in OF_ITS_PLACE:
                values.setdefault(setting.name, {}).setdefault(setting.value, []).append(one.service)
    said = ", ".join(f"{name}={_by_service(values[name])}" for name in sorted(values))
    started = f"{said}; others have their defaults" if said else "the defaults"
    return Check("settings", "ok", f"the server was started with {started}")


def differing(told: tuple[Told, ...], environment: Mapping[str, str]) -> Iterator[Check]:
    """A line for each setting that this shell has and the server has otherwise."""
    for name in sorted(environment):
        here = shown(environment[name])
        there = {s.value: None for one in told for s in one.settings if s.name == name and not _means(s.value, here)}
        if here and there and name not in OF_ITS_PLACE:
            values = " or ".join(quote(text) if text else "nothing" for text in there)
            text = f"this shell has {name}={quote(here)}, but the server was started with {values}, and that holds"
            yield Check("settings", "warn", text)


def wrong_here(environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each setting of this shell with which no service would start."""
    from services.config import PREFIX, refusals, unknown
    from services.settings_page import CONFIGS

    yield from unknown(environment)
    if any(name.startswith(PREFIX) for name in environment):
        # What has to be set is told to each service by who starts it.
        given = {"ERRAND_DATA": "/", "ERRAND_SERVER": "/"} | {name: text for name, text in environment.items() if text}
        yield from dict.fromkeys(sentence for config in CONFIGS for sentence in refusals(config, given))


def _by_service(services: Mapping[str, list[str]]) -> str:
    if len(services) == 1:
        return quote(next(iter(services)))
    return " or ".join(f"{quote(value)} ({', '.join(names)})" for value, names in services.items())


def _means(one: str, other: str) -> bool:
    """Whether two texts say the same: `2` and `2.0`, `1` and `true`."""
    return one == other or (_number(one) is not None and _number(one) == _number(other))


def _number(text: str) -> float | None:
    try:
        return MEANS.get(text.lower()) if text.lower() in MEANS else float(text)
    except ValueError:
        return None
