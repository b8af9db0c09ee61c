"""Generated files: written, or compared with what is there."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def run(made: Mapping[Path, str], arguments: Sequence[str]) -> int:
    """Write each file, or with `--check` say which are stale. The exit code."""
    if "--check" not in arguments:
        for path, text in made.items():
            path.write_text(text)
        return 0
    stale = [
        str(path.relative_to(ROOT)) for path, text in made.items() if not path.exists() or path.read_text() != text
    ]
    if stale:
        print(f"Stale: {', '.join(stale)}. Run `make generate`.", file=sys.stderr)
    return 1 if stale else 0
