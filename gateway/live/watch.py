"""One socket watching one task: what is stored is read back, then the feed is followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import anyio
import anyio.abc

from gateway.live.frames import of_stored
from gateway.live.preview import Previews
from gateway.live.splice import Event, Splice
from protocol.base import encode
from protocol.journal import Output
from protocol.live import CaughtUp, Refused
from protocol.query import AskPrinted, Printed
from protocol.routes import printed_subject
from services import log
from services.archive import Gone, with_archived
from services.bus import Bus, Stored, Unavailable

PAGE = 256
"""Events that are read at once: what a slow phone makes us keep in memory."""
AGAIN_SECONDS = 0.1
"""Between two reads when the first was not answered, or brought nothing of what is missing."""


PRINTED_SECONDS = 2.0
"""A runner that is busy for longer shows what it prints from then on."""


class Sink(Protocol):
    """Where frames go: a phone."""

    def put(self, frame: bytes) -> None: ...

    def put_preview(self, task: str, output: Output, frame: bytes) -> None: ...

    async def room(self, frame: bytes) -> None:
        """Return when the frame may be put without crowding out what is live."""
        ...

    async def hear_output(self) -> None:
        """Return once what is printed from now on is offered. Raises Unavailable."""
        ...


class Watch:
    """`offer` and `doubt` are called by the feed; reads run in the phone's task group."""

    def __init__(
        self,
        bus: Bus,
        sink: Sink,
        group: anyio.abc.TaskGroup,
        reads: anyio.CapacityLimiter,
        subject: str,
        cursor: int,
    ) -> None:
        _, self._user, self.task, _ = subject.split(".")
        self.output = False
        self._bus = bus
        self._sink = sink
        self._group = group
        self._reads = reads
        self._subject = subject
        self._splice = Splice(cursor)
        self._reading = False
        self._told = False
        self._stopped = False
        self._is_running: bool | None = None if cursor else False
        """Whether an attempt is at work; None while no event was seen that says so."""
        self._previews: Previews | None = None
        """Made when there is something to show: most phones look at a task that does nothing."""

    def start(self) -> None:
        """Read what is stored after the cursor. The feed must have been joined: what it brings meanwhile is held."""
        self._read_soon()

    def offer(self, event: Event) -> None:
        """An event as it was stored."""
        if self._splice.offer(event):
            self._hand_on(event)
        elif self._splice.missing:
            self._read_soon()

    def offer_preview(self, output: Output, frame: bytes) -> None:
        """Output of a running step, as it is printed."""
        if self._previews is not None:
            self._previews.offer(output, frame)

    def doubt(self) -> None:
        """The feed may have missed something."""
        self._splice.doubt()
        self._read_soon()

    def stop(self) -> None:
        """Nothing is put any more."""
        self._stopped = True

    def tell(self) -> None:
        """Say again that all has been sent, once it has."""
        self._told = False
        if self._splice.live:
            self._tell()
            self._show_printed()

    def _read_soon(self) -> None:
        if not self._reading:
            self._reading = True
            self._group.start_soon(self._catch_up)

    async def _catch_up(self) -> None:
        try:
            while self._splice.missing and not self._stopped:
                before = self._splice.cursor
                await self._read()
                if self._splice.missing and self._splice.cursor == before:
                    await anyio.sleep(AGAIN_SECONDS)
            if not (self._told or self._stopped):
                self._tell()
            self._show_printed()
        finally:
            self._reading = False

    async def _read(self) -> None:
        self._splice.begin()
        try:
            while await self._read_page():
                pass
        except Unavailable:
            self._splice.doubt()
        for event in self._splice.settle():
            self._hand_on(event)

    async def _read_page(self) -> bool:
        """Whether there may be more."""
        after = self._splice.cursor
        async with self._reads:
            page = await self._bus.replay(self._subject, after=after, limit=PAGE)
            whole = await self._with_archived(page, after)
        for stored in whole:
            event = of_stored(self.task, stored)
            await self._sink.room(event.frame)
            if self._stopped:
                return False
            if self._splice.take(event):
                self._hand_on(event)
        return len(page) == PAGE

    async def _with_archived(self, page: Sequence[Stored], after: int) -> Sequence[Stored]:
        try:
            return await with_archived(self._bus, self._subject, page, after)
        except Gone as gone:
            log.get().error("archive_gone", task=self.task, reason=gone.reason)
            self._sink.put(encode(Refused(task=self.task, reason=gone.reason, code=gone.code)))
            return page

    def _hand_on(self, event: Event) -> None:
        if not self._stopped:
            self._is_running = event.is_running
            self._sink.put(event.frame)
            if self._previews is None and self._splice.live:
                self._show_printed()

    def _show_printed(self) -> None:
        """Where an attempt is at work: what it printed so far, and what it prints."""
        if not self.output or self._stopped:
            return
        if self._is_running is None:
            self._group.start_soon(self._look_for_attempt)
        elif self._is_running:
            if self._previews is None:
                self._previews = Previews(self.task, self._group, self._ask, self._shows_output, self._sink.put_preview)
            self._previews.catch_up()

    async def _look_for_attempt(self) -> None:
        """Nothing was stored after the cursor: its runner, if there is one, says so itself."""
        if await self._ask_runner() is not None and self._is_running is None:
            self._is_running = True
            self._show_printed()

    async def _ask(self) -> Printed | None:
        while not self._stopped:
            try:
                await self._sink.hear_output()
                break
            except Unavailable:
                await anyio.sleep(AGAIN_SECONDS)
        return await self._ask_runner()

    async def _ask_runner(self) -> Printed | None:
        async with self._reads:
            return await self._bus.ask_present(
                printed_subject(self._user, self.task), AskPrinted(), Printed, timeout_seconds=PRINTED_SECONDS
            )

    def _shows_output(self) -> bool:
        """Before its step was shown, output would mean nothing; what is left out then is asked for once it was."""
        return self.output and self._splice.live and not self._stopped

    def _tell(self) -> None:
        self._told = True
        self._sink.put(encode(CaughtUp(task=self.task, cursor=self._splice.cursor)))
