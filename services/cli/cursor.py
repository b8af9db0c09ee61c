"""Where a watch stands: which events are new, which came before, and whether one is missing. Pure."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from protocol.live import DecisionSeen, JournalSeen


class Verdict(Enum):
    NEW = "new"
    SEEN = "seen"
    GAP = "gap"
    """An event before this one was not sent: watch again from the cursor."""


class Cursor(Struct):
    """The sequence of the last event seen of one task. Events of a task come in order, so all up to it were seen."""

    sequence: int = 0

    def take(self, frame: DecisionSeen | JournalSeen) -> Verdict:
        """Judge the frame; a new one moves the cursor."""
        if frame.sequence <= self.sequence:
            return Verdict.SEEN
        if _known_before(frame) > self.sequence:
            return Verdict.GAP
        self.sequence = frame.sequence
        return Verdict.NEW


def _known_before(frame: DecisionSeen | JournalSeen) -> int:
    """The highest sequence of this task that the frame shows to exist before itself."""
    if isinstance(frame, JournalSeen):
        return frame.previous
    return max(frame.previous, frame.decision.journal_sequence)
