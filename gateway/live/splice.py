"""Joins what is read back from the stream with what arrives live, so that a reader gets each event once and in order.
Pure.

A live event is handed on only when it is proven to be the next one: it was committed with the reader's position as the
last sequence of the whole task (`follows`), or its sequence is the very next. A decision is committed over the
decisions alone, so it proves nothing about the journal before it: it is held, and the stream is read from the
position. A journal entry, the frequent kind, always proves itself. Nothing here has to know why a live event is
missing."""

from __future__ import annotations

from msgspec import Struct

HELD_LIMIT = 256
"""Live events kept while the stream is read. The oldest are let go first: what is then missing is read in the next
round."""
UNKNOWN = -1


class Event(Struct, frozen=True):
    """One event of a task, encoded for the phone."""

    sequence: int
    follows: int
    """The sequence of the task's event before this one, `UNKNOWN` where the event does not say it."""
    frame: bytes
    is_running: bool = False
    """Whether, as far as this event shows, an attempt is at work: then output may come."""


class Splice:
    """One reader's place in one task. A read of the stream is `begin`, `take` for each event, `settle`; while
    `missing` is true, one is due."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        """The sequence of the last event that was handed on."""
        self.missing = True
        self._reading = False
        self._held: list[Event] = []

    @property
    def live(self) -> bool:
        """Whether events are handed on as they arrive."""
        return not (self.missing or self._reading)

    def offer(self, event: Event) -> bool:
        """A live event. True: hand it on now. Otherwise it is known already, or held."""
        if event.sequence <= self.cursor:
            return False
        if self.live and self._is_next(event):
            self.cursor = event.sequence
            return True
        self._held.append(event)
        if len(self._held) > HELD_LIMIT:
            del self._held[0]
        self.missing = self.missing or not self._reading
        return False

    def doubt(self) -> None:
        """Live events may have been missed, also the last one."""
        self.missing = True

    def begin(self) -> None:
        """The stream is read from `cursor`, by a request that is sent after this call."""
        self.missing = False
        self._reading = True

    def take(self, event: Event) -> bool:
        """An event of that read, in order and with none left out. True: hand it on."""
        if event.sequence <= self.cursor:
            return False
        self.cursor = event.sequence
        return True

    def settle(self) -> list[Event]:
        """The read is over: hand these on, at once."""
        self._reading = False
        held = sorted((event for event in self._held if event.sequence > self.cursor), key=lambda event: event.sequence)
        self._held = []
        return [event for event in held if self._joins(event)]

    def _joins(self, event: Event) -> bool:
        if event.sequence <= self.cursor:
            return False
        if self._is_next(event):
            self.cursor = event.sequence
            return True
        self._held.append(event)
        self.missing = True
        return False

    def _is_next(self, event: Event) -> bool:
        return event.follows == self.cursor or event.sequence == self.cursor + 1
