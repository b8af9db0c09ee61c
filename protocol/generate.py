"""ROUTES -> docs/protocol.md and docs/protocol.schema.json. `python -m protocol.generate` writes them, `--check`
compares."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from protocol import live
from protocol.base import tag_of
from protocol.journal import AnyJournalEvent
from protocol.query import Refusal
from protocol.routes import ROUTES, Route, messages_of
from protocol.task import AnyTaskEvent, TaskState
from protocol.user import AnyUserEvent

DOCS = Path(__file__).parent.parent / "docs"
PAGE = DOCS / "protocol.md"
SCHEMA = DOCS / "protocol.schema.json"

INTRODUCTION = """\
# The protocol

Made from `protocol/routes.py` and the message classes by `make generate`; do not edit. JSON everywhere, so that
`nats sub 'evt.>'` is readable. `protocol.schema.json` beside this page has the JSON Schema of every message.

A message says what it is by its `type`. A reader ignores fields it does not know and refuses types it does not know.
"""


def page() -> str:
    """The protocol page, Markdown."""
    sections = [
        INTRODUCTION,
        "## Subjects\n",
        *_table(("subject", "stream", "from", "to", "what"), (_route_row(route) for route in ROUTES)),
        "\n## States of a task\n",
        *_table(("state", "who moves it on"), ((f"`{state}`", _state_doc(state)) for state in TaskState)),
        "\n## Events in a decision over a task\n",
        *_messages(messages_of(AnyTaskEvent)),
        "\n## Entries of an attempt's journal\n",
        *_messages(messages_of(AnyJournalEvent)),
        "\n## Events in a decision over a user\n",
        *_messages(messages_of(AnyUserEvent)),
        "\n## Frames from the phone\n",
        *_messages(messages_of(live.AnyClientFrame)),
        "\n## Frames to the phone\n",
        *_messages(messages_of(live.AnyServerFrame)),
    ]
    return "\n".join(sections) + "\n"


def schema() -> str:
    """JSON Schema (2020-12) of every message, by class name under `$defs`."""
    kinds = {message for route in ROUTES for message in (*route.messages, *route.replies)}
    kinds |= {Refusal, *messages_of(live.AnyClientFrame), *messages_of(live.AnyServerFrame)}
    _, components = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__), ref_template="#/$defs/{name}"
    )
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Errand's messages",
        "$defs": dict(sorted(components.items())),
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _route_row(route: Route) -> tuple[str, ...]:
    senders, receivers = (", ".join(services) for services in (route.senders, route.receivers))
    return f"`{route.subject}`", route.stream or "", senders, receivers, route.doc


def _state_doc(state: TaskState) -> str:
    """The docstring under the member, which Python does not keep: read from the source."""
    lines = (Path(__file__).parent / "task.py").read_text().splitlines()
    start = lines.index(f'    {state.name} = "{state.value}"') + 1
    text = ""
    for line in lines[start:]:
        text += " " + line.strip()
        if line.rstrip().endswith('"""'):
            break
    return text.replace('"""', "").strip()


def _messages(messages: Iterable[type]) -> list[str]:
    rows = ((f"`{tag_of(message)}`", _fields(message), _doc(message)) for message in messages)
    return _table(("type", "fields", "what"), rows)


def _fields(message: type) -> str:
    return ", ".join(f"`{f.encode_name}`" + ("" if f.required else "?") for f in msgspec.structs.fields(message))


def _doc(message: type) -> str:
    doc = message.__doc__
    inherited = any(doc == base.__doc__ for base in message.__mro__[1:])
    return "" if doc is None or inherited else " ".join(doc.split())


def _table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    return [
        "| " + " | ".join(head) + " |",
        "|" + " --- |" * len(head),
        *("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]


def main(arguments: list[str]) -> int:
    made = {PAGE: page(), SCHEMA: schema()}
    if "--check" in arguments:
        stale = [path.name for path, text in made.items() if not path.exists() or path.read_text() != text]
        if stale:
            print(f"Stale: {', '.join(stale)}. Run `make generate`.", file=sys.stderr)
        return 1 if stale else 0
    DOCS.mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
