"""What a real house says is what the generated contracts promise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from jsonschema import Draft202012Validator
from websockets.asyncio.client import connect

from protocol.generate.files import DOCS
from tests.journey.house import House, errand_up
from tests.journey.test_examples import asked
from tests.journey.test_kills import make_repository


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with errand_up(tmp_path_factory.mktemp("house")) as house:
        yield house


def by_tag() -> dict[str, Draft202012Validator]:
    """A validator for every kind of frame; nothing but what the schema names may be in it."""
    schema = json.loads((DOCS / "protocol.schema.json").read_text())
    for kind in schema["$defs"].values():
        if "properties" in kind:
            kind["additionalProperties"] = False
    return {
        kind["properties"]["type"]["enum"][0]: Draft202012Validator({**schema, "$ref": f"#/$defs/{name}"})
        for name, kind in schema["$defs"].items()
        if "type" in kind.get("properties", {})
    }


async def frames_of_a_task(house: House, repository: Path) -> list[dict[str, Any]]:
    """All that a socket is told about a task with a question, and about the list."""
    seen: list[dict[str, Any]] = []
    async with connect(house.ready.server.replace("http", "ws", 1) + "/api/live", max_size=None) as socket:

        async def send(**frame: Any) -> None:
            await socket.send(json.dumps(frame))

        await send(type="sign_in", token=house.token)
        await send(type="watch_tasks")
        await send(type="submit", key="contract", prompt="[scenario: ask]", repository=str(repository))
        async for text in socket:
            seen.append(frame := json.loads(text))
            events = frame.get("decision", {}).get("events", [])
            if frame["type"] == "accepted" and frame["key"] == "contract":
                await send(type="watch_task", task=frame["task"])
            for event in events:
                if event["type"] == "question_raised":
                    question = event["question"]["id"]
                    await send(type="answer", key="a", task=frame["task"], question=question, text="blue")
                    await send(type="answer", key="b", task=frame["task"], question=question, text="red")
                    await send(type="say", key="", task=frame["task"], text="without a key")
            if any(event["type"] == "turn_ended" for event in events):
                await send(type="ping")
            if frame["type"] == "pong":
                return seen
    raise AssertionError("the socket ended")


@pytest.fixture(scope="module")
def frames(house: House, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return anyio.run(frames_of_a_task, house, make_repository(tmp_path_factory.mktemp("repository") / "greeter"))


def test_every_frame_of_a_task_is_as_the_schema_says(frames: list[dict[str, Any]]) -> None:
    validators = by_tag()
    for frame in frames:
        validators[frame["type"]].validate(frame)
    kinds = {frame["type"] for frame in frames}
    assert kinds >= {
        *("signed_in", "accepted", "refused", "decision_seen", "journal_seen", "output_seen"),
        *("caught_up", "tasks", "task_line", "receipt_seen", "pong"),
    }


def test_the_answers_of_rest_are_as_openapi_says(house: House, frames: list[dict[str, Any]]) -> None:
    document = json.loads((DOCS / "rest.openapi.json").read_text())
    (task, *_) = asked(house, "GET", "/api/tasks")["tasks"]
    for path in ("/api/tasks", "/api/tasks/{task}", "/api/tasks/{task}/diff", "/api/me", "/api/users", "/api/doctor"):
        answer = asked(house, "GET", path.format(task=task["id"]))
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": document["components"]}).validate(answer)
