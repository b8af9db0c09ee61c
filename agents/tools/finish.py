"""`finish`: the model says that the turn's work is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from agents.tools.base import Hands, ToolError
from protocol.journal import ToolResult


class FinishInput(Struct, frozen=True):
    summary: str
    commit_message: str = ""


class Finish:
    name = "finish"
    definition: Mapping[str, Any] = {
        "name": "finish",
        "description": (
            "Say that the work is done, after you checked it. Errand then commits whatever changed, pushes a branch "
            "and shows the user your summary. Call it alone, as the last call."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "summary": {
                    "type": "string",
                    "description": "What you did and how you checked it, in Markdown, for a phone.",
                },
                "commit_message": {
                    "type": "string",
                    "description": "A subject line of at most 72 characters, and a body.",
                },
            },
            "required": ["summary", "commit_message"],
            "additionalProperties": False,
        },
    }
    input_type = FinishInput
    resumable = survives = False

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return False

    async def run(self, given: FinishInput, hands: Hands) -> ToolResult:
        if not given.summary.strip():
            raise ToolError("Not finished: `summary` is empty.")
        return ToolResult(text="The turn is finished.")
