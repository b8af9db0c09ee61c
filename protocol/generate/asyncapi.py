"""ROUTES and the phone's frames -> AsyncAPI 3: channels, operations with their replies, messages, schemas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from protocol import live
from protocol.base import snake
from protocol.generate import docstrings, schema
from protocol.query import Refusal
from protocol.routes import ROUTES, Route, Service, Stream, messages_of

LIVE = "live"
PARAMETERS = {
    "user": "A user's id: `owner`, or `u` and 16 letters and digits.",
    "task": "A task's id: `t` and 16 letters and digits, made of the user and the idempotency key.",
    "owner": "Whose timer it is: a task's id, or a user's.",
    "device": "A device's id.",
    "state": "The state that the decision led to.",
    "kind": "The `type` of the entry's event, or of the decision's first event.",
    "name": "The timer's name.",
    "stream": "The stream it was found in, in small letters.",
}
BURIED = {
    "name": "buried",
    "description": "A message that nobody could decode or handle, as it came.",
    "headers": {
        "type": "object",
        "properties": {
            "Errand-Reason": {"type": "string", "description": "Why not."},
            "Errand-Subject": {"type": "string", "description": "Where it came on."},
            "Errand-Sequence": {"type": "string", "description": "Its sequence in its stream."},
        },
    },
    "payload": {},
}
PEOPLE = frozenset({Service.READER})
"""Who hears by a tool of their own."""


def document() -> dict[str, Any]:
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "Errand",
            "version": version("errand"),
            "description": "What the services of Errand say to each other over NATS, and the gateway to phones over a "
            "WebSocket. JSON everywhere; a message says what it is by its `type`.",
        },
        "defaultContentType": "application/json",
        "servers": {
            "nats": {"host": "127.0.0.1:4222", "protocol": "nats", "description": "Streams: TASKS, OUTPUT, DEAD."},
            "gateway": {"host": "127.0.0.1:8420", "protocol": "ws", "description": "`wss` behind a proxy with TLS."},
        },
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "messages": {"Buried": BURIED, **{kind.__name__: _message(kind) for kind in schema.messages()}},
            "schemas": _schemas(),
        },
    }


def _channels() -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for route in ROUTES:
        channels[_name(route)] = _channel(_address(route.subject), _sent(route), "nats", route.doc)
        if route.replies:
            inbox = "Answers come to the inbox that the question names."
            channels[_replies(route)] = _channel(None, _names((*route.replies, Refusal)), "nats", inbox)
    frames = _names((*messages_of(live.AnyClientFrame), *messages_of(live.AnyServerFrame)))
    channels[LIVE] = _channel("/api/live", frames, "gateway", "The phone's WebSocket. " + _docstring_of_live())
    return channels


def _channel(address: str | None, messages: Iterable[str], server: str, doc: str) -> dict[str, Any]:
    parameters = {name: {"description": PARAMETERS[name]} for name in re.findall(r"{(\w+)}", address or "")}
    return {
        "address": address,
        "servers": [{"$ref": f"#/servers/{server}"}],
        "description": doc,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        **({"parameters": parameters} if parameters else {}),
    }


def _operations() -> dict[str, Any]:
    """From the side of Errand's services: what each sends and receives."""
    operations: dict[str, Any] = {}
    for route in ROUTES:
        for service in route.senders:
            operations[f"{service}_sends_{_name(route)}"] = _operation("send", service, route)
        for service in route.receivers:
            if service not in PEOPLE:
                operations[f"{service}_receives_{_name(route)}"] = _operation("receive", service, route)
    frames = {"receive": live.AnyClientFrame, "send": live.AnyServerFrame}
    for action, union in frames.items():
        operations[f"gateway_{action}s_frames"] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{LIVE}"},
            "messages": _of_channel(LIVE, _names(messages_of(union))),
            "tags": [{"name": "gateway"}],
        }
    return operations


def _operation(action: str, service: Service, route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "action": action,
        "channel": {"$ref": f"#/channels/{_name(route)}"},
        "messages": _of_channel(_name(route), _sent(route)),
        "tags": [{"name": service.value}],
    }
    if route.replies:
        operation["reply"] = {
            "channel": {"$ref": f"#/channels/{_replies(route)}"},
            "messages": _of_channel(_replies(route), _names((*route.replies, Refusal))),
        }
    return operation


def _of_channel(channel: str, messages: Iterable[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages]


def _sent(route: Route) -> list[str]:
    """What travels on it: in DEAD lies anything."""
    return ["Buried"] if route.stream is Stream.DEAD else _names(route.messages)


def _names(kinds: Iterable[type]) -> list[str]:
    return [kind.__name__ for kind in kinds]


def _message(kind: type) -> dict[str, Any]:
    doc = docstrings.of_class(kind)
    return {
        "name": snake(kind.__name__),
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
        **({"description": doc} if doc else {}),
    }


def _schemas() -> dict[str, Any]:
    schemas = schema.components(schema.messages(), "#/components/schemas/{name}")
    _simplify_discriminators(schemas)
    return schemas


def _simplify_discriminators(node: Any) -> None:
    """AsyncAPI names the field alone, where OpenAPI and msgspec also map its values."""
    if isinstance(node, dict):
        if isinstance(node.get("discriminator"), dict):
            node["discriminator"] = node["discriminator"]["propertyName"]
        for value in node.values():
            _simplify_discriminators(value)
    elif isinstance(node, list):
        for value in node:
            _simplify_discriminators(value)


def _name(route: Route) -> str:
    return "_".join(re.findall(r"\w+", route.subject))


def _replies(route: Route) -> str:
    return f"{_name(route)}_replies"


def _address(subject: str) -> str:
    return subject.replace("<", "{").replace(">", "}")


def _docstring_of_live() -> str:
    return " ".join((live.__doc__ or "").split())
