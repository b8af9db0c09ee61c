"""`bash`: a command in the sandbox's one shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from agents.contract import CommandResult
from agents.tools.base import OUTPUT_LIMIT_BYTES, CallLost, Hands, ToolError, shorten
from protocol.journal import ToolResult

TIMEOUT_SECONDS = 600.0
HOME = "/workspace"

ENDINGS = {
    "deadline": f"killed: it ran longer than {TIMEOUT_SECONDS:.0f} s. Run it in smaller parts, or by `process`",
    "memory": "killed: the sandbox has no more memory",
    "cancelled": "killed: it was cancelled",
    "shell": "nobody knows how: it left the shell unable to run anything (`ulimit -n`, `set -n`). Give such a setting "
    "to one program, by `bash -c`",
}
NEW = f"[a new shell, in {HOME}: folder, variables and functions of the last one are gone]"
ENDED = f"[the shell ended with this command: the next one gets a new shell, in {HOME}]"


class BashInput(Struct, frozen=True):
    command: str = ""
    restart: bool = False


class Bash:
    name = "bash"
    definition: Mapping[str, Any] = {"type": "bash_20250124", "name": "bash"}
    input_type = BashInput
    resumable = False
    survives = True

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return not raw.get("restart")

    async def run(self, given: BashInput, hands: Hands) -> ToolResult:
        if given.restart and hands.resumes:
            raise CallLost("the runner ended before the shell was new")
        if given.restart:
            await hands.sandbox.restart_shell()
            return ToolResult(text=f"The next command gets a new shell, in {HOME}.")
        if not given.command.strip():
            raise ToolError("Not run: `command` is empty.")
        if "\0" in given.command:
            raise ToolError("Not run: `command` has a NUL character.")
        done = await self._done(given.command, hands)
        output, dropped = shorten(done.output, 2 * OUTPUT_LIMIT_BYTES)
        dropped += done.dropped_bytes
        return ToolResult(
            text="\n".join(filter(None, (_found(done), output.rstrip("\n"), _left_out(dropped), _ending(done)))),
            is_error=bool(done.ended_by),
            exit_code=done.exit_code,
            dropped_bytes=dropped,
        )

    async def _done(self, command: str, hands: Hands) -> CommandResult:
        name = f"step {hands.step}"
        if not hands.resumes:
            return await hands.sandbox.shell(
                command,
                timeout_seconds=TIMEOUT_SECONDS,
                output_limit_bytes=OUTPUT_LIMIT_BYTES,
                on_output=hands.say,
                name=name,
            )
        done = await hands.sandbox.resume(
            name, timeout_seconds=TIMEOUT_SECONDS, output_limit_bytes=OUTPUT_LIMIT_BYTES, on_output=hands.say
        )
        if done is None:
            raise CallLost("the runner ended before the command came to the sandbox")
        return done


def _left_out(dropped: int) -> str:
    return f"[{dropped} bytes of the output were left out in the middle]" if dropped else ""


def _found(done: CommandResult) -> str:
    return NEW if done.shell == "new" else ""


def _ending(done: CommandResult) -> str:
    """How it ended, and where the shell is now where that is not where it starts."""
    ending = ENDINGS.get(done.ended_by, f"ended by {done.ended_by}") if done.ended_by else f"exit code {done.exit_code}"
    if done.shell == "ended":
        return f"[{ending}]\n{ENDED}"
    return f"[{ending}]" if done.cwd in ("", HOME) else f"[{ending}, now in {done.cwd}]"
