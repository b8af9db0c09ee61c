from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from protocol.generate import asyncapi, files, page, schema


def main(arguments: Sequence[str]) -> int:
    made = {
        "protocol.md": page.page(),
        "protocol.schema.json": _json(schema.document()),
        "protocol.asyncapi.json": _json(asyncapi.document()),
    }
    return files.run({files.DOCS / name: text for name, text in made.items()}, arguments)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
