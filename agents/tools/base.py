"""What a tool is: a definition in the API's shape, an input that is checked, and one function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from agents.contract import Desk, Sandbox, SandboxRefused
from protocol.journal import ToolResult

OUTPUT_LIMIT_BYTES = 64 * 1024
"""Of a tool's answer, at most this much reaches the model and the journal."""

Say = Callable[[str], Awaitable[None]]


class Hands(Struct, frozen=True, kw_only=True):
    """What a tool works with during one call."""

    sandbox: Sandbox
    desk: Desk
    step: int
    say: Say
    """Shows a piece of output while the call runs."""
    resumes: bool = False
    """An attempt before has begun this call, in the sandbox as it is now."""


class Tool(Protocol):
    """A stateless tool; its input's Struct is the check of what the model sent."""

    name: str
    definition: Mapping[str, Any]
    survives: bool
    """True where a call goes on in the sandbox when its attempt ends, and tells the next one how it ended."""
    resumable: bool
    """True where the same call may be made again after a crash because the effect has an id of its own."""

    @property
    def input_type(self) -> type[Struct]: ...

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool: ...

    async def run(self, given: Any, hands: Hands) -> ToolResult:
        """`given` is an `input_type`. Raises ToolError, OSError, SandboxRefused (told to the model), SandboxGone."""
        ...


class CallLost(Exception):
    """How the call that another attempt began has ended cannot be known. The message says why."""


class ToolError(Exception):
    """What the model did wrong, in a sentence that says what would be right."""


async def use(tool: Tool, raw: Mapping[str, Any], hands: Hands) -> ToolResult:
    """Run one call. Whatever is wrong with it is an answer to the model."""
    try:
        return await tool.run(msgspec.convert(raw, tool.input_type), hands)
    except msgspec.ValidationError as error:
        return wrong(f"Not run, the input of {tool.name} is wrong: {error}.")
    except (ToolError, SandboxRefused) as error:
        return wrong(str(error))
    except OSError as error:
        return wrong(f"{error.strerror or type(error).__name__}: {error.filename or error}")


def wrong(text: str) -> ToolResult:
    return ToolResult(text=text, is_error=True)


def shorten(text: str, limit_bytes: int = OUTPUT_LIMIT_BYTES) -> tuple[str, int]:
    """`text` with its middle cut out where it is too long, and how many bytes were cut."""
    data = text.encode(errors="replace")
    if len(data) <= limit_bytes:
        return text if text.isascii() else data.decode(), 0
    half = limit_bytes // 2
    head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    dropped = len(data) - len(head.encode()) - len(tail.encode())
    return f"{head}\n[… {dropped} bytes left out …]\n{tail}", dropped
