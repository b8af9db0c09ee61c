"""Whatever comes from a server is text: what would steer a terminal is taken out before it is shown."""

from __future__ import annotations

import re

_SEQUENCES = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c|(?=\n)|$)"  # OSC: titles, links, the clipboard
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\n]*(?:\x1b\\|\x9c|(?=\n)|$)"  # DCS, SOS, PM, APC
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*(?:[@-~]|$)"  # CSI: colours, cursor, erase
    r"|\x1b[ -/]*[0-~]?",  # two-character escapes, or one that was cut off
)
_CONTROLS = re.compile(
    # C0 but tab and newline, DEL, C1, what turns the writing direction (CVE-2021-42574), tags, lone surrogates
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\U000e0000-\U000e007f\ud800-\udfff]"
)
_NEWLINES = re.compile(r"\r\n|[\u2028\u2029\x85]")
_OVERWRITTEN = re.compile(r"[^\n]*\r(?=[^\n])")
TAB = "    "
_STEERING_IN_JSON = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def clean(text: str) -> str:
    """`text` as a terminal may show it: lines of printable characters. A line that was written over (progress bars)
    keeps its last state."""
    text = _NEWLINES.sub("\n", _SEQUENCES.sub("", text))
    text = _OVERWRITTEN.sub("", text)
    return _CONTROLS.sub("", text).replace("\t", TAB)


def one_line(text: str, limit: int = 0) -> str:
    """`text` cleaned, its first line with a sign that there is more; cut at `limit` characters where one is given."""
    lines = [line for line in clean(text).strip().split("\n") if line.strip()]
    first = lines[0].rstrip() if lines else ""
    return cut(first + (" …" if len(lines) > 1 else ""), limit)


def cut(text: str, limit: int) -> str:
    return text if not limit or len(text) <= limit else text[: limit - 1] + "…"


def tail(text: str, lines: int) -> list[str]:
    """The last non-empty lines of `text`, cleaned."""
    return [line.rstrip() for line in clean(text).split("\n") if line.strip()][-lines:]


def safe_json(raw: str) -> str:
    """JSON on one line, the same value, in which nothing steers a terminal."""
    # Such characters can only stand inside of strings; a line break only between tokens.
    return _STEERING_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", raw.replace("\n", " ").replace("\r", " "))
