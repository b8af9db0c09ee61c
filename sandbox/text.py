"""Bytes from a command as text that is valid in JSON whatever they were."""

from __future__ import annotations

import codecs

NUL_PICTURE = "\u2400"
CONTINUATION_LIMIT = 3
"""A UTF-8 character has at most this many continuation bytes."""


class TextDecoder:
    """Decodes a stream piece by piece: a character cut between two pieces stays whole, invalid bytes become U+FFFD, NUL
    becomes U+2400."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, data: bytes, final: bool = False) -> str:
        return self._decoder.decode(data, final).replace("\0", NUL_PICTURE)


def decode(data: bytes) -> str:
    return TextDecoder().decode(data, final=True)


def join_kept(head: bytes, tail: bytes, dropped_bytes: int) -> tuple[str, int]:
    """(text, bytes dropped) of a capped output, with a line where the middle is missing. A character that the cap cut
    in two is dropped whole."""
    if not dropped_bytes:
        return decode(head + tail), 0
    head_cut = incomplete_end(head)
    tail_cut = leading_continuations(tail)
    dropped = dropped_bytes + head_cut + tail_cut
    kept_head = decode(head[: len(head) - head_cut])
    return f"{kept_head}\n[… {dropped} bytes left out …]\n{decode(tail[tail_cut:])}", dropped


def incomplete_end(data: bytes) -> int:
    """How many bytes at the end begin a character that is not complete."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[-CONTINUATION_LIMIT - 1 :])
    return len(decoder.getstate()[0])


def leading_continuations(data: bytes) -> int:
    """How many continuation bytes a cut character has left at the start."""
    start = data[:CONTINUATION_LIMIT]
    return len(start) - len(start.lstrip(bytes(range(0x80, 0xC0))))
