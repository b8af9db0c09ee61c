"""The server: a raw ASGI app with the two endpoints of the API that Errand uses."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import msgspec
from msgspec import Struct

from agents.models.scripted import sign
from agents.models.scripted.faults import STOPS, Fault, Faults, asked_for, parse
from agents.models.scripted.scenarios import scenario_of
from agents.models.scripted.script import Say, play, prompt_of
from agents.models.scripted.strict import Refusal, invalid
from agents.models.scripted.strict import parse as parse_request

MODEL = "scripted"
BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""As the real API's."""
DELTA_CHARS = 48
CHARS_A_TOKEN = 4

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Answer(Struct, frozen=True):
    """A message of the model's, ready to be sent."""

    id: str
    content: list[dict[str, Any]]
    stop_reason: str
    usage: dict[str, int]

    def message(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": self.content,
            "stop_reason": self.stop_reason,
            "stop_sequence": None,
            "usage": self.usage,
        }


class App:
    """`pace_seconds` is waited between two pieces of an answer, so that a person can watch."""

    def __init__(self, pace_seconds: float = 0.0) -> None:
        self.pace_seconds = pace_seconds
        self.faults = Faults()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            match scope["method"], scope["path"]:
                case "POST", "/v1/messages":
                    admit(headers)
                    await self._messages(await _body(receive), headers, send)
                case "GET", "/v1/models":
                    admit(headers)
                    await _json(
                        send, 200, {"data": [MODEL_INFO], "has_more": False, "first_id": MODEL, "last_id": MODEL}
                    )
                case "GET", "/health":
                    await _json(send, 200, {"status": "ok", "model": "scripted, not Claude"})
                case _:
                    raise Refusal(404, "not_found_error", "Not found")
        except Refusal as refusal:
            await _json(send, refusal.status, error_body(refusal.kind, refusal.message), refusal.headers)

    async def _messages(self, body: bytes, headers: dict[str, str], send: Send) -> None:
        request = parse_request(body)
        if request["model"] != MODEL:
            raise Refusal(404, "not_found_error", f"model: {request['model']}")
        fault = self._fault(request["messages"], headers)
        if fault is not None and (refusal := fault.refusal()):
            raise refusal
        answer = compose(request, fault)
        if not request.get("stream"):
            return await _json(send, 200, answer.message())
        return await self._stream(answer, fault, send)

    def _fault(self, messages: list[dict[str, Any]], headers: dict[str, str]) -> Fault | None:
        prompt = prompt_of(messages)
        asked = asked_for(prompt)
        if (named := headers.get("scripted-fault")) and (fault := parse(named)) is not None:
            asked.append(fault)
        return self.faults.due(prompt, 1 + len(messages) // 2, asked)

    async def _stream(self, answer: Answer, fault: Fault | None, send: Send) -> None:
        await send(_start(200, {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}))
        events = list(stream_events(answer))
        broken_at = len(events) // 2 if fault is not None and fault.kind in ("cut", "error-in-200") else len(events)
        for event in events[:broken_at]:
            if self.pace_seconds and event["type"] == "content_block_delta":
                await anyio.sleep(self.pace_seconds)
            await send(_piece(event))
        if fault is not None and fault.kind == "cut":
            return  # without the last chunk: the connection breaks off
        if broken_at < len(events):
            await send(_piece(error_body("overloaded_error", "Overloaded")))
        await send({"type": "http.response.body", "body": b""})


MODEL_INFO = {
    "type": "model",
    "id": MODEL,
    "display_name": "Scripted, not Claude",
    "created_at": "2026-11-01T00:00:00Z",
}


def admit(headers: dict[str, str]) -> None:
    """Any key will do but an empty one and `invalid`. The SDK sends it as a bearer token, older ones as `x-api-key`."""
    key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
    if not key:
        raise Refusal(401, "authentication_error", "x-api-key header is required")
    if key == "invalid":
        raise Refusal(401, "authentication_error", "invalid x-api-key")
    if not headers.get("anthropic-version"):
        raise invalid("anthropic-version: header is required")


def compose(request: dict[str, Any], fault: Fault | None) -> Answer:
    """What the scenario says next, in the API's shape, signed, counted, and cut at `max_tokens`."""
    messages = request["messages"]
    say = play(scenario_of, messages)
    stop_reason = "tool_use" if say.calls else "end_turn"
    if fault is not None and fault.kind in STOPS:
        say, stop_reason = Say("A fault was asked for: this message ends early."), fault.kind
    limit_chars = request["max_tokens"] * CHARS_A_TOKEN
    if len(say.text) > limit_chars:
        say, stop_reason = Say(say.text[:limit_chars]), "max_tokens"
    prompt, position = prompt_of(messages), len(messages)
    others: list[dict[str, Any]] = [{"type": "text", "text": say.text}] if say.text.strip() else []
    others += [
        {"type": "tool_use", "id": sign.tool_id(prompt, position, n, one.name), "name": one.name, "input": one.input}
        for n, one in enumerate(say.calls)
    ]
    signature = sign.signature(stop_reason, say.thinking, others)
    content = [{"type": "thinking", "thinking": say.thinking, "signature": signature}, *others]
    identity = hashlib.sha256(f"{prompt}{position}{signature}".encode()).hexdigest()[:24]
    return Answer(f"msg_scripted_{identity}", content, stop_reason, usage_of(request, content))


def usage_of(request: dict[str, Any], content: list[dict[str, Any]]) -> dict[str, int]:
    """From the lengths of the texts. The cache is read for what came before the last exchange."""
    messages = request["messages"]
    before = tokens([request.get("system", ""), request.get("tools", []), messages[:-2]])
    fresh = tokens(messages[-2:])
    cached = bool(request.get("cache_control"))
    first = len(messages) < 2
    return {
        "input_tokens": 1 if cached else before + fresh,
        "cache_read_input_tokens": before if cached and not first else 0,
        "cache_creation_input_tokens": (before + fresh if first else fresh) if cached else 0,
        "output_tokens": tokens(content),
    }


def tokens(value: Any) -> int:
    return max(1, len(msgspec.json.encode(value)) // CHARS_A_TOKEN)


def stream_events(answer: Answer) -> Iterator[dict[str, Any]]:
    """The answer as the API streams it."""
    begun = answer.message() | {"content": [], "stop_reason": None, "usage": answer.usage | {"output_tokens": 1}}
    yield {"type": "message_start", "message": begun}
    yield {"type": "ping"}
    for index, block in enumerate(answer.content):
        empty, deltas = _pieces(block)
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": answer.stop_reason, "stop_sequence": None},
        "usage": {"output_tokens": answer.usage["output_tokens"]},
    }
    yield {"type": "message_stop"}


def _pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it starts, and what is then added to it."""
    match block["type"]:
        case "text":
            return block | {"text": ""}, [{"type": "text_delta", "text": part} for part in _cut(block["text"])]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": part} for part in _cut(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return block | {"thinking": "", "signature": ""}, deltas
        case _:
            written = msgspec.json.encode(block["input"]).decode()
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in ["", *_cut(written)]]
            return block | {"input": {}}, deltas


def _cut(text: str) -> list[str]:
    return [text[at : at + DELTA_CHARS] for at in range(0, len(text), DELTA_CHARS)]


def error_body(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refusal(400, "invalid_request_error", "The request broke off.")
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT_BYTES:
            raise Refusal(413, "request_too_large", "Request exceeds the maximum allowed number of bytes")
        if not event.get("more_body"):
            return b"".join(parts)


async def _json(send: Send, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
    body = msgspec.json.encode(value)
    await send(_start(status, {"content-type": "application/json", **(headers or {})}))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, headers: dict[str, str]) -> dict[str, Any]:
    named = {"request-id": "req_scripted", **headers}
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }


def _piece(event: dict[str, Any]) -> dict[str, Any]:
    data = f"event: {event['type']}\ndata: ".encode() + msgspec.json.encode(event) + b"\n\n"
    return {"type": "http.response.body", "body": data, "more_body": True}
