"""The secrets of a set-up: taken out of what it says, and looked for in what it leaves."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from protocol.secret import LEAST_CHARS

CHUNK_BYTES = 1024 * 1024


def forms(secrets: Mapping[str, str]) -> dict[bytes, str]:
    """How each secret may be written, with its name: as it is, line by line, in a URL, and within a base64 text at each
    of the three places where it can begin."""
    found: dict[bytes, str] = {}
    for name, value in secrets.items():
        lines = [line.strip() for line in value.splitlines() if len(line.strip()) >= LEAST_CHARS]
        for text in {value, *lines, quote(value, safe="")}:
            found[text.encode()] = name
        for before in range(3):
            found[_within_base64(value.encode(), before)] = name
    return found


def _within_base64(value: bytes, before: int) -> bytes:
    """The characters that depend on `value` alone, where `before` bytes stand before it in its group of three."""
    text = base64.b64encode(bytes(before) + value)
    whole = (before + len(value)) // 3 * 4
    return text[(before * 8 + 5) // 6 : whole]


class Redactor:
    """Puts names in the place of secrets in a text that comes in pieces."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._forms = {form.decode(): name for form, name in forms(secrets).items()}
        # The longest first: one secret may be the beginning of another.
        self._any = re.compile("|".join(map(re.escape, sorted(self._forms, key=len, reverse=True))))
        self._longest = max(map(len, self._forms), default=1)
        self._held = ""

    def all(self, text: str) -> str:
        return self._any.sub(lambda found: f"[{self._forms[found[0]]}]", text) if self._forms else text

    def feed(self, piece: str) -> str:
        """What can be shown by now: the beginning of a secret may be at the end."""
        if not self._forms:
            return piece
        text = self._held + piece
        # What begins before this place is there as a whole.
        cut = max(0, len(text) - self._longest + 1)
        begun = (found for found in self._any.finditer(text) if found.start() < cut)
        cut = max([cut, *(found.end() for found in begun)])
        self._held = text[cut:]
        return self.all(text[:cut])

    def rest(self) -> str:
        held, self._held = self._held, ""
        return self.all(held)


def find_in_file(path: Path, searched: Mapping[bytes, str]) -> tuple[int, str] | None:
    """Where in the file a secret begins, and its name."""
    overlap = max(map(len, searched), default=1) - 1
    start, held = 0, b""
    for chunk in _chunks(path):
        data = held + chunk
        for form, name in searched.items():
            if (at := data.find(form)) >= 0:
                return start + at, name
        held = data[-overlap:] if overlap else b""
        start += len(data) - len(held)
    return None


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
