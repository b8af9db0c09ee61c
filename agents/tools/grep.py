"""`grep`: a regular expression over the repository's files, in the sandbox."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from agents.tools.base import OUTPUT_LIMIT_BYTES, Hands, ToolError, shorten
from protocol.journal import ToolResult

LINES_LIMIT = 200
NOTHING_FOUND = 1


class GrepInput(Struct, frozen=True):
    pattern: str
    path: str = "."
    include: str = ""
    ignore_case: bool = False


class Grep:
    name = "grep"
    definition: Mapping[str, Any] = {
        "name": "grep",
        "description": (
            "Search the contents of the repository's files, those that git ignores left out. Answers `path:line:text`, "
            f"at most {LINES_LIMIT} lines."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "description": "An extended regular expression (POSIX ERE)."},
                "path": {"type": "string", "description": "A file or folder; the whole repository when absent."},
                "include": {
                    "type": "string",
                    "description": "Only files whose path matches this glob, such as `*.py`.",
                },
                "ignore_case": {"type": "boolean"},
            },
            "required": ["pattern"],
            "additionalProperties": False,
        },
    }
    input_type = GrepInput
    resumable = survives = False

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return False

    async def run(self, given: GrepInput, hands: Hands) -> ToolResult:
        if not given.pattern or "\0" in given.pattern + given.path + given.include:
            raise ToolError("Not run: `pattern` must not be empty, and nothing may have a NUL character.")
        done = await hands.sandbox.exec(
            search_command(given), timeout_seconds=60.0, output_limit_bytes=OUTPUT_LIMIT_BYTES
        )
        if done.exit_code == NOTHING_FOUND and not done.output.strip():
            return ToolResult(text="No match.", exit_code=done.exit_code)
        if done.exit_code not in (0, NOTHING_FOUND):
            raise ToolError(f"The search failed: {done.output.strip() or done.ended_by}")
        lines = done.output.splitlines()
        more = f"\n[{len(lines) - LINES_LIMIT} more lines: narrow the search]" if len(lines) > LINES_LIMIT else ""
        text, dropped = shorten("\n".join(lines[:LINES_LIMIT]) + more)
        return ToolResult(text=text, exit_code=0, dropped_bytes=done.dropped_bytes + dropped)


def search_command(given: GrepInput) -> str:
    """ripgrep where there is one, else git, else grep; what is the model's is quoted, behind `-e` or `--`."""
    pattern, path, case = shlex.quote(given.pattern), shlex.quote(_here(given.path)), "-i " if given.ignore_case else ""
    rg_include = f"-g {shlex.quote(given.include)} " if given.include else ""
    grep_include = f"--include={shlex.quote(given.include)} " if given.include else ""
    git_path = _git_path(given)
    return (
        "if command -v rg >/dev/null; then "
        f"rg -n --no-heading --color never --hidden -g '!.git' --sort path {case}{rg_include}-e {pattern} -- {path}; "
        "elif git rev-parse --is-inside-work-tree >/dev/null 2>&1; then "
        f"git -c core.quotepath=off grep -nIE --untracked --no-color {case}-e {pattern} -- {git_path}; "
        f"else grep -rnIE --exclude-dir=.git {case}{grep_include}-e {pattern} -- {path}; fi"
    )


def _here(path: str) -> str:
    """From the repository's root, where the command starts: without a sandbox there is no /workspace."""
    if path == "/workspace" or path.startswith("/workspace/"):
        path = path.removeprefix("/workspace").strip("/")
    return path.removeprefix("./") or "."


def _git_path(given: GrepInput) -> str:
    """One pathspec for folder and glob: several of them would be joined by `or`."""
    if not given.include:
        return shlex.quote(_here(given.path))
    folder = _here(given.path).removeprefix(".")
    deep = given.include if "/" in given.include else f"**/{given.include}"
    return shlex.quote(f":(glob){folder}/{deep}" if folder else f":(glob){deep}")
