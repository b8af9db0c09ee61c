"""`str_replace_based_edit_tool`: see and change files, in the commands of Anthropic's `text_editor_20250728`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

from msgspec import Struct

from agents.tools.base import OUTPUT_LIMIT_BYTES, Hands, ToolError, shorten
from protocol.journal import ToolResult

WORKSPACE = PurePosixPath("/workspace")
SNIPPET_LINES = 4
"""Shown before and after a change."""


class EditInput(Struct, frozen=True):
    command: Literal["view", "create", "str_replace", "insert"]
    path: str
    file_text: str | None = None
    old_str: str | None = None
    new_str: str | None = None
    insert_line: int | None = None
    insert_text: str | None = None
    view_range: tuple[int, int] | None = None


class Edit:
    name = "str_replace_based_edit_tool"
    definition: Mapping[str, Any] = {"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}
    input_type = EditInput
    resumable = survives = False

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return raw.get("command") != "view"

    async def run(self, given: EditInput, hands: Hands) -> ToolResult:
        path = locate(given.path)
        match given.command:
            case "view":
                text = await _view(path, given, hands)
            case "create":
                text = await _create(path, given, hands)
            case "str_replace":
                text = await _replace(path, given, hands)
            case "insert":
                text = await _insert(path, given, hands)
        shown, dropped = shorten(text)
        return ToolResult(text=shown, dropped_bytes=dropped)


def locate(path: str) -> str:
    """An absolute path in the sandbox; a relative one counts from the repository."""
    if not path or "\0" in path:
        raise ToolError(f"`path` must be a path such as {WORKSPACE}/README.md.")
    return str(WORKSPACE / path)


async def _view(path: str, given: EditInput, hands: Hands) -> str:
    try:
        lines = (await _read(path, hands)).splitlines()
    except IsADirectoryError:
        return await _list(path, hands)
    if given.view_range is None:
        return _numbered(lines, 1, len(lines)) or "(the file is empty)"
    first, last = given.view_range
    last = len(lines) if last == -1 else min(last, len(lines))
    if not 1 <= first <= max(last, 1):
        raise ToolError(f"`view_range` {list(given.view_range)} is outside of {path}, which has {len(lines)} lines.")
    return _numbered(lines, first, last)


async def _list(path: str, hands: Hands) -> str:
    find = "find . -mindepth 1 -maxdepth 2 -not -path '*/.*' -not -path '*/node_modules/*' | sort"
    done = await hands.sandbox.exec(find, cwd=path, output_limit_bytes=OUTPUT_LIMIT_BYTES)
    return f"{path} is a folder; two levels deep, without hidden ones:\n{done.output}"


async def _create(path: str, given: EditInput, hands: Hands) -> str:
    if given.file_text is None:
        raise ToolError("`create` needs `file_text`.")
    await hands.sandbox.write(path, _encode(given.file_text))
    return f"Wrote {path}: {len(given.file_text.splitlines())} lines."


async def _replace(path: str, given: EditInput, hands: Hands) -> str:
    if not given.old_str:
        raise ToolError("`str_replace` needs a non-empty `old_str`.")
    text = await _read(path, hands)
    at = _occurrences(text, given.old_str)
    if not at:
        hint = (
            " The file's lines end with CRLF, those of `old_str` do not."
            if "\r\n" in text and "\n" in given.old_str
            else ""
        )
        raise ToolError(
            f"Nothing changed: `old_str` does not occur in {path}. It must match exactly, blanks too.{hint}"
        )
    if len(at) > 1:
        lines = ", ".join(str(text.count("\n", 0, index) + 1) for index in at)
        raise ToolError(
            f"Nothing changed: `old_str` occurs {len(at)} times in {path} (lines {lines}). Add context to it."
        )
    new = given.new_str or ""
    changed = text[: at[0]] + new + text[at[0] + len(given.old_str) :]
    await hands.sandbox.write(path, _encode(changed))
    return f"Changed {path}:\n{_snippet(changed, at[0], new)}"


async def _insert(path: str, given: EditInput, hands: Hands) -> str:
    new = given.insert_text if given.insert_text is not None else given.new_str
    if given.insert_line is None or new is None:
        raise ToolError("`insert` needs `insert_line` and `insert_text`.")
    lines = (await _read(path, hands)).splitlines(keepends=True)
    if not 0 <= given.insert_line <= len(lines):
        raise ToolError(
            f"Nothing changed: `insert_line` {given.insert_line} is not within 0 to {len(lines)}, the lines of {path}."
        )
    before, after = "".join(lines[: given.insert_line]), "".join(lines[given.insert_line :])
    if before and not before.endswith("\n"):
        before += "\n"
    if after and not new.endswith("\n"):
        new += "\n"
    await hands.sandbox.write(path, _encode(before + new + after))
    return f"Changed {path}:\n{_snippet(before + new + after, len(before), new)}"


async def _read(path: str, hands: Hands) -> str:
    """The text; bytes that are no UTF-8 survive a change (surrogateescape)."""
    try:
        data = await hands.sandbox.read(path)
    except FileNotFoundError:
        raise ToolError(f"There is no file {path}. Paths start with {WORKSPACE}/.") from None
    if b"\0" in data[:8192]:
        raise ToolError(f"{path} is a binary file of {len(data)} bytes: look at it with bash (`file`, `xxd`).")
    return data.decode(errors="surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _occurrences(text: str, part: str) -> list[int]:
    at, found = text.find(part), []
    while at >= 0:
        found.append(at)
        at = text.find(part, at + 1)
    return found


def _snippet(text: str, start: int, new: str) -> str:
    first = text.count("\n", 0, start) + 1
    lines = text.splitlines()
    return _numbered(lines, max(1, first - SNIPPET_LINES), min(len(lines), first + new.count("\n") + SNIPPET_LINES))


def _numbered(lines: list[str], first: int, last: int) -> str:
    return "\n".join(f"{number:6}\t{lines[number - 1]}" for number in range(first, last + 1))
