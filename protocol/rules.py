"""What a user lets the agent do unasked: rules over tool calls."""

from __future__ import annotations

from enum import StrEnum

from protocol.base import Part

RULES_LIMIT = 100
"""Rules a user or a task may have."""
PATTERN_LIMIT_CHARS = 500
EVERY_TOOL = "*"
RULED_TOOLS = (EVERY_TOOL, "bash", "edit", "view", "grep", "glob", "finish")
"""What a rule may name. `view` is the reading part of the edit tool; `finish` is what commits and pushes the work. To
ask the user and to keep a plan act on nothing, so that no rule reaches them."""


class RuleAction(StrEnum):
    ALLOW = "allow"
    ASK = "ask"
    """The user approves the call or denies it, and the turn waits meanwhile."""
    DENY = "deny"
    """The model is told that the call was not run. To finish is asked for instead: or no turn could end."""


class Rule(Part, frozen=True):
    """Of a list, the first rule that matches a tool call decides; where none does, it is allowed."""

    action: RuleAction
    tool: str = EVERY_TOOL
    """One of `RULED_TOOLS`."""
    pattern: str = "*"
    """A glob over the command, or over the path from the repository's root; `*` stands for `/` and line breaks too."""
