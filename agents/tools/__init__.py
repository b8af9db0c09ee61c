"""The tools the model has, one file each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.tools.ask_user import AskUser
from agents.tools.base import CallLost, Hands, Tool, ToolError, use, wrong
from agents.tools.bash import Bash
from agents.tools.edit import Edit
from agents.tools.finish import Finish
from agents.tools.glob import Glob
from agents.tools.grep import Grep
from agents.tools.process import Processes
from agents.tools.todo import Todo

ALL: tuple[Tool, ...] = (Bash(), Processes(), Edit(), Grep(), Glob(), Todo(), AskUser(), Finish())
TOOLS: Mapping[str, Tool] = {tool.name: tool for tool in ALL}
DEFINITIONS: tuple[Mapping[str, Any], ...] = tuple(tool.definition for tool in ALL)

__all__ = [
    "DEFINITIONS",
    "TOOLS",
    "CallLost",
    "Hands",
    "Tool",
    "ToolError",
    "changes_workspace",
    "is_resumable",
    "use",
    "wrong",
]


def changes_workspace(name: str, raw: Mapping[str, Any]) -> bool:
    """Whether the call may have left its mark on the workspace."""
    tool = TOOLS.get(name)
    return tool is not None and tool.changes_workspace(raw)


def is_resumable(name: str, *, sandbox_kept: bool) -> bool:
    """Whether a call can be gone on with that another attempt has begun."""
    tool = TOOLS.get(name)
    return tool is not None and (tool.resumable or (tool.survives and sandbox_kept))
