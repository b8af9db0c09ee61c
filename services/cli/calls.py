"""A tool call as one line that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from services.cli.text import one_line

WORKSPACE = "/workspace/"
LIMIT_CHARS = 400
EDITS = {"view": "read", "create": "write", "str_replace": "edit", "insert": "edit"}


def describe(name: str, given: Mapping[str, Any]) -> str:
    """Such as `$ python -m unittest` or `edit src/x.py`. `given` is what a model wrote: any shape."""
    return one_line(_describe(name, given), LIMIT_CHARS)


def _describe(name: str, given: Mapping[str, Any]) -> str:
    match name:
        case "bash":
            return "restart the shell" if given.get("restart") else f"$ {_text(given, 'command')}"
        case "process":
            return _process(given)
        case "str_replace_based_edit_tool":
            return f"{EDITS.get(_text(given, 'command'), 'edit')} {_path(given)}{_range(given)}"
        case "grep":
            where = " ".join(filter(None, (_where(given), _text(given, "include"))))
            return f'grep "{_text(given, "pattern")}"{f" in {where}" if where else ""}'
        case "glob":
            return f"list {_text(given, 'pattern')}"
        case "ask_user":
            return f"ask: {_text(given, 'question')}"
        case "todo":
            return "plan"
        case "finish":
            return "finish"
        case _:
            return f"{name} {msgspec.json.encode(given).decode()}"


def _process(given: Mapping[str, Any]) -> str:
    match given.get("action"):
        case "start":
            return f"in the background: $ {_text(given, 'command')}"
        case "list":
            return "list background processes"
        case _:
            return f"{_text(given, 'action')} background process {_text(given, 'number')}"


def _text(given: Mapping[str, Any], field: str) -> str:
    value = given.get(field, "")
    return value if isinstance(value, str) else str(value)


def _path(given: Mapping[str, Any]) -> str:
    return _text(given, "path").removeprefix(WORKSPACE) or "?"


def _where(given: Mapping[str, Any]) -> str:
    where = _text(given, "path").removeprefix(WORKSPACE)
    return "" if where in (".", "/workspace") else where


def _range(given: Mapping[str, Any]) -> str:
    lines = given.get("view_range")
    return f":{lines[0]}-{lines[1]}" if isinstance(lines, list) and len(lines) == 2 else ""
