"""The generated contracts, read by the tools that their users have."""

from __future__ import annotations

import json

import openapi_spec_validator
import pytest

from protocol.generate.files import DOCS
from tests.web import node


def test_the_asyncapi_document_satisfies_the_official_parser() -> None:
    done = node.run(node.HERE / "asyncapi.cjs", DOCS / "protocol.asyncapi.json", node.packages())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_the_openapi_document_is_valid_and_says_what_each_request_does() -> None:
    document = json.loads((DOCS / "rest.openapi.json").read_text())
    openapi_spec_validator.validate(document)
    said = [operation["summary"] for item in document["paths"].values() for operation in item.values()]
    assert [summary for summary in said if not summary.endswith((".", "!"))] == [], "give the handler a docstring"


def test_the_protocol_page_says_what_each_message_is() -> None:
    lines = (DOCS / "protocol.md").read_text().splitlines()
    assert [line for line in lines if line.endswith("|  |")] == [], "give the class a docstring"


@pytest.mark.parametrize("project", ["page", "worker", "examples"])
def test_the_javascript_satisfies_the_typescript_compiler(project: str) -> None:
    done = node.run(node.packages() / "typescript/bin/tsc", "--project", node.HERE / f"tsconfig.{project}.json")
    assert done.returncode == 0, done.stdout
