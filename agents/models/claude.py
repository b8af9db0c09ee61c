"""Claude over the official SDK, streaming; also the scripted server, which speaks the same wire format."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec

from agents.contract import ModelError, ModelRequest, OnDelta
from agents.models.prices import priced
from protocol.journal import ModelReply
from protocol.task import Usage

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

LIMIT, LEFT = "anthropic-ratelimit-", "-remaining"
"""Headers of each of the API's rate limits: what is left of it, and as `-reset` when it is whole again."""
API_URL = "https://api.anthropic.com"
SILENCE_SECONDS = 120.0
"""The API pings a live stream every few seconds: a connection that is silent for so long is dead."""
QUIET_SECONDS = 600.0
"""Pings alone are no answer: a stream in which nothing else comes for so long is given up."""
CONNECT_SECONDS = 10.0
BYTES_A_TOKEN = 2
"""An upper bound of a request's tokens: text and code have 3 to 4 bytes a token."""
OVERHEAD_TOKENS = 3000
"""What the API adds for its own tools' definitions and the message frame."""


class Claude:
    """A Model. `load` may be called early, in the background; the first `reply` waits for it."""

    quiet_seconds = QUIET_SECONDS

    def __init__(self, *, api_key: str, base_url: str = API_URL, scripted: bool = False) -> None:
        key = api_key.strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ValueError("ANTHROPIC_API_KEY is empty or has a character that no API key has.")
        self.scripted = scripted
        self._key = key
        self._url = base_url
        self._client: AsyncAnthropic | None = None
        self._loading = anyio.Lock()

    async def load(self) -> None:
        """Import the SDK in a thread (2 s, 80 MiB) and make the client."""
        async with self._loading:
            if self._client is None:
                sdk = await anyio.to_thread.run_sync(_import_sdk)
                timeout = sdk.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS)
                self._client = sdk.AsyncAnthropic(api_key=self._key, base_url=self._url, max_retries=0, timeout=timeout)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def names(self) -> list[str]:
        """The models that this key may use. Raises ModelError."""
        await self.load()
        assert self._client is not None
        try:
            return [model.id async for model in self._client.models.list()]
        except Exception as error:
            raise self._explained(error, Usage()) from None

    def most_it_can_cost(self, request: ModelRequest) -> Usage:
        size = len(request.system) + len(msgspec.json.encode((request.messages, request.tools)))
        tokens = size // BYTES_A_TOKEN + OVERHEAD_TOKENS
        return priced(request.model, cache_write_tokens=tokens, output_tokens=request.max_tokens)

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        await self.load()
        assert self._client is not None
        heard = _Heard(request.model)
        try:
            with anyio.fail_after(self.quiet_seconds) as patience:
                events = await self._client.messages.create(stream=True, **_parameters(request))
                async with events:
                    async for event in events:
                        patience.deadline = anyio.current_time() + self.quiet_seconds
                        if delta := heard.take(event.to_dict(mode="json")):
                            await on_delta(*delta)
        except Exception as error:
            raise self._explained(error, heard.usage()) from None
        if not heard.stopped:
            raise ModelError("The model's answer broke off.", retry_after_seconds=0, usage=heard.usage())
        return heard.reply()

    def _explained(self, error: Exception, usage: Usage) -> ModelError:
        """The SDK's error as ours. The chain is cut, since the SDK's holds the request with its key."""
        import anthropic

        match error:
            case anthropic.APIStatusError():
                said = str(error.api_message or "no reason given").replace(self._key, "[key]").strip()
                wait = retry_after(error.response.headers, datetime.now(UTC))
                reason, wait = explain(error.status_code, error.type, said, wait)
                return ModelError(reason, retry_after_seconds=wait, usage=usage)
            case anthropic.APIError() | OSError() | EOFError():
                reason = (
                    f"The connection to the model at {urlsplit(self._url).hostname} failed ({type(error).__name__})."
                )
                return ModelError(reason, retry_after_seconds=0, usage=usage)
            case _ if type(error).__module__.split(".")[0] in ("httpx2", "httpcore2", "h11", "anyio", "ssl"):
                reason = (
                    f"The connection to the model at {urlsplit(self._url).hostname} broke ({type(error).__name__})."
                )
                return ModelError(reason, retry_after_seconds=0, usage=usage)
            case json.JSONDecodeError() | msgspec.DecodeError() | KeyError() | IndexError() | TypeError():
                return ModelError("The model's answer could not be read.", retry_after_seconds=0, usage=usage)
        raise error


def explain(status: int, kind: str | None, said: str, retry_after: float | None) -> tuple[str, float | None]:
    """A sentence that a person can act on, and when the same request may be made again (None: it will fail again).

    An error inside a stream comes with status 200, so that `kind` (the API's `error.type`) is looked at as well.
    """
    match status, kind:
        case (401, _) | (_, "authentication_error"):
            return (
                f"The API key was refused (401): set ANTHROPIC_API_KEY to a valid key and start Errand again. {said}",
                None,
            )
        case (402, _) | (_, "billing_error"):
            return f"The API account cannot be billed (402): see its billing page in the Claude console. {said}", None
        case (403, _) | (_, "permission_error"):
            return f"The API key may not do this (403): use a key of a workspace that may. {said}", None
        case (404, _) | (_, "not_found_error"):
            return f"The API does not know this model (404): choose another one. {said}", None
        case (413, _) | (_, "request_too_large"):
            return (
                f"The conversation is too large for the API (413): start a new task from this one's branch. {said}",
                None,
            )
        case (429, _) | (_, "rate_limit_error") if retry_after is None and status == 429:
            return f"The API account's spend limit is reached (429): raise it in the Claude console. {said}", None
        case (429, _) | (_, "rate_limit_error"):
            return f"The API's rate limit is reached (429). {said}", retry_after or 0
        case (529, _) | (_, "overloaded_error"):
            return f"The model is overloaded (529). {said}", retry_after or 0
        case (400 | 422, _) | (_, "invalid_request_error"):
            return f"The API refused the request ({status}): {said}", None
        case (408 | 409, _):
            return f"The API did not answer in time ({status}). {said}", retry_after or 0
        case _ if status >= 500 or status == 200:
            return f"The API failed ({status}). {said}", retry_after or 0
        case _:
            return f"The API refused the request ({status}): {said}", None


