"""A git bundle's header, read by ourselves: what comes out of a sandbox is data. Pure."""

from __future__ import annotations

import re

from msgspec import Struct

from services.bus import Refused

HEADER_LIMIT_BYTES = 64 * 1024
SIGNATURES = {b"# v2 git bundle": 2, b"# v3 git bundle": 3}
LINE = re.compile(rb"-?[0-9a-f]{40}(?:[0-9a-f]{24})?(?: .*)?")


class Bundle(Struct, frozen=True):
    """The commits that a bundle brings (its refs' targets), and where its pack begins."""

    tips: tuple[str, ...]
    pack_offset: int


def read_bundle(data: bytes) -> Bundle:
    """Refused when it is none, or one with capabilities that we did not ask for (a filter leaves objects out)."""
    end = data.find(b"\n\n", 0, HEADER_LIMIT_BYTES)
    signature, *lines = data[: max(end, 0)].split(b"\n")
    if signature not in SIGNATURES or not data.startswith(b"PACK", end + 2):
        raise Refused("The bundle with the work is damaged: it is no git bundle.")
    tips = []
    for line in lines:
        if line.startswith(b"@object-format=") and SIGNATURES[signature] == 3:
            continue
        if not LINE.fullmatch(line):
            raise Refused("The bundle with the work is damaged: its header has lines that are not allowed.")
        if not line.startswith(b"-"):
            tips.append(line.split(b" ")[0].decode())
    return Bundle(tuple(tips), end + 2)
