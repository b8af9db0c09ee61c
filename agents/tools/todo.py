"""`todo`: the model's plan, which the user sees. Its state is the last call in the journal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from agents.tools.base import Hands
from protocol.journal import ToolResult

MARKS = {"pending": "[ ]", "in_progress": "[>]", "done": "[x]"}


class Item(Struct, frozen=True):
    text: str
    status: Literal["pending", "in_progress", "done"] = "pending"


class TodoInput(Struct, frozen=True):
    items: tuple[Item, ...]


class Todo:
    name = "todo"
    definition: Mapping[str, Any] = {
        "name": "todo",
        "description": "Write down your plan, whole, each time it changes; the user follows your work by it.",
        "input_schema": {
            "type": "object",
            "properties": {
                "items": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"text": {"type": "string"}, "status": {"enum": list(MARKS)}},
                        "required": ["text", "status"],
                        "additionalProperties": False,
                    },
                }
            },
            "required": ["items"],
            "additionalProperties": False,
        },
    }
    input_type = TodoInput
    resumable = survives = False

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return False

    async def run(self, given: TodoInput, hands: Hands) -> ToolResult:
        return ToolResult(text="\n".join(f"{MARKS[item.status]} {item.text}" for item in given.items) or "(no plan)")
