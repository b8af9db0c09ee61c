"""One socket: reads what the phone asks for, sends what it has to see, and lets go of a phone that does not keep up."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import assert_never

import anyio
import anyio.abc
import msgspec
from msgspec import Struct

from gateway.errors import Problem
from gateway.live.feed import Feed
from gateway.live.looking import Looking
from gateway.live.outbox import Full, Outbox
from gateway.live.watch import Watch
from gateway.live.wire import Gone, Wire
from gateway.tasks import COMMANDS, Tasks
from gateway.users import Asker
from protocol.base import encode, reader
from protocol.ids import task_id
from protocol.journal import Output
from protocol.live import (
    FRAME_LIMIT_BYTES,
    WATCHES_LIMIT,
    Accepted,
    AnyClientFrame,
    Closing,
    CommandFrame,
    Ping,
    Pong,
    ReceiptSeen,
    Refused,
    SignIn,
    Submit,
    UnwatchTask,
    WatchTask,
    WatchTasks,
    decode_client_frame,
)
from protocol.live import Looking as LookingFrame
from protocol.live import Tasks as TasksFrame
from protocol.task import TaskCommand
from services import bus
from services.bus import Bus, Unavailable

GOING_AWAY = 1012
TRY_AGAIN_LATER = 1013
SIGNED_OUT = 4401
CODES = {404: "not_found", 429: "unavailable", 503: "unavailable"}
"""A problem's HTTP status as the code of a `Refused`."""
PONG = encode(Pong())

CLOSE_SECONDS = 2.0
"""How long the last frame may take."""
COMMAND_TRIES = 3
"""How often a command that NATS did not take is tried: together longer than a restart of NATS takes."""
RECEIPT_SECONDS = 1.0
"""A receipt that did not pass within this time is looked for in the log."""
RECEIPT_LONGEST_SECONDS = 30.0
RECEIPTS_LIMIT = 100
"""Commands of one socket that have no receipt yet."""
LIST_SECONDS = 1.0
"""Between two tries to get the task list."""


