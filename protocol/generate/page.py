"""ROUTES -> the protocol page, Markdown."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol import live
from protocol.base import tag_of
from protocol.generate import docstrings
from protocol.generate.markdown import table
from protocol.journal import AnyJournalEvent
from protocol.routes import ROUTES, Route, messages_of
from protocol.task import AnyTaskEvent, TaskState
from protocol.user import AnyUserEvent

INTRODUCTION = """\
# The protocol

Made from `protocol/routes.py` and the message classes by `make generate`; do not edit. JSON everywhere, so that
`nats sub 'evt.>'` is readable. The same for programs, beside this page: `protocol.asyncapi.json` (AsyncAPI 3: channels,
who sends and receives, messages), `protocol.schema.json` (JSON Schema of every message), `rest.openapi.json` (OpenAPI
3.1 of the gateway's REST) and, for the phone's side in TypeScript, `gateway/web/protocol.d.ts`.

A message says what it is by its `type`. A reader ignores fields it does not know and refuses types it does not know. A
field with `?` may be left out; it then has its default.
"""


def page() -> str:
    sections = {
        "Subjects": table(("subject", "stream", "from", "to", "what"), map(_route_row, ROUTES)),
        "States of a task": table(("state", "who moves it on"), _states()),
        "Events in a decision over a task": _messages(messages_of(AnyTaskEvent)),
        "Entries of an attempt's journal": _messages(messages_of(AnyJournalEvent)),
        "Events in a decision over a user": _messages(messages_of(AnyUserEvent)),
        "Frames from the phone": _messages(messages_of(live.AnyClientFrame)),
        "Frames to the phone": _messages(messages_of(live.AnyServerFrame)),
    }
    return INTRODUCTION + "".join(f"\n## {title}\n\n{text}" for title, text in sections.items())


def _route_row(route: Route) -> tuple[str, ...]:
    senders, receivers = (", ".join(services) for services in (route.senders, route.receivers))
    return f"`{route.subject}`", route.stream or "", senders, receivers, route.doc


def _states() -> Iterable[tuple[str, str]]:
    docs = docstrings.of_fields(TaskState)
    return ((f"`{state}`", docs[state.name]) for state in TaskState)


def _messages(messages: Iterable[type]) -> str:
    rows = ((f"`{tag_of(message)}`", _fields(message), docstrings.of_class(message)) for message in messages)
    return table(("type", "fields", "what"), rows)


def _fields(message: type) -> str:
    return ", ".join(f"`{f.encode_name}`" + ("" if f.required else "?") for f in msgspec.structs.fields(message))
