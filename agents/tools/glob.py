"""`glob`: the repository's files by a pattern, in the sandbox."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from agents.tools.base import OUTPUT_LIMIT_BYTES, Hands, ToolError, shorten
from protocol.journal import ToolResult

FILES_LIMIT = 500


class GlobInput(Struct, frozen=True):
    pattern: str


class Glob:
    name = "glob"
    definition: Mapping[str, Any] = {
        "name": "glob",
        "description": (
            f"List the repository's files by a glob, those that git ignores left out, at most {FILES_LIMIT}. "
            "`*` stays in one folder, `**/` goes through all."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "pattern": {"type": "string", "description": "Such as `src/**/*.py`, from the repository's root."}
            },
            "required": ["pattern"],
            "additionalProperties": False,
        },
    }
    input_type = GlobInput
    resumable = survives = False

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return False

    async def run(self, given: GlobInput, hands: Hands) -> ToolResult:
        pattern = given.pattern.removeprefix("/workspace/").removeprefix("./")
        if not pattern or "\0" in pattern:
            raise ToolError("Not run: `pattern` must be a glob such as `**/*.py`.")
        done = await hands.sandbox.exec(
            list_command(pattern), timeout_seconds=60.0, output_limit_bytes=OUTPUT_LIMIT_BYTES
        )
        if done.exit_code != 0:
            raise ToolError(f"The files could not be listed: {done.output.strip() or done.ended_by}")
        files = done.output.splitlines()
        more = f"\n[{len(files) - FILES_LIMIT} more files: narrow the pattern]" if len(files) > FILES_LIMIT else ""
        text, dropped = shorten("\n".join(files[:FILES_LIMIT]) + more)
        return ToolResult(text=text or "No file matches.", exit_code=0, dropped_bytes=done.dropped_bytes + dropped)


def list_command(pattern: str) -> str:
    """git where there is a repository, else find, whose `*` also goes through folders."""
    pathspec, shape = shlex.quote(f":(glob){pattern}"), shlex.quote(f"./{pattern.removeprefix('**/')}")
    return (
        "if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then "
        f"git -c core.quotepath=off ls-files -co --exclude-standard --deduplicate -- {pathspec}; "
        f"else find . -type f -not -path './.git/*' -path {shape} | cut -c3- | sort; fi"
    )
