"""Signatures on what the scripted model said, so that altered content is refused, after a restart too.

The key is no secret: the signature stands in for the one on Claude's thinking blocks and guards against mistakes.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgspec

KEY = b"scripted, not Claude"
ID_PREFIX = "toolu_scripted_"
NOT_IN_THE_SCRIPT = ("max_tokens", "pause_turn", "refusal")
"""Stop reasons of messages that a fault put in the script's place."""

_encoder = msgspec.json.Encoder(order="deterministic")


def signature(stop_reason: str, thinking: str, others: list[dict[str, Any]]) -> str:
    bare = [{name: value for name, value in block.items() if name != "cache_control"} for block in others]
    return f"scripted.{stop_reason}.{_digest([stop_reason, thinking, bare])}"


def tool_id(prompt: str, message: int, number: int, name: str) -> str:
    """The same call in the same place of the same conversation has the same id."""
    return ID_PREFIX + _digest([prompt, message, number, name])[:24]


def stop_reason(message: dict[str, Any]) -> str:
    """How the message ended, as its signature says; empty for one that is not ours."""
    given = _signature_in(message)
    return given.split(".")[1] if given.startswith("scripted.") else ""


def fault_in(message: dict[str, Any]) -> str:
    """What the API says about an assistant message that is not as it was sent; else empty, as for another model's."""
    content = message["content"] if isinstance(message["content"], list) else []
    given = _signature_in(message)
    if not given:
        if any(block["type"] == "tool_use" and block["id"].startswith(ID_PREFIX) for block in content):
            return "Expected `thinking` or `redacted_thinking`, but found `tool_use`: thinking blocks must be sent back"
        return ""
    thinking = next(block["thinking"] for block in content if block["type"] == "thinking")
    others = [block for block in content if block["type"] != "thinking"]
    if not given.startswith("scripted.") or not hmac.compare_digest(
        given, signature(stop_reason(message), thinking, others)
    ):
        return "Invalid `signature` in `thinking` block: the assistant's content was altered"
    return ""


def _signature_in(message: dict[str, Any]) -> str:
    content = message["content"] if isinstance(message["content"], list) else []
    return next((block["signature"] for block in content if block["type"] == "thinking"), "")


def _digest(value: Any) -> str:
    return hmac.new(KEY, _encoder.encode(value), hashlib.sha256).hexdigest()
