"""What the Messages API refuses, refused in its words. Structs check the shape, `check` what hangs together."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from agents.models.scripted import sign

CACHE_BREAKPOINTS_LIMIT = 4


class Refusal(Exception):
    """An error as the API answers it."""

    def __init__(self, status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = headers or {}


def invalid(message: str) -> Refusal:
    return Refusal(400, "invalid_request_error", message)


class Strict(Struct, frozen=True, forbid_unknown_fields=True):
    pass


class CacheControl(Strict, frozen=True):
    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | UnsetType = UNSET


class Cached(Strict, frozen=True):
    cache_control: CacheControl | UnsetType | None = UNSET


class Text(Cached, frozen=True, tag_field="type", tag="text", kw_only=True):
    text: str
    citations: list[Any] | UnsetType | None = UNSET


class Image(Cached, frozen=True, tag_field="type", tag="image", kw_only=True):
    source: dict[str, Any]


class Thinking(Strict, frozen=True, tag_field="type", tag="thinking", kw_only=True):
    thinking: str
    signature: str


class RedactedThinking(Strict, frozen=True, tag_field="type", tag="redacted_thinking", kw_only=True):
    data: str


class ToolUse(Cached, frozen=True, tag_field="type", tag="tool_use", kw_only=True):
    id: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]+$")]
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    input: dict[str, Any]
    caller: dict[str, Any] | UnsetType = UNSET


class ToolResult(Cached, frozen=True, tag_field="type", tag="tool_result", kw_only=True):
    tool_use_id: str
    content: str | list[Text | Image] | UnsetType = UNSET
    is_error: bool | UnsetType = UNSET


class Message(Strict, frozen=True, kw_only=True):
    role: Literal["user", "assistant"]
    content: str | list[Text | Image | Thinking | RedactedThinking | ToolUse | ToolResult]


class CustomTool(Cached, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]
    input_schema: dict[str, Any]
    description: str | UnsetType = UNSET
    type: Literal["custom"] | UnsetType | None = UNSET
    strict: bool | UnsetType = UNSET
    input_examples: list[dict[str, Any]] | UnsetType = UNSET


class BashTool(Cached, frozen=True, kw_only=True):
    type: Literal["bash_20250124"]
    name: Literal["bash"]


class EditTool(Cached, frozen=True, kw_only=True):
    type: Literal["text_editor_20250728"]
    name: Literal["str_replace_based_edit_tool"]
    max_characters: int | UnsetType | None = UNSET


ANTHROPIC_TOOLS = {"bash_20250124": BashTool, "text_editor_20250728": EditTool}


class Request(Strict, frozen=True, kw_only=True):
    """The body of POST /v1/messages."""

    model: Annotated[str, Meta(min_length=1)]
    messages: list[Message]
    max_tokens: Annotated[int, Meta(ge=1)]
    system: str | list[Text] | UnsetType = UNSET
    tools: list[dict[str, Any]] | UnsetType = UNSET
    tool_choice: dict[str, Any] | UnsetType = UNSET
    thinking: dict[str, Any] | UnsetType = UNSET
    stream: bool | UnsetType = UNSET
    cache_control: CacheControl | UnsetType | None = UNSET
    stop_sequences: list[str] | UnsetType = UNSET
    temperature: Annotated[float, Meta(ge=0, le=1)] | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    service_tier: Literal["auto", "standard_only"] | UnsetType = UNSET
    output_config: dict[str, Any] | UnsetType = UNSET


def parse(body: bytes) -> dict[str, Any]:
    """The request as plain JSON, neighbouring messages of one role joined, when all of it is as the API wants it."""
    try:
        raw = msgspec.json.decode(body)
        request = msgspec.convert(raw, Request)
        for tool in request.tools or ():
            msgspec.convert(tool, ANTHROPIC_TOOLS.get(tool.get("type", ""), CustomTool))
    except msgspec.ValidationError as error:
        raise invalid(in_the_apis_words(str(error))) from None
    except msgspec.DecodeError as error:
        raise invalid(f"The request body is not valid JSON: {error}") from None
    names = [tool["name"] for tool in raw.get("tools", ())]
    if len(set(names)) < len(names):
        raise invalid("tools: Tool names must be unique.")
    if (marks := body.count(b'"cache_control":{') + body.count(b'"cache_control": {')) > CACHE_BREAKPOINTS_LIMIT:
        raise invalid(f"A maximum of 4 blocks with cache_control may be provided. Found {marks}.")
    check(raw["messages"])
    return raw | {"messages": joined(raw["messages"])}


def check(messages: list[dict[str, Any]]) -> None:
    """What no Struct can say: roles, empty content, the pairing of tool calls and results, unaltered words."""
    if not messages:
        raise invalid("messages: at least one message is required")
    if messages[0]["role"] != "user":
        raise invalid('messages: first message must use the "user" role')
    for index, message in enumerate(messages):
        _check_content(index, message)
        if message["role"] == "assistant" and (said := sign.fault_in(message)):
            raise invalid(f"messages.{index}.content.0: {said}")
    together = joined(messages)
    for index, message in enumerate(together):
        before = together[index - 1] if index else {"role": "", "content": []}
        _check_results(index, message, _ids(before, "tool_use", "id"))
        if message["role"] == "assistant":
            _check_calls(index, message, together[index + 1] if index + 1 < len(together) else None)
    if together[-1]["role"] == "assistant" and sign.stop_reason(together[-1]) != "pause_turn":
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    ids = [one for message in together for one in _ids(message, "tool_use", "id")]
    if len(set(ids)) < len(ids):
        raise invalid("messages: `tool_use` ids must be unique")


def joined(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The API combines consecutive messages of one role. Of two of the assistant's the later comes first here: how it
    ended is how the combined one ended."""
    together: list[dict[str, Any]] = []
    for message in messages:
        content = message["content"]
        content = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if together and together[-1]["role"] == message["role"]:
            before = together[-1]["content"]
            together[-1] = message | {"content": before + content if message["role"] == "user" else content + before}
        else:
            together.append(message | {"content": content})
    return together


