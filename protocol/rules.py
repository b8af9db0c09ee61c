"""What a user lets the agent do unasked: rules over tool calls."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from protocol.base import Part, encode

RULES_LIMIT = 100
"""Rules a user or a task may have."""
RULES_LIMIT_BYTES = 64 * 1024
"""Those of a user, or of a task, in JSON: a hundred of the longest in ASCII fit. An attempt is granted with both."""
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


def too_many(rules: Sequence[Rule]) -> str:
    """Why nobody can have so many rules; empty when that is possible."""
    if len(rules) > RULES_LIMIT:
        return (
            f"There are {len(rules):,} rules and the limit is {RULES_LIMIT}: one pattern with `*` may stand for many."
        )
    if (size := len(encode(rules))) > RULES_LIMIT_BYTES:
        return f"The rules have {size:,} bytes in JSON and the limit is {RULES_LIMIT_BYTES:,}: shorten their patterns."
    return ""