class Phone:
    """A signed-in socket. `attend` runs it."""

    def __init__(
        self,
        wire: Wire,
        asker: Asker,
        bus: Bus,
        tasks: Tasks,
        feed: Feed,
        looking: Looking,
        reads: anyio.CapacityLimiter,
        queue_bytes: int,
    ) -> None:
        self.asker = asker
        self._wire = wire
        self._bus = bus
        self._tasks = tasks
        self._feed = feed
        self._looking = looking
        self._reads = reads
        self._outbox = Outbox(queue_bytes)
        self._watches: dict[str, Watch] = {}
        self._group: anyio.abc.TaskGroup
        self._list_limit = 0
        """Lines of the list it watches; 0 when it watches none."""
        self._held_lines: list[bytes] | None = None
        """Lines that came while the list is asked for."""
        self._receipts = 0
        self._storing: tuple[str, str] | None = None
        """Task and key of the command that is being stored."""
        self._early_receipt: bytes | None = None
        """Its receipt, where the scheduler was faster than the answer of NATS to us."""
        self._last: bytes | None = None
        """The closing frame; nothing is sent after it."""
        self._close_code = 1000
        self._blocked_since: float | None = None
        """When the frame that is being sent was begun, or the closing was decided."""

    async def attend(self, greeting: bytes) -> None:
        """Until the connection ends."""
        async with anyio.create_task_group() as self._group:
            self._feed.listeners.add(self)
            try:
                self.put(greeting)
                self._group.start_soon(self._send)
                await self._read()
            finally:
                self._looking.end(self)
                self._feed.listeners.discard(self)
                for watch in self._watches.values():
                    self._feed.remove(watch)
                self._group.cancel_scope.cancel()

    # Out

    def put(self, frame: bytes) -> None:
        """Send a frame that must not be left out."""
        if self._last is not None:
            return
        try:
            self._outbox.put(frame)
        except Full:
            self.close("You read more slowly than there is to read: come back from your cursor.", TRY_AGAIN_LATER)

    def put_preview(self, task: str, output: Output, frame: bytes) -> None:
        if self._last is None:
            self._outbox.put_preview(task, output, frame)

    def put_line(self, frame: bytes) -> None:
        """Send a line of the task list, where it is watched."""
        if self._held_lines is not None:
            self._held_lines.append(frame)
        elif self._list_limit:
            self.put(frame)

    def put_receipt(self, task: str, key: str, frame: bytes) -> None:
        """Send a receipt, after the `Accepted` of its command where that one came from here."""
        if self._storing == (task, key):
            self._early_receipt = frame
        else:
            self.put(frame)

    async def room(self, frame: bytes) -> None:
        await self._outbox.room(frame)

    def close(self, reason: str, code: int, *, come_back: bool = True) -> None:
        """Say why and close; what waits to be sent is dropped."""
        if self._last is None:
            self._last = encode(Closing(reason=reason, come_back=come_back))
            self._close_code = code
            self._blocked_since = time.monotonic()
            self._outbox.put_last(self._last)

    def abort_if_stuck(self, now: float, send_seconds: float) -> None:
        """Cut the connection when it has taken nothing for too long."""
        limit = send_seconds if self._last is None else CLOSE_SECONDS
        if self._blocked_since is not None and now - self._blocked_since > limit:
            self._wire.abort()

    async def _send(self) -> None:
        try:
            while True:
                frame = await self._outbox.get()
                self._blocked_since = time.monotonic()
                await self._wire.send(frame)
                if frame is self._last:
                    await self._wire.close(self._close_code, "")
                    return
                if self._last is None:
                    self._blocked_since = None
        except Gone:
            self._group.cancel_scope.cancel()

    # In

    async def _read(self) -> None:
        try:
            while True:
                data = await self._wire.receive()
                if self._last is None:
                    await self._take(data)
        except Gone:
            return

    async def _take(self, data: str | bytes) -> None:
        if len(data) > FRAME_LIMIT_BYTES:
            self._refuse(f"A frame of {len(data)} bytes is over the limit of {FRAME_LIMIT_BYTES}: send less at once.")
            return
        try:
            frame = decode_client_frame(data)
        except msgspec.MsgspecError as error:
            self._refuse(f"This frame cannot be read: {error}.", key=_key_of(data))
            return
        try:
            await self._handle(frame)
        except Problem as problem:
            task = getattr(frame, "task", "")
            code = CODES.get(problem.status, "refused")
            self._refuse(problem.error, key=getattr(frame, "key", ""), task=task, field=problem.field, code=code)

    async def _handle(self, frame: AnyClientFrame) -> None:
        if isinstance(frame, CommandFrame):
            await self._command(frame)
            return
        match frame:
            case SignIn():
                self._refuse("This socket is signed in already.")
            case WatchTask():
                await self._watch(frame)
            case UnwatchTask():
                if watch := self._watches.pop(frame.task, None):
                    self._feed.remove(watch)
                    watch.stop()
            case WatchTasks():
                self._list_limit = max(1, frame.limit)
                self._feed.watch_list()
                self.list_soon()
            case LookingFrame():
                self._look(frame.looking)
            case Ping():
                self.put(PONG)
            case _:
                assert_never(frame)

    def _look(self, looking: bool) -> None:
        if looking:
            self._looking.begin(self)
        else:
            self._looking.end(self)

    async def answers(self, seconds: float) -> bool:
        return await self._wire.answers(seconds)

    def _refuse(self, reason: str, *, key: str = "", task: str = "", field: str = "", code: str = "refused") -> None:
        self.put(encode(Refused(reason=reason, key=key, task=task, field=field, code=code)))

    # Watching

    async def _watch(self, frame: WatchTask) -> None:
        if watch := self._watches.get(frame.task):
            watch.output = frame.output
            watch.tell()
            return
        if len(self._watches) >= WATCHES_LIMIT:
            raise Problem(429, f"One connection watches at most {WATCHES_LIMIT} tasks: leave one first.")
        with suppress(Unavailable):  # NATS is away: the watch reads as soon as it is back
            await self._tasks.must_exist(self.asker, frame.task)
        subject = f"evt.{self.asker.user}.{frame.task}.>"
        watch = Watch(self._bus, self, self._group, self._reads, subject, max(0, frame.cursor))
        watch.output = frame.output
        self._watches[frame.task] = watch
        self._feed.add(watch)
        watch.start()

    async def hear_output(self) -> None:
        await self._feed.hear_output()

    def list_soon(self) -> None:
        """Send the whole list, then lines."""
        if self._list_limit and self._held_lines is None and self._last is None:
            self._held_lines = []
            self._group.start_soon(self._send_list)

    async def _send_list(self) -> None:
        told = False
        while True:
            try:
                answer = await self._tasks.list(self.asker, limit=self._list_limit)
                break
            except (Unavailable, bus.Refused) as error:
                if not told:
                    self._refuse(f"The task list comes as soon as it can be had: {error}")
                told = True
                await anyio.sleep(LIST_SECONDS)
        self.put(encode(TasksFrame(tasks=answer.tasks, more=answer.more)))
        # Lines that came meanwhile are as new as the list, or newer.
        held, self._held_lines = self._held_lines or [], None
        for line in held:
            self.put(line)

    # Commands

    async def _command(self, frame: CommandFrame) -> None:
        if self._receipts >= RECEIPTS_LIMIT:
            raise Problem(429, f"{RECEIPTS_LIMIT} commands of this connection wait for their receipt: wait for one.")
        task = task_id(self.asker.user, frame.key) if isinstance(frame, Submit) else frame.task
        passed = self._feed.expect(task, frame.key)
        self._storing = (task, frame.key)
        try:
            accepted = await self._store(frame)
            self.put(encode(accepted))
            self._receipts += 1
            self._group.start_soon(self._see_receipt, accepted, COMMANDS[type(frame)], passed)
        except bus.Refused as refused:
            raise Problem(422, refused.reason) from None
        except Unavailable as error:
            if self._early_receipt is None:  # otherwise it was stored, and only NATS's word for it was lost
                raise Problem(503, f"This was not stored, send it again with the same key: {error}") from None
        finally:
            self._storing = None
            early, self._early_receipt = self._early_receipt, None
            if early is not None:
                self.put(early)

    async def _store(self, frame: CommandFrame) -> Accepted:
        for _ in range(COMMAND_TRIES - 1):
            try:
                return await self._tasks.store(self.asker, frame)
            except Unavailable:
                continue
        return await self._tasks.store(self.asker, frame)

    async def _see_receipt(self, accepted: Accepted, kind: type[TaskCommand], passed: anyio.Event) -> None:
        """The feed brings the receipt to every socket of the user. Where it does not, because the command had ended
        before it was sent again or because the feed was interrupted, it is looked for."""
        task, key, wait = accepted.task, accepted.key, RECEIPT_SECONDS
        try:
            while not passed.is_set():
                with anyio.move_on_after(wait):
                    await passed.wait()
                    return
                wait = min(wait * 2, RECEIPT_LONGEST_SECONDS)
                with suppress(Unavailable):
                    if receipt := await self._tasks.receipt(self.asker, task, key, kind):
                        self.put(encode(ReceiptSeen(task=task, receipt=receipt)))
                        return
        finally:
            self._receipts -= 1
            self._feed.expect_no_more(task, key)


class _Named(Struct):
    """Of a frame that cannot be read, what says which it was."""

    key: str = ""


_decode_named = reader(msgspec.json.Decoder(_Named).decode)


def _key_of(data: str | bytes) -> str:
    try:
        return _decode_named(data).key
    except msgspec.MsgspecError:
        return ""
