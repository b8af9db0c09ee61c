"""Faults on demand: `[fault: <kind> xN @M after=S]` in the prompt, or the same words in the header `scripted-fault`.

The fault is delivered N times (default 1) where the conversation has M-1 messages of the model's (default M = 1);
`after` sets the header `retry-after` in seconds. Kinds: 400 401 403 404 429 500 529 spend-cap slow-retry-after cut
error-in-200 refusal max_tokens pause_turn.
"""

from __future__ import annotations

import re
from collections import OrderedDict

from msgspec import Struct

from agents.models.scripted.strict import Refusal

TAG = re.compile(r"\[fault:\s*([^\]]+)\]")
REMEMBERED_LIMIT = 1024

STATUS = {
    "400": (400, "invalid_request_error", "A fault was asked for."),
    "401": (401, "authentication_error", "invalid x-api-key"),
    "403": (403, "permission_error", "Your API key does not have permission to use the specified resource."),
    "404": (404, "not_found_error", "model: scripted"),
    "429": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    "slow-retry-after": (429, "rate_limit_error", "This request would exceed your organization's rate limit."),
    "spend-cap": (429, "rate_limit_error", "You have reached your specified API usage limits."),
    "500": (500, "api_error", "Internal server error"),
    "529": (529, "overloaded_error", "Overloaded"),
}
RETRY_AFTER = {"429": "0", "slow-retry-after": "30"}
STREAM = ("cut", "error-in-200")
STOPS = ("refusal", "max_tokens", "pause_turn")


class Fault(Struct, frozen=True):
    kind: str
    times: int = 1
    at: int = 1
    after: str = ""

    def refusal(self) -> Refusal | None:
        """For a fault that is an answer of its own."""
        if self.kind not in STATUS:
            return None
        after = self.after or RETRY_AFTER.get(self.kind, "")
        return Refusal(*STATUS[self.kind], headers={"retry-after": after} if after else {})


def asked_for(text: str) -> list[Fault]:
    return [fault for words in TAG.findall(text) if (fault := parse(words)) is not None]


def parse(words: str) -> Fault | None:
    kind, *rest = words.split()
    if kind not in (*STATUS, *STREAM, *STOPS):
        return None
    given = {"x": "1", "@": "1", "after=": ""}
    for word in rest:
        for prefix in given:
            if word.startswith(prefix):
                given[prefix] = word.removeprefix(prefix)
    return Fault(kind, int(given["x"]), int(given["@"]), given["after="])


class Faults:
    """Which of them are still due. Remembers conversations that stand at a fault, until they move on."""

    def __init__(self) -> None:
        self._delivered: OrderedDict[tuple[str, int], int] = OrderedDict()

    def due(self, prompt: str, position: int, asked: list[Fault]) -> Fault | None:
        """`position` is the number of the message that the model is asked for, from 1."""
        for number, fault in enumerate(asked):
            key = (prompt, number)
            if position > fault.at:
                self._delivered.pop(key, None)
            if position == fault.at and self._delivered.get(key, 0) < fault.times:
                self._delivered[key] = self._delivered.get(key, 0) + 1
                while len(self._delivered) > REMEMBERED_LIMIT:
                    self._delivered.popitem(last=False)
                return fault
        return None
