"""What one watch shows of running steps: what was printed before somebody looked, then what is printed, each character
once and in order.

The runner is asked for the first once the second is heard, so that nothing is between them. Both may have the same
pieces: of a piece, what is behind the place that was reached in its step is shown."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

import anyio.abc
from msgspec.structs import replace

from protocol.base import encode
from protocol.journal import Output
from protocol.live import OutputSeen
from protocol.query import Printed

HELD_LIMIT = 16
"""Pieces that are kept while the runner is asked; those that are let go were printed before it answers."""
STEPS_LIMIT = 16
"""Steps whose places are kept: more do not run at one time."""


class Places:
    """How far each step's output was shown. Pure."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], int] = {}

    def rest(self, output: Output) -> Output | None:
        """What of the piece was not shown yet; None where all was."""
        step = (output.attempt, output.step)
        seen = self._ends.get(step, 0)
        end = output.offset + len(output.text)
        if end <= seen:
            return None
        self._ends[step] = end
        if len(self._ends) > STEPS_LIMIT:
            del self._ends[next(iter(self._ends))]
        known = max(0, seen - output.offset)
        return replace(output, offset=output.offset + known, text=output.text[known:]) if known else output


class Previews:
    """`ask` hears previews from now on, and then asks the runner; `show` puts a piece into the outbox, while `shows`
    says that there is a place for it: that its step is on the screen."""

    def __init__(
        self,
        task: str,
        group: anyio.abc.TaskGroup,
        ask: Callable[[], Awaitable[Printed | None]],
        shows: Callable[[], bool],
        show: Callable[[str, Output, bytes], None],
    ) -> None:
        self._task = task
        self._group = group
        self._ask = ask
        self._shows = shows
        self._show = show
        self._places = Places()
        self._held: deque[tuple[Output, bytes]] = deque(maxlen=HELD_LIMIT)
        self._wanted = False
        self._asking = False

    def catch_up(self) -> None:
        """Some may have been missed."""
        self._wanted = True
        if not self._asking:
            self._asking = True
            self._group.start_soon(self._catch_up)

    def offer(self, output: Output, frame: bytes) -> None:
        """A piece as it is printed."""
        if self._asking:
            self._held.append((output, frame))
        else:
            self._put(output, frame)

    async def _catch_up(self) -> None:
        try:
            while self._wanted:
                self._wanted = False
                printed = await self._ask()
                for output in printed.output if printed else ():
                    self._put(output)
        finally:
            self._asking = False
        for output, frame in self._held:
            self._put(output, frame)
        self._held.clear()

    def _put(self, output: Output, frame: bytes = b"") -> None:
        """`frame` is the piece as all who watch are sent it."""
        rest = self._places.rest(output) if self._shows() else None
        if rest is not None:
            whole = frame if rest is output else b""
            self._show(self._task, rest, whole or encode(OutputSeen(task=self._task, output=rest)))
