"""How a scenario is written, and how it is played over a conversation."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from typing import Any

from msgspec import Struct

from agents.models.scripted import sign

SIGNATURE_LINE = "scripted, not Claude"
NOTICE = re.compile(r"<errand-notice>.*?</errand-notice>", re.DOTALL)
EFFECTS_LOST = "is lost:"
"""Stands in the notice about a workspace that was restored to an earlier state."""
TRIES = 4


class Call(Struct, frozen=True):
    """A tool call of the model's."""

    name: str
    input: dict[str, Any]


class Say(Struct, frozen=True):
    """A message of the model's; without calls it ends the turn."""

    text: str
    calls: tuple[Call, ...] = ()
    thinking: str = "I follow a script; I am not Claude."


class Result(Struct, frozen=True):
    text: str
    is_error: bool = False


class Heard(Struct, frozen=True):
    """What came back: the results in the order of the calls, and what the user said meanwhile."""

    results: tuple[Result, ...] = ()
    texts: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def effects_lost(self) -> bool:
        return any(EFFECTS_LOST in text for text in self.notices)

    @property
    def text(self) -> str:
        return "\n".join(result.text for result in self.results)

    @property
    def failed(self) -> bool:
        return any(result.is_error for result in self.results)


Script = Generator[Say, Heard, None]
Part = Generator[Say, Heard, Heard]
"""A piece of a script, for `yield from`; it returns what was heard last."""
Scenario = Callable[[str], Script]
"""Gets the prompt. The same prompt and the same answers must give the same script."""


def call(name: str, **given: Any) -> Call:
    return Call(name, given)


def bash(command: str) -> Call:
    return call("bash", command=command)


def edit(command: str, path: str, **given: Any) -> Call:
    return call("str_replace_based_edit_tool", command=command, path=path, **given)


def finish(summary: str, subject: str) -> Call:
    """Ends the turn; both texts say who wrote them."""
    return call(
        "finish",
        summary=f"{summary}\n\n_{SIGNATURE_LINE}_",
        commit_message=f"{subject}\n\nWritten-by: {SIGNATURE_LINE}",
    )


def do(text: str, *calls: Call) -> Part:
    """Make the calls, again as long as one of them has no outcome (a crash) or was not run because of that."""
    heard = yield Say(text, calls)
    texts, notices = heard.texts, heard.notices
    for _ in range(TRIES):
        if not any(_without_outcome(result) for result in heard.results):
            break
        heard = yield Say(f"I try again: {text}", calls)
        texts, notices = texts + heard.texts, notices + heard.notices
    return Heard(heard.results, texts, notices)


def _without_outcome(result: Result) -> bool:
    return result.is_error and (result.text.startswith(("The outcome of this call is unknown", "Not run:")))


def play(scenario_of: Callable[[str], Scenario], messages: Sequence[dict[str, Any]]) -> Say:
    """What the script says next in this conversation. `messages` are checked and alternate."""
    prompt = prompt_of(messages)
    script = scenario_of(prompt)(prompt)
    say = next(script)
    for said, answer in zip(messages[1::2], [*messages[2::2], {"content": []}], strict=False):
        if sign.stop_reason(said) in sign.NOT_IN_THE_SCRIPT:
            continue
        try:
            say = script.send(_heard(said, answer))
        except StopIteration:
            return Say("My script is at its end.")
    return say


def prompt_of(messages: Sequence[dict[str, Any]]) -> str:
    return "\n".join(_heard({"content": []}, messages[0]).texts)


def blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _heard(said: dict[str, Any], answer: dict[str, Any]) -> Heard:
    results = {block["tool_use_id"]: block for block in blocks(answer) if block["type"] == "tool_result"}
    calls = [block["id"] for block in blocks(said) if block["type"] == "tool_use"]
    texts = [block["text"] for block in blocks(answer) if block["type"] == "text"]
    user_texts = [NOTICE.sub("", text).strip() for text in texts]
    return Heard(
        results=tuple(_result(results[one]) for one in calls if one in results),
        texts=tuple(text for text in user_texts if text),
        notices=tuple(found for text in texts for found in NOTICE.findall(text)),
    )


def _result(block: dict[str, Any]) -> Result:
    content = block.get("content", "")
    text = content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content)
    return Result(text, bool(block.get("is_error")))
