"""The messages' classes -> JSON Schema (2020-12)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from protocol import live
from protocol.generate import docstrings
from protocol.query import Refusal
from protocol.routes import ROUTES, messages_of


def messages() -> list[type]:
    """Every message of the house, by name."""
    kinds = {message for route in ROUTES for message in (*route.messages, *route.replies)}
    kinds |= {Refusal, *messages_of(live.AnyClientFrame), *messages_of(live.AnyServerFrame)}
    return sorted(kinds, key=lambda kind: kind.__name__)


def document() -> dict[str, Any]:
    """Every message by its class's name under `$defs`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Errand's messages",
        "$defs": components(messages(), "#/$defs/{name}"),
    }


def components(kinds: Iterable[Any], ref_template: str) -> dict[str, Any]:
    """The schemas of `kinds` and of all that they consist of, by class name, with the docstrings of their fields."""
    kinds = list(kinds)
    _, schemas = msgspec.json.schema_components(kinds, ref_template=ref_template)
    for kind in structs(kinds):
        docs = docstrings.of_fields(kind)
        properties = schemas[kind.__name__].get("properties", {})
        for field in msgspec.structs.fields(kind):
            if field.name in docs:
                properties[field.encode_name]["description"] = docs[field.name]
    return dict(sorted(schemas.items()))


def structs(kinds: Iterable[Any]) -> list[type]:
    """The Structs that `kinds` consist of, themselves included, each once and a user before what it uses."""
    found: dict[type, None] = {}
    for kind in kinds:
        _collect(msgspec.inspect.type_info(kind), found)
    return list(found)


def _collect(info: msgspec.inspect.Type, found: dict[type, None]) -> None:
    match info:
        case msgspec.inspect.StructType(cls=cls, fields=fields):
            if cls not in found:
                found[cls] = None
                for field in fields:
                    _collect(field.type, found)
        case msgspec.inspect.UnionType(types=types):
            for part in types:
                _collect(part, found)
        case msgspec.inspect.VarTupleType(item_type=item) | msgspec.inspect.ListType(item_type=item):
            _collect(item, found)
        case msgspec.inspect.DictType(value_type=item):
            _collect(item, found)