class _Heard:
    """A message as its events arrive, its content kept as the wire had it."""

    def __init__(self, model: str) -> None:
        self.stopped = False
        self._model = model
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._closed: set[int] = set()
        self._stop_reason = "end_turn"
        self._usage: dict[str, Any] = {}

    def take(self, event: Mapping[str, Any]) -> tuple[str, str] | None:
        """Returns channel and text of what can be shown."""
        match event["type"]:
            case "message_start":
                self._usage.update(event["message"].get("usage") or {})
            case "content_block_start":
                self._blocks[event["index"]] = dict(event["content_block"])
            case "content_block_delta":
                return self._add(self._blocks[event["index"]], event["index"], event["delta"])
            case "content_block_stop":
                self._closed.add(event["index"])
            case "message_delta":
                self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
                given = event.get("usage") or {}
                self._usage.update({name: value for name, value in given.items() if value is not None})
            case "message_stop":
                self.stopped = True
        return None

    def _add(self, block: dict[str, Any], index: int, delta: Mapping[str, Any]) -> tuple[str, str] | None:
        match delta["type"]:
            case "text_delta":
                block["text"] = block.get("text", "") + delta["text"]
                return "text", delta["text"]
            case "thinking_delta":
                block["thinking"] = block.get("thinking", "") + delta["thinking"]
                return "thinking", delta["thinking"]
            case "input_json_delta":
                self._inputs.setdefault(index, []).append(delta["partial_json"])
                return "input", delta["partial_json"]
            case "signature_delta":
                block["signature"] = delta["signature"]
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        return None

    def reply(self) -> ModelReply:
        """Only whole blocks: a tool call cut off by `max_tokens`, or an empty text, is refused when it is sent back."""
        content = tuple(block for index in sorted(self._closed) if (block := self._whole(index)) is not None)
        return ModelReply(content=_encodable(content), stop_reason=self._stop_reason, usage=self.usage())

    def _whole(self, index: int) -> dict[str, Any] | None:
        block = self._blocks[index]
        match block["type"]:
            case "text":
                return block if block.get("text", "").strip() else None
            case "thinking":
                return block if block.get("signature") else None
            case "tool_use" if parts := "".join(self._inputs.get(index, [])):
                try:
                    return block | {"input": _object(parts)}
                except ValueError:
                    if self._stop_reason == "tool_use":
                        raise
                    return None
        return block

    def usage(self) -> Usage:
        """With what compaction took, which the top level does not count."""
        used = self._usage
        extra = [one for one in used.get("iterations") or [] if one.get("type") == "compaction"]

        def total(name: str) -> int:
            return (used.get(name) or 0) + sum(one.get(name) or 0 for one in extra)

        return priced(
            self._model,
            input_tokens=total("input_tokens"),
            cache_read_tokens=total("cache_read_input_tokens"),
            cache_write_tokens=total("cache_creation_input_tokens"),
            output_tokens=total("output_tokens"),
        )


def _parameters(request: ModelRequest) -> dict[str, Any]:
    """Two cache breakpoints: behind tools and system prompt, and (the automatic one) behind the last message."""
    return {
        "model": request.model,
        "max_tokens": request.max_tokens,
        "system": [{"type": "text", "text": request.system, "cache_control": {"type": "ephemeral"}}],
        "messages": list(request.messages),
        "tools": list(request.tools),
        "cache_control": {"type": "ephemeral"},
    }


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("a tool's input is an object")
    return value


def _encodable(content: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
    """As it is, but for half of a surrogate pair, which no JSON of ours can carry."""
    try:
        msgspec.json.encode(content)
    except UnicodeEncodeError:
        return tuple(_without_lone_surrogates(block) for block in content)
    return content


def _without_lone_surrogates(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_without_lone_surrogates(name): _without_lone_surrogates(one) for name, one in value.items()}
        case list():
            return [_without_lone_surrogates(one) for one in value]
    return value


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds until the same request may be made again: as `retry-after` says (a number, or an HTTP date), else until
    every limit of which nothing remains is reset. None where neither is said, as at an account's spend limit."""
    said = headers.get("retry-after", "")
    with suppress(ValueError):
        return max(0.0, float(said))
    with suppress(ValueError, TypeError):
        return max(0.0, (parsedate_to_datetime(said) - now).total_seconds())
    used_up = [name for name, left in headers.items() if name.startswith(LIMIT) and left == "0" and name.endswith(LEFT)]
    resets = [headers.get(name.removesuffix(LEFT) + "-reset", "") for name in used_up]
    with suppress(ValueError, TypeError):
        return max(0.0, *((datetime.fromisoformat(at) - now).total_seconds() for at in resets)) if resets else None
    return None


def _import_sdk() -> Any:
    return importlib.import_module("anthropic")
