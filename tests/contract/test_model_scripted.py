"""The wire: the real SDK against the scripted server over HTTP, which refuses what the API refuses, in its words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from anthropic import APIStatusError, AsyncAnthropic

from agents import tools
from agents.contract import ModelError, ModelRequest
from agents.models.claude import Claude
from agents.models.scripted.server import serving

pytestmark = pytest.mark.anyio

HELLO = {"role": "user", "content": "[scenario: steps] steps=2"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def url(anyio_backend: str) -> AsyncIterator[str]:
    async with serving() as server:
        yield server.url


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key="test", base_url=url, max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(url: str) -> AsyncIterator[Claude]:
    model = Claude(api_key="test", base_url=url, scripted=True)
    yield model
    await model.close()


def request(*messages: dict[str, Any], max_tokens: int = 4096, model: str = "scripted") -> ModelRequest:
    return ModelRequest(
        model=model, system="You are Errand.", messages=messages, tools=tools.DEFINITIONS, max_tokens=max_tokens
    )


async def silent(channel: str, text: str) -> None:
    pass


async def refused(sdk: AsyncAnthropic, **given: Any) -> str:
    body = {"model": "scripted", "max_tokens": 100, "messages": [HELLO], **given}
    with pytest.raises(APIStatusError) as error:
        await sdk.messages.create(**body)
    assert error.value.status_code == 400
    assert error.value.type == "invalid_request_error"
    return error.value.api_message or ""


async def test_the_sdks_own_stream_reads_a_message(sdk: AsyncAnthropic) -> None:
    async with sdk.messages.stream(model="scripted", max_tokens=1000, messages=[HELLO]) as stream:  # type: ignore
        kinds = [event.type async for event in stream]
        message = await stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.stop_reason == "tool_use"
    assert message.content[2].input == {"command": "echo 1 >> steps.txt; echo step 1"}  # type: ignore
    assert message.usage.input_tokens > 0 < message.usage.output_tokens


async def test_a_tool_use_round_trip_goes_on_with_the_script(claude: Claude) -> None:
    pieces: list[tuple[str, str]] = []

    async def listen(channel: str, text: str) -> None:
        pieces.append((channel, text))

    first = await claude.reply(request(HELLO), listen)
    call = first.content[-1]
    answer = {"type": "tool_result", "tool_use_id": call["id"], "content": "step 1"}
    second = await claude.reply(
        request(HELLO, {"role": "assistant", "content": list(first.content)}, {"role": "user", "content": [answer]}),
        silent,
    )
    assert second.content[-1]["input"]["command"].startswith("echo 2")
    assert second.content[-1]["id"] != call["id"]
    assert json.loads("".join(text for channel, text in pieces if channel == "input")) == call["input"]
    assert {channel for channel, _ in pieces} == {"text", "thinking", "input"}
    assert second.usage.cache_read_tokens > 0 < second.usage.cache_write_tokens
    assert second.usage.cost_usd > 0


async def conversation(claude: Claude) -> list[dict[str, Any]]:
    first = await claude.reply(request(HELLO), silent)
    return [HELLO, {"role": "assistant", "content": [dict(block) for block in first.content]}]


async def test_an_orphan_tool_use_is_refused(claude: Claude, sdk: AsyncAnthropic) -> None:
    messages = [*await conversation(claude), {"role": "user", "content": "And now?"}]
    assert "`tool_use` ids were found without `tool_result`" in await refused(sdk, messages=messages)


async def test_a_result_that_nobody_asked_for_is_refused(sdk: AsyncAnthropic) -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_unknown", "content": ""}
    said = await refused(sdk, messages=[{"role": "user", "content": [result]}])
    assert "unexpected `tool_use_id` found" in said


@pytest.mark.parametrize("what", ["text", "input", "thinking", "dropped thinking", "results after text"])
async def test_altered_assistant_content_is_refused(claude: Claude, sdk: AsyncAnthropic, what: str) -> None:
    messages = await conversation(claude)
    thinking, text, call = messages[1]["content"]
    answer: list[dict[str, Any]] = [{"type": "tool_result", "tool_use_id": call["id"], "content": ""}]
    said = "altered"
    match what:
        case "text":
            text["text"] += " really"
        case "input":
            call["input"] = {"command": "rm -r ."}
        case "thinking":
            thinking["thinking"] = "I am Claude."
        case "dropped thinking":
            messages[1]["content"] = [text, call]
            said = "thinking blocks must be sent back"
        case "results after text":
            answer.insert(0, {"type": "text", "text": "first"})
            said = "must come first"
    assert said in await refused(sdk, messages=[*messages, {"role": "user", "content": answer}])


async def test_the_words_of_another_model_are_taken_as_they_are(claude: Claude) -> None:
    foreign = {"role": "assistant", "content": [{"type": "text", "text": "I am another one."}]}
    await claude.reply(request(HELLO, foreign, {"role": "user", "content": "Go on."}), silent)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"extra_body": {"colour": "red"}}, "colour: Extra inputs are not permitted"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"messages": []}, "at least one message is required"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, 'must use the "user" role'),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "Invalid enum value"),
        ({"messages": [{"role": "user", "content": []}]}, "must have non-empty content"),
        ({"messages": [{"role": "user", "content": ""}]}, "must have non-empty content"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "non-whitespace"),
        ({"messages": [{"role": "user", "content": [{"type": "song", "text": "la"}]}]}, "Invalid value 'song'"),
        (
            {"messages": [HELLO, {"role": "assistant", "content": "Once upon"}]},
            "does not support assistant message prefill",
        ),
        ({"tools": [{"name": "bash", "type": "bash_20250124", "size": 1}]}, "size: Extra inputs are not permitted"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "name"),
        ({"tools": [{"name": "a", "input_schema": {}}] * 2}, "must be unique"),
        (
            {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}] * 5},
            "A maximum of 4 blocks",
        ),
    ],
)
async def test_a_request_the_api_refuses_is_refused(sdk: AsyncAnthropic, given: dict[str, Any], said: str) -> None:
    assert said in await refused(sdk, **given)


async def test_key_and_version_are_asked_for(url: str) -> None:
    body = {"model": "scripted", "max_tokens": 10, "messages": [HELLO]}
    async with httpx2.AsyncClient(base_url=url) as client:
        nothing = await client.post("/v1/messages", json=body)
        key_only = await client.post("/v1/messages", json=body, headers={"x-api-key": "test"})
        both = await client.post(
            "/v1/messages", json=body, headers={"x-api-key": "test", "anthropic-version": "2023-06-01"}
        )
        elsewhere = await client.get("/v1/elsewhere")
    assert nothing.status_code == 401
    assert nothing.json()["error"]["type"] == "authentication_error"
    assert key_only.status_code == 400
    assert both.json()["type"] == "message"
    assert elsewhere.status_code == 404


async def test_a_body_that_is_no_json_or_too_large_is_refused(url: str) -> None:
    headers = {"x-api-key": "test", "anthropic-version": "2023-06-01"}
    async with httpx2.AsyncClient(base_url=url, headers=headers) as client:
        broken = await client.post("/v1/messages", content=b"{")
        large = await client.post("/v1/messages", content=b" " * (32 * 1024 * 1024 + 1))
    assert broken.status_code == 400
    assert large.status_code == 413
    assert large.json()["error"]["type"] == "request_too_large"


async def test_the_models_are_listed(claude: Claude) -> None:
    assert await claude.names() == ["scripted"]


@pytest.mark.parametrize(
    ("fault", "said", "retry_after"),
    [
        ("400", "refused the request (400)", None),
        ("401", "set ANTHROPIC_API_KEY", None),
        ("403", "may not do this", None),
        ("404", "does not know this model", None),
        ("429", "rate limit", 0),
        ("429 after=3", "rate limit", 3),
        ("slow-retry-after", "rate limit", 30),
        ("spend-cap", "spend limit", None),
        ("500", "failed (500)", 0),
        ("529", "overloaded", 0),
        ("cut", "broke", 0),
        ("error-in-200", "overloaded", 0),
    ],
)
async def test_each_fault_is_a_model_error_with_its_wait(
    claude: Claude, fault: str, said: str, retry_after: float | None
) -> None:
    messages = {"role": "user", "content": f"[fault: {fault}] Go."}
    with pytest.raises(ModelError) as error:
        await claude.reply(request(messages), silent)
    assert said in error.value.reason
    assert error.value.retry_after_seconds == retry_after
    assert "test" not in error.value.reason.split(), "the key is nowhere in it"
    broken_off = fault in ("cut", "error-in-200")
    assert (error.value.usage.cost_usd > 0) == broken_off, "what was begun is paid"
    reply = await claude.reply(request(messages), silent)
    assert reply.content, "the second time it is gone"


async def test_an_unreachable_server_is_an_error_that_may_pass() -> None:
    claude = Claude(api_key="secret-key", base_url="http://127.0.0.1:9", scripted=True)
    with pytest.raises(ModelError) as error:
        await claude.reply(request(HELLO), silent)
    await claude.close()
    assert error.value.retry_after_seconds == 0
    assert "127.0.0.1" in error.value.reason
    assert "secret" not in repr(error.value) + repr(error.value.__cause__)


@pytest.mark.parametrize("key", ["", " ", "sk-\nx", "schlüssel"])
def test_a_key_that_is_none_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValueError, match="ANTHROPIC_API_KEY") as error:
        Claude(api_key=key)
    assert not key.strip() or key not in str(error.value)


async def test_a_reply_over_max_tokens_is_cut_and_says_so(claude: Claude) -> None:
    message = {"role": "user", "content": "[scenario: chatty] chars=5000"}
    whole = await claude.reply(request(message), silent)
    cut = await claude.reply(request(message, max_tokens=100), silent)
    assert (whole.stop_reason, cut.stop_reason) == ("end_turn", "max_tokens")
    assert len(cut.content[-1]["text"]) == 400
    assert "scripted, not Claude" in whole.content[-1]["text"]


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen([sys.executable, "-m", "agents.models.scripted"], stdout=subprocess.PIPE, text=True)
    with started:
        yield started
        started.kill()


async def test_the_program_serves_until_sigterm_and_stays_small(program: subprocess.Popen[str]) -> None:
    assert program.stdout is not None
    said = json.loads(program.stdout.readline())
    claude = Claude(api_key="test", base_url=said["listening"], scripted=True)
    assert await claude.names() == ["scripted"]
    await claude.close()
    status = Path(f"/proc/{program.pid}/status").read_text()
    resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    print(f"{resident / 1024:.0f} MiB resident")
    assert resident < 48 * 1024
    os.kill(program.pid, signal.SIGTERM)
    assert program.wait(10) == 0
