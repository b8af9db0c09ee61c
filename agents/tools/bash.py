"""`bash`: a command in the sandbox, in a shell of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from agents.tools.base import OUTPUT_LIMIT_BYTES, Hands, ToolError, shorten
from protocol.journal import ToolResult

TIMEOUT_SECONDS = 600.0

ENDINGS = {
    "deadline": f"killed: it ran longer than {TIMEOUT_SECONDS:.0f} s. Run it in smaller parts",
    "memory": "killed: the sandbox has no more memory",
    "cancelled": "killed: it was cancelled",
}


class BashInput(Struct, frozen=True):
    command: str = ""
    restart: bool = False


class Bash:
    name = "bash"
    definition: Mapping[str, Any] = {"type": "bash_20250124", "name": "bash"}
    input_type = BashInput
    resumable = False

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return True

    async def run(self, given: BashInput, hands: Hands) -> ToolResult:
        if given.restart:
            return ToolResult(text="Nothing to restart: each command has a shell of its own.")
        if not given.command.strip():
            raise ToolError("Not run: `command` is empty.")
        if "\0" in given.command:
            raise ToolError("Not run: `command` has a NUL character.")
        done = await hands.sandbox.exec(
            given.command,
            timeout_seconds=TIMEOUT_SECONDS,
            output_limit_bytes=OUTPUT_LIMIT_BYTES,
            on_output=hands.say,
        )
        output, dropped = shorten(done.output, 2 * OUTPUT_LIMIT_BYTES)
        dropped += done.dropped_bytes
        return ToolResult(
            text="\n".join(
                filter(None, (output.rstrip("\n"), _left_out(dropped), _ending(done.exit_code, done.ended_by)))
            ),
            is_error=bool(done.ended_by),
            exit_code=done.exit_code,
            dropped_bytes=dropped,
        )


def _left_out(dropped: int) -> str:
    return f"[{dropped} bytes of the output were left out in the middle]" if dropped else ""


def _ending(exit_code: int | None, ended_by: str) -> str:
    if ended_by:
        return f"[{ENDINGS.get(ended_by, f'ended by {ended_by}')}]"
    return f"[exit code {exit_code}]"