def in_the_apis_words(error: str) -> str:
    """`Object contains unknown field `x` - at `$.a[...]`` -> `a.x: Extra inputs are not permitted`."""
    said, _, at = error.partition(" - at ")
    path = re.sub(r"\[(\.\.\.|\d+)\]", "", at.strip("`")).removeprefix("$").strip(".")
    prefix = f"{path}." if path else ""
    if unknown := re.search(r"unknown field `(.+?)`", said):
        return f"{prefix}{unknown[1]}: Extra inputs are not permitted"
    if missing := re.search(r"missing required field `(.+?)`", said):
        return f"{prefix}{missing[1]}: Field required"
    if least := re.search(r"Expected `int` >= (\d+)", said):
        return f"{path}: Input should be greater than or equal to {least[1]}"
    return f"{path}: {said}" if path else said


def _check_content(index: int, message: dict[str, Any]) -> None:
    content = message["content"]
    if not content:
        raise invalid(f"messages.{index}: {message['role']} messages must have non-empty content")
    texts = [content] if isinstance(content, str) else [b["text"] for b in content if b["type"] == "text"]
    if any(not text for text in texts):
        raise invalid("messages: text content blocks must be non-empty")
    if any(not text.strip() for text in texts):
        raise invalid("messages: text content blocks must contain non-whitespace text")
    wrong = {"user": ("tool_use", "thinking", "redacted_thinking"), "assistant": ("tool_result", "image")}[
        message["role"]
    ]
    for block in content if isinstance(content, list) else ():
        if block["type"] in wrong:
            raise invalid(f"messages.{index}: `{block['type']}` blocks are not allowed in `{message['role']}` messages")


def _check_results(index: int, message: dict[str, Any], asked: list[str]) -> None:
    given = _ids(message, "tool_result", "tool_use_id")
    for one in given:
        if one not in asked:
            raise invalid(
                f"messages.{index}.content: unexpected `tool_use_id` found in `tool_result` blocks: {one}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
    if len(set(given)) < len(given):
        raise invalid(f"messages.{index}.content: each `tool_use` must have a single result")
    kinds = [block["type"] for block in message["content"]]
    if "tool_result" in kinds[len(given) :]:
        raise invalid(f"messages.{index}: `tool_result` blocks must come first in the content of a message")


def _check_calls(index: int, message: dict[str, Any], answer: dict[str, Any] | None) -> None:
    answered = _ids(answer, "tool_result", "tool_use_id") if answer else []
    if orphans := [one for one in _ids(message, "tool_use", "id") if one not in answered]:
        raise invalid(
            f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(orphans)}. "
            "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
        )


def _ids(message: dict[str, Any], kind: str, field: str) -> list[str]:
    return [block[field] for block in message["content"] if isinstance(block, dict) and block["type"] == kind]
