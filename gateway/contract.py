"""What a client's author needs, made from the code: `web/protocol.d.ts`, the types of the live frames and of REST's
bodies and answers, and `docs/rest.openapi.json`. `python -m gateway.contract` writes them, `--check` compares."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.routes import HTTPRoute
from msgspec import Struct

from gateway import app
from gateway.config import Config
from protocol import live
from protocol.generate import files, schema, typescript
from protocol.journal import AnyJournalEvent
from protocol.task import AnyTaskEvent

TYPES = Path(__file__).parent / "web" / "protocol.d.ts"
OPENAPI = files.DOCS / "rest.openapi.json"
UNIONS = {
    "AnyClientFrame": live.AnyClientFrame,
    "CommandFrame": live.CommandFrame,
    "AnyServerFrame": live.AnyServerFrame,
    "AnyTaskEvent": AnyTaskEvent,
    "AnyJournalEvent": AnyJournalEvent,
}
INTRODUCTION = """\
// The frames of /api/live, and the bodies and answers of REST. Made from `protocol/` and `gateway/rest/` by
// `make generate`; do not edit. A field with `?` may be left out; it then has its default.

"""
KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "schema": {"type": "string"},
    "description": "The idempotency key, if it is not the body's `key`: sent again, it is done once.",
}
FAILED = {
    "description": "It was not done; the answer says why, and what to do.",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
}


class Failure(Struct, frozen=True):
    """The answer to what is not done."""

    error: str
    """A sentence that says what to do."""
    field: str = ""
    """The field that is wrong, where it is one."""


def application() -> Litestar:
    """The gateway's application over no parts: to look at, not to run."""
    parts = dict.fromkeys(inspect.signature(app.make).parameters)
    openapi = OpenAPIConfig(title="Errand", version=version("errand"), use_handler_docstrings=True)
    return app.make(**{**parts, "config": Config(), "openapi": openapi})  # pyright: ignore[reportArgumentType]


def types(application: Litestar) -> str:
    """`web/protocol.d.ts`."""
    return INTRODUCTION + typescript.declarations(UNIONS, bodies(application))


def bodies(application: Litestar) -> list[type]:
    """The Structs that REST takes and answers, by name."""
    found = {Failure}
    for _, handler in _handlers(application):
        data = handler.parsed_fn_signature.parameters.get("data")
        answer = handler.parsed_return_field
        fields = [answer, *answer.inner_types, *([data] if data else [])]
        found |= {field.annotation for field in fields if field.is_subclass_of(Struct)}
    return sorted(found, key=lambda kind: kind.__name__)


def _handlers(application: Litestar) -> Iterator[tuple[str, HTTPRouteHandler]]:
    """Each with its path, as OpenAPI writes it."""
    for route in application.routes:
        if isinstance(route, HTTPRoute) and route.path.startswith("/api/"):
            yield from ((route.path_format, handler) for handler in route.route_handlers)


def _needs_no_token(application: Litestar) -> set[tuple[str, str]]:
    """Path and method of what does not ask who is there."""
    return {
        (path, method.lower())
        for path, handler in _handlers(application)
        for method in handler.http_methods
        if not {"asker", "owner"} & set(handler.parsed_fn_signature.parameters)
    }


def document(application: Litestar) -> dict[str, Any]:
    """`docs/rest.openapi.json`: the paths as Litestar has them, the schemas with our docstrings."""
    made = msgspec.to_builtins(application.openapi_schema.to_schema())
    paths = {path: item for path, item in made["paths"].items() if path.startswith("/api/")}
    for item in paths.values():
        for operation in item.values():
            _describe(operation)
    for path, method in _needs_no_token(application):
        if operation := paths[path].get(method):
            operation["security"] = []
    schemas = schema.components(bodies(application), "#/components/schemas/{name}")
    return {
        "openapi": made["openapi"],
        "info": made["info"],
        "paths": dict(sorted(paths.items())),
        "security": [{"device": []}],
        "components": {"securitySchemes": {"device": {"type": "http", "scheme": "bearer"}}, "schemas": schemas},
    }


def _describe(operation: dict[str, Any]) -> None:
    """What Litestar does not know, and does not say as we do."""
    operation["responses"].pop("400", None)
    operation["responses"]["default"] = FAILED
    operation["summary"] = operation.pop("description", operation["summary"])
    del operation["deprecated"]
    for parameter in operation.get("parameters", ()):
        for empty in ("deprecated", "allowEmptyValue", "allowReserved"):
            parameter.pop(empty, None)
    for answer in operation["responses"].values():
        answer.pop("headers", None)
    if "202" in operation["responses"]:
        operation.setdefault("parameters", []).append(KEY)


def main(arguments: Sequence[str]) -> int:
    looked_at = application()
    openapi = json.dumps(document(looked_at), indent=1, ensure_ascii=False) + "\n"
    return files.run({TYPES: types(looked_at), OPENAPI: openapi}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
