"""`process`: what runs in the background of the sandbox while the work goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from agents.contract import Process
from agents.tools.base import Hands, ToolError, shorten
from protocol.journal import ToolResult


class ProcessInput(Struct, frozen=True):
    action: Literal["start", "list", "read", "stop"]
    command: str = ""
    number: int = 0


class Processes:
    name = "process"
    definition: Mapping[str, Any] = {
        "name": "process",
        "description": (
            "Background processes in the sandbox, such as a server or a watcher: `start` one by a shell command, in "
            "the folder where bash is (without its variables), `list` them, `read` what one has said since it was "
            "last read, `stop` one with all it started. They end with the sandbox."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "action": {"enum": ["start", "list", "read", "stop"]},
                "command": {"type": "string", "description": "To start."},
                "number": {"type": "integer", "description": "Of the process to read or stop."},
            },
            "required": ["action"],
            "additionalProperties": False,
        },
    }
    input_type = ProcessInput
    resumable = survives = False

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return raw.get("action") in ("start", "stop")

    async def run(self, given: ProcessInput, hands: Hands) -> ToolResult:
        match given.action:
            case "start":
                if not given.command.strip() or "\0" in given.command:
                    raise ToolError("Not started: `command` must be a shell command.")
                started = await hands.sandbox.start_process(given.command)
                return ToolResult(text=f"Started as process {started.number}.")
            case "list":
                lines = [_line(process) for process in await hands.sandbox.processes()]
                return ToolResult(text="\n".join(lines) or "There is no background process.")
            case "read":
                return _told(await hands.sandbox.read_process(given.number))
            case "stop":
                return _told(await hands.sandbox.stop_process(given.number))


def _line(process: Process) -> str:
    unread = f", {process.unread_bytes} bytes to read" if process.unread_bytes else ""
    return f"{process.number}: {_state(process)}{unread}: {process.command}"


def _told(process: Process) -> ToolResult:
    output, dropped = shorten(process.output)
    text = "\n".join(filter(None, (output.rstrip("\n"), f"[process {process.number}: {_state(process)}]")))
    return ToolResult(text=text, exit_code=process.exit_code, dropped_bytes=dropped + process.dropped_bytes)


def _state(process: Process) -> str:
    if process.running:
        return f"running for {process.seconds:.0f} s"
    return f"{process.ended_by or f'exit code {process.exit_code}'} after {process.seconds:.0f} s"
