"""What the raw stream says of a task, by code that shares nothing with the house: plain JSON, read as the operator."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import nats
from nats.js.errors import NotFoundError

USAGE = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd")


class Message(NamedTuple):
    sequence: int
    source: str
    """`task` or `journal`."""
    body: dict[str, Any]


class Step(NamedTuple):
    tool: str | None
    """None for a model call."""
    outcome: str | None
    usage: dict[str, float]


async def raw_stream(data: Path, task: str) -> list[Message]:
    """Every message of the task's log, in order."""
    connection = await nats.connect(
        (data / "nats-url").read_text().strip(),
        user="operator",
        password=(data / "secrets" / "nats-operator").read_text().strip(),
        inbox_prefix=b"_INBOX_operator",
    )
    try:
        stream = connection.jetstream()
        found: list[Message] = []
        while True:
            after = found[-1].sequence if found else 0
            try:
                raw = await stream.get_msg("TASKS", after + 1, subject=f"evt.*.{task}.>", direct=True, next=True)
            except NotFoundError:
                return found
            assert raw.seq is not None
            assert raw.subject is not None
            found.append(Message(raw.seq, raw.subject.split(".")[3], json.loads(raw.data or b"")))
    finally:
        await connection.close()


def events(messages: list[Message]) -> list[tuple[str, dict[str, Any]]]:
    """Source and event; a decision may carry several."""
    return [
        (message.source, event)
        for message in messages
        for event in (message.body.get("events", []) if message.source == "task" else [message.body["event"]])
    ]


def kinds(messages: list[Message]) -> Counter[tuple[str, str]]:
    return Counter((source, event["type"]) for source, event in events(messages))


def steps(messages: list[Message]) -> dict[int, Step]:
    found: dict[int, Step] = {}
    for _, event in events(messages):
        if event["type"] == "step_started":
            assert event["step"] not in found
            found[event["step"]] = Step(event["action"].get("name"), None, {})
        if event["type"] == "step_finished":
            tool, outcome, _ = found[event["step"]]
            assert outcome is None
            found[event["step"]] = Step(tool, outcome_of(event["result"]), event["result"].get("usage", {}))
    return found


def outcome_of(result: dict[str, Any]) -> str:
    if result["type"] == "step_lost":
        return "lost"
    return "error" if result.get("is_error") else "ok"


def total(usages: list[dict[str, float]]) -> list[float]:
    """In the order of USAGE; what is zero is left out of a message."""
    return [sum(usage.get(name, 0) for usage in usages) for name in USAGE]


def turns(messages: list[Message]) -> list[list[Any]]:
    """Turn, outcome, branch, commit and base, in order; then the usage."""
    return [
        [
            *(event["turn"], event["outcome"]),
            *((event.get("published") or {}).get(name) for name in ("branch", "commit", "base_commit")),
            *(event.get("usage", {}).get(name, 0) for name in USAGE),
        ]
        for _, event in events(messages)
        if event["type"] == "turn_ended"
    ]


def attempts(messages: list[Message]) -> list[list[Any]]:
    """Attempt, turn, base, branch, whether scripted, and how it ended, in order."""
    found: dict[int, list[Any]] = {}
    for message in messages:
        for _, event in events([message]):
            match event["type"]:
                case "attempt_claimed":
                    found[event["attempt"]] = [event["attempt"], event["turn"]]
                case "attempt_started":
                    scripted = event.get("scripted", False)
                    found[message.body["attempt"]] += [event["base_commit"], event["branch"], scripted]
                case "attempt_ended":
                    found[event["attempt"]].append(event["how"])
    return list(found.values())


def receipts(messages: list[Message]) -> list[list[Any]]:
    """Sequence, key and status."""
    found = [(message.sequence, message.body.get("receipt")) for message in messages if message.source == "task"]
    return [[sequence, receipt["key"], receipt["status"]] for sequence, receipt in found if receipt]
