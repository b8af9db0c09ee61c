"""What happens to a user's tasks, live: one interest in NATS a user, however many sockets the user has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import anyio.abc
import msgspec

from gateway.live import frames
from gateway.live.lines import Lines
from gateway.live.watch import Watch
from protocol.base import encode
from protocol.journal import decode_output
from protocol.live import OutputSeen, ReceiptSeen, TaskLine
from services import log
from services.bus import Bus, Refused, Stored, Unavailable

AGAIN_SECONDS = 0.5


class Listener(Protocol):
    """A phone, as the feed sees it."""

    def put_receipt(self, task: str, key: str, frame: bytes) -> None: ...

    def put_line(self, frame: bytes) -> None: ...

    def list_soon(self) -> None:
        """Send the whole list again, where it is watched."""
        ...


Ending = Callable[[], Awaitable[None]]


class Interest:
    """One subscription that many may ask for."""

    def __init__(self, subscribe: Callable[[], Awaitable[Ending]]) -> None:
        self._subscribe = subscribe
        self._end: Ending | None = None
        self._opening: asyncio.Future[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Return once it is there. Raises Unavailable."""
        while self._end is None:
            if self._opening is not None:
                await asyncio.shield(self._opening)  # another socket of the user is at it
                continue
            self._opening = asyncio.get_running_loop().create_future()
            try:
                self._end = await self._subscribe()
            finally:
                self._opening.set_result(None)
                self._opening = None
        if self._closed:
            await self._end()

    async def close(self) -> None:
        self._closed = True
        if self._end is not None:
            await self._end()


class Feed:
    """One user's. Opened with the first socket, closed with the last."""

    def __init__(self, bus: Bus, user: str, group: anyio.abc.TaskGroup) -> None:
        self.user = user
        self.listeners: set[Listener] = set()
        self._bus = bus
        self._group = group
        self._watches: dict[str, list[Watch]] = {}
        self._expected: dict[tuple[str, str], anyio.Event] = {}
        self._lines: Lines | None = None
        self._changed: set[str] = set()
        self._sending_lines = False
        self._events = Interest(lambda: bus.tap(f"evt.{user}.>", self._on_stored))
        self._output = Interest(lambda: bus.listen(f"out.{user}.*", self._on_output))

    # Interests

    async def open(self) -> None:
        """Hear of every event from now on. Raises Unavailable."""
        await self._events.open()

    async def hear_output(self) -> None:
        """Hear of previews too: most phones look at a task that does nothing. Raises Unavailable."""
        await self._output.open()

    async def close(self) -> None:
        await self._events.close()
        await self._output.close()

    def interrupted(self) -> None:
        """Something may have been missed: read again all that is watched."""
        for watches in self._watches.values():
            for watch in watches:
                watch.doubt()
        for listener in self.listeners:
            listener.list_soon()

    # What the sockets want

    def add(self, watch: Watch) -> None:
        self._watches.setdefault(watch.task, []).append(watch)

    def remove(self, watch: Watch) -> None:
        watches = self._watches[watch.task]
        watches.remove(watch)
        if not watches:
            del self._watches[watch.task]

    def watch_list(self) -> None:
        """From now on, lines are made of tasks that change."""
        self._lines = self._lines or Lines(self._bus, self.user)

    def expect(self, task: str, key: str) -> anyio.Event:
        """Set when the receipt of this command passes."""
        return self._expected.setdefault((task, key), anyio.Event())

    def expect_no_more(self, task: str, key: str) -> None:
        self._expected.pop((task, key), None)

    # What happens

    async def _on_stored(self, stored: Stored) -> None:
        _, _, task, log_name, *_ = stored.subject.split(".", 4)
        try:
            if log_name == "journal":
                self._on_journal(task, stored)
            elif log_name == "task":
                self._on_decision(task, stored)
        except msgspec.MsgspecError as error:
            event = frames.of_unreadable(task, stored)
            for watch in self._watches.get(task, ()):
                watch.offer(event)
            self._group.start_soon(self._bury, stored, str(error))

    def _on_journal(self, task: str, stored: Stored) -> None:
        if watches := self._watches.get(task):
            event = frames.of_journal(task, stored)
            for watch in watches:
                watch.offer(event)

    def _on_decision(self, task: str, stored: Stored) -> None:
        event, decision = frames.of_decision(task, stored)
        for watch in self._watches.get(task, ()):
            watch.offer(event)
        if decision.receipt is not None:
            frame = encode(ReceiptSeen(task=task, receipt=decision.receipt))
            for listener in self.listeners:
                listener.put_receipt(task, decision.receipt.key, frame)
            if expected := self._expected.get((task, decision.receipt.key)):
                expected.set()
        if self._lines is not None:
            self._changed.add(task)
            if not self._sending_lines:
                self._sending_lines = True
                self._group.start_soon(self._send_lines, self._lines)

    async def _on_output(self, subject: str, data: bytes) -> None:
        task = subject.rpartition(".")[2]
        if watches := self._watches.get(task):
            try:
                output = decode_output(data)
            except msgspec.MsgspecError as error:
                log.get().warning("unreadable_output", task=task, reason=str(error))
                return
            frame = encode(OutputSeen(task=task, output=output))
            for watch in watches:
                watch.offer_preview(output, frame)

    async def _send_lines(self, lines: Lines) -> None:
        while self._changed:
            task = self._changed.pop()
            try:
                line = await lines.line(task)
            except Unavailable:
                self._changed.add(task)
                await anyio.sleep(AGAIN_SECONDS)
                continue
            if line is not None:
                frame = encode(TaskLine(task=line))
                for listener in self.listeners:
                    listener.put_line(frame)
        self._sending_lines = False

    async def _bury(self, stored: Stored, reason: str) -> None:
        try:
            await self._bus.bury("tasks", stored, reason)
        except (Unavailable, Refused) as error:
            log.get().error("not_buried", sequence=stored.sequence, reason=str(error))
