"""What a user says to the agent, with its limits: a prompt, a message, an answer."""

from __future__ import annotations

from protocol.base import encode

PROMPT_LIMIT_CHARS = 100_000
"""The longest prompt, message or answer of a user."""
PROMPT_LIMIT_BYTES = 300_000
"""The same as it travels, in JSON: 100,000 characters have room in any living script, of control characters half as
many. With all else that a task may have it fits into one message (`services/scheduler/decide/submit.py`)."""


def wrong_text(text: str, what: str) -> str:
    """Why a user cannot say this to the agent; empty when that is possible."""
    if not text.strip():
        return f"The {what} is empty: say what is to be done."
    if len(text) > PROMPT_LIMIT_CHARS:
        return _too_long(what, f"{len(text):,} characters", PROMPT_LIMIT_CHARS)
    if (size := len(encode(text)) - len('""')) > PROMPT_LIMIT_BYTES:
        return _too_long(what, f"{size:,} bytes in JSON", PROMPT_LIMIT_BYTES)
    return ""


def _too_long(what: str, size: str, limit: int) -> str:
    return f"The {what} has {size} and the limit is {limit:,}: shorten it, or put the rest in a file of the repository."
