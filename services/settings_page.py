"""The services' Config Structs -> `docs/settings.md`, and the names of all settings -> `services/setting_names.py`.
`python -m services.settings_page` writes both, `--check` compares."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any, get_type_hints

import msgspec
from msgspec import Struct

from gateway.config import Config as Gateway
from protocol.generate import docstrings, files
from protocol.generate.markdown import table
from sandbox.config import Config as Sandboxes
from services.bus import BusConfig
from services.config import PREFIX, variable
from services.github import GithubConfig
from services.history.service import Config as History
from services.repos.service import Config as Repos
from services.runner.runner import Config as Runner
from services.scheduler.scheduler import Config as Scheduler
from services.setting_words import taken, written
from services.up import INHERITED
from services.welcome import Config as Welcome

PAGE = files.DOCS / "settings.md"
NAMES = files.ROOT / "services" / "setting_names.py"
SERVICES: dict[str, type[Struct]] = {
    "gateway": Gateway,
    "scheduler": Scheduler,
    "runner": Runner,
    "repos": Repos,
    "history": History,
}
"""What each service reads besides `BusConfig`, in the order of the flow."""
CONFIGS = (BusConfig, GithubConfig, *SERVICES.values(), Sandboxes, Welcome)
"""All that is read from the environment."""
SET_BY_UP = frozenset(
    {"data", "nats_url", "nats_password_file", "bind", "port", "public_url", "allow_http", "scripted"}
)
OF_ERRAND = {
    "ANTHROPIC_API_KEY": "The key for Claude. `errand up` gives it to the runner alone; without it the scripted model "
    "answers.",
    "ERRAND_DATA": "The data folder (`--data`); `~/.local/share/errand` when it is not set.",
    "ERRAND_BIND, ERRAND_PORT, ERRAND_PUBLIC_URL, ERRAND_ALLOW_HTTP": "As the gateway's, or `--bind`, `--port`, "
    "`--public-url`, `--allow-http`.",
    "ERRAND_NATS_URL": "For `errand up`: use this NATS server instead of starting one.",
    "ERRAND_SERVER, ERRAND_TOKEN": "The server that a command speaks to and the device's token there, instead of what "
    "`errand login` wrote down.",
    "ERRAND_DEBUG": "`1`: a command that fails in a way nobody foresaw shows its traceback.",
}
NOT_SETTINGS = {
    "compose.yaml": ("ERRAND_IMAGE",),
    "a sandbox's environment": ("ERRAND_TASK", "ERRAND_ATTEMPT", "ERRAND_SETUP"),
    "docs/examples": ("ERRAND_CLIENT",),
    "tests and benchmarks": (
        "ERRAND_KILLS",
        "ERRAND_RUNS",
        "ERRAND_SEED",
        "ERRAND_SEEDS",
        "ERRAND_STORY",
        "ERRAND_TASKS",
        "ERRAND_TEST_RUNTIME",
    ),
}
"""Whose the other variables with our prefix are."""
INTRODUCTION = """\
# Settings

Made from the services' `Config` classes by `make generate`; do not edit. Every setting is an environment variable. An
empty one counts as not set. A wrong value, and a variable `ERRAND_…` that is not on this page, end the process with a
sentence that says what was meant: a limit that is misspelt would hold for nothing. What one turn may spend is
not here: it is the task's own budget (`errand submit --help`).

`errand up` hands every `ERRAND_` variable on to every service, and sets those marked † itself. Of the rest of its
environment the services see only {inherited}.
"""


class Setting(Struct, frozen=True):
    """A field of a Config."""

    name: str
    kind: Any
    default: Any
    doc: str


def settings(config: type[Struct]) -> list[Setting]:
    docs = docstrings.of_fields(config)
    hints = get_type_hints(config, include_extras=True)
    return [
        Setting(field.name, hints[field.name], field.default, docs.get(field.name, ""))
        for field in msgspec.structs.fields(config)
    ]


def page() -> str:
    inherited = ", ".join(f"`{name}`" for name in sorted(INHERITED))
    shared = [*settings(BusConfig), *_common()]
    parts = [
        INTRODUCTION.format(inherited=inherited),
        _section("`errand` itself", table(("setting", "what"), _of_errand())),
        _section("Every service", _table(shared)),
    ]
    parts.append(_section("Gateway and repos: GitHub", _table(settings(GithubConfig))))
    for service, config in SERVICES.items():
        own = [setting for setting in settings(config) if setting.name not in {s.name for s in shared}]
        parts.append(_section(service.capitalize(), _table(own)))
    parts.append(_section("Sandboxes, by the runner", _table(settings(Sandboxes))))
    return "\n".join(parts)


def _common() -> list[Setting]:
    """What every service's own Config has too."""
    first, *others = ({s.name: s for s in settings(config)} for config in SERVICES.values())
    return [setting for name, setting in first.items() if all(name in other for other in others)]


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _of_errand() -> Iterable[tuple[str, str]]:
    return ((", ".join(f"`{name}`" for name in names.split(", ")), what) for names, what in OF_ERRAND.items())


def _table(rows: Iterable[Setting]) -> str:
    return table(("setting", "values", "default", "what"), map(_row, rows))


def _row(setting: Setting) -> tuple[str, ...]:
    mark = " †" if setting.name in SET_BY_UP else ""
    return f"`{variable(setting.name)}`{mark}", taken(setting.kind), _default(setting.default), setting.doc


def _default(default: Any) -> str:
    if default is msgspec.NODEFAULT:
        return "must be set"
    return f"`{text}`" if (text := written(default)) else "–"


def names() -> str:
    """A module of its own, which knows no service: every process asks it which variables are settings."""
    fields = {variable(setting.name) for config in CONFIGS for setting in settings(config)}
    errand = {name for names in OF_ERRAND for name in names.split(", ") if name.startswith(PREFIX)}
    others = {name for names in NOT_SETTINGS.values() for name in names}
    return "\n\n".join(
        (
            '"""The names of all settings. Made from the `Config` classes by `make generate`; do not edit."""',
            _set("SETTINGS", fields | errand),
            f'{_set("OTHERS", others)}\n"""Not settings: of Compose, of sandboxes, of tests."""\n',
        )
    )


def _set(name: str, members: Iterable[str]) -> str:
    lines = "".join(f'        "{member}",\n' for member in sorted(members))
    return f"{name} = frozenset(\n    {{\n{lines}    }}\n)"


def main(arguments: Sequence[str]) -> int:
    return files.run({PAGE: page(), NAMES: names()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
