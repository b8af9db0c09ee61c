"""What the running steps of an attempt have put out: its end, for whoever begins to look later. Nothing of a step that
has ended is kept."""

from __future__ import annotations

from collections import deque

from msgspec.structs import replace

from protocol.journal import Output

LIMIT_CHARS = 64 * 1024
"""Of all running steps together. As JSON it is under a message's limit, whatever the characters."""
PIECE_CHARS = 4 * 1024
"""A model's deltas are joined up to this, and a command's megabytes cut into it: what is let go is a whole piece."""


class Tail:
    def __init__(self) -> None:
        self._pieces: deque[Output] = deque()
        self._chars = 0

    @property
    def pieces(self) -> tuple[Output, ...]:
        return tuple(self._pieces)

    def add(self, output: Output) -> None:
        """Pieces come in the order of their offsets, one step's among another's."""
        last = self._pieces[-1] if self._pieces else None
        if last is not None and _is_one(last, output) and len(last.text) + len(output.text) <= PIECE_CHARS:
            self._pieces[-1] = replace(last, text=last.text + output.text)
        else:
            text = output.text
            first = max(0, len(text) - LIMIT_CHARS)
            for at in range(first, len(text), PIECE_CHARS):
                self._pieces.append(replace(output, offset=output.offset + at, text=text[at : at + PIECE_CHARS]))
            self._chars -= first
        self._chars += len(output.text)
        while self._chars > LIMIT_CHARS:
            self._chars -= len(self._pieces.popleft().text)

    def end(self, step: int) -> None:
        """The step's outcome is in the journal, and has it all."""
        self._pieces = deque(piece for piece in self._pieces if piece.step != step)
        self._chars = sum(len(piece.text) for piece in self._pieces)


def _is_one(before: Output, after: Output) -> bool:
    return (before.step, before.channel) == (after.step, after.channel)
