"""Messages that several processes share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import anyio
import msgspec
import nats.errors
from nats.aio.msg import Msg

from protocol.routes import Stream
from services import log
from services.bus.client import TIMEOUT_SECONDS, Client, jetstream_api
from services.bus.errors import Later, Refused, Unavailable
from services.bus.headers import NONE_CAME
from services.bus.stored import Stored, delivery_of, expected_of, status_of

NEXT_SECONDS = 15.0
"""How long one request for a shared message waits at the server."""
TAKE_AGAIN_SECONDS = 0.5
FAILED_SECONDS = 10.0
"""A shared message whose handling failed comes again after so long."""
HANDLED_TRIES = 5
"""A shared message whose handling failed so often is buried."""
SHARED_LIMIT = 10_000
"""Messages of one shared consumer that are in hand or wait to come again; beyond it, new ones wait too."""

OnStored = Callable[[Stored], Awaitable[None]]


class Turns:
    """This process's part of a durable consumer that several share. `run` takes messages until `stop`.

    A message comes again, here or elsewhere, when its handling raises Later or fails, or when its process has not ended
    it within `ack_seconds`: one that dies hands nothing over sooner. So each is handled at least once; one whose
    handling failed `HANDLED_TRIES` times in one process is buried.
    """

    def __init__(
        self,
        client: Client,
        stream: Stream,
        name: str,
        filters: Sequence[str],
        handle: OnStored,
        bury: Callable[[str, Stored, str], Awaitable[None]],
        *,
        ack_seconds: float,
        at_once: int,
    ) -> None:
        self._nats = client
        self._stream = stream
        self._name = name
        self._handle = handle
        self._bury = bury
        self._failures: Counter[int] = Counter()
        """Of messages that come again, by sequence."""
        self._at_once = at_once
        self._config = {
            "durable_name": name,
            "deliver_policy": "new",
            "ack_policy": "explicit",
            "ack_wait": int(ack_seconds * 1e9),
            "max_ack_pending": SHARED_LIMIT,
            "filter_subjects": list(filters),
        }
        self._arrived: list[asyncio.Queue[Msg | None]] = [asyncio.Queue() for _ in range(at_once)]
        self._stopping = False
        self._running = anyio.Lock()
        self._log = log.get()

    async def run(self) -> None:
        async with self._running, anyio.create_task_group() as group:
            for arrived in self._arrived:
                group.start_soon(self._take, arrived)

    async def stop(self) -> None:
        """Return when what is in hand has been handled; more is not taken."""
        self._stopping = True
        self.wake()
        async with self._running:
            pass

    def wake(self) -> None:
        """Ask anew: a server that restarted knows nothing of the requests that wait."""
        for arrived in self._arrived:
            arrived.put_nowait(None)

    async def _take(self, arrived: asyncio.Queue[Msg | None]) -> None:
        # Not by `request`: what comes bears its own subject, by which nats-py finds no request.
        inbox = self._nats.new_inbox()
        subscription = await self._nats.subscribe(inbox, cb=arrived.put)
        made = False
        try:
            while not self._stopping:
                try:
                    made = made or await self._make()
                    message = await self._next(inbox, arrived)
                except (Unavailable, Refused) as error:
                    self._log.warning("shared_consumer", name=self._name, reason=str(error))
                    made = False
                    await asyncio.sleep(TAKE_AGAIN_SECONDS)
                    continue
                if message is not None:
                    await self._settle(message)
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _make(self) -> bool:
        """Make the consumer, or find that another process did."""
        request = {"stream_name": self._stream, "config": self._config}
        await jetstream_api(self._nats, f"CONSUMER.CREATE.{self._stream}.{self._name}", request)
        return True

    async def _next(self, inbox: str, arrived: asyncio.Queue[Msg | None]) -> Msg | None:
        """The next message, or None when none came. Raises Unavailable, also when there is no such consumer."""
        request = msgspec.json.encode({"batch": 1, "expires": int(NEXT_SECONDS * 1e9)})
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        try:
            if arrived.empty():  # otherwise one came after we had stopped waiting for it
                await self._nats.publish(subject, request, reply=inbox)
            message = await asyncio.wait_for(arrived.get(), NEXT_SECONDS + TIMEOUT_SECONDS)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"NATS did not answer for {self._name}: {error!r}") from error
        status = status_of(message) if message is not None else None
        if status not in (None, NONE_CAME):
            raise Unavailable(f"NATS gives no messages of {self._name}: status {status}")
        return None if status else message

    async def _settle(self, message: Msg) -> None:
        sequence, _, nanoseconds, _ = delivery_of(message.reply)
        at = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
        stored = Stored(message.subject, sequence, message.data, at, expected_of(message))
        answer = b"+ACK"
        try:
            await self._handle(stored)
        except Later as later:
            answer = _again(later.seconds)
        except Exception as error:
            self._log.exception("shared_message_failed", subject=message.subject, sequence=sequence)
            answer = _again(FAILED_SECONDS)
            self._failures[sequence] += 1
            if self._failures[sequence] >= HANDLED_TRIES:
                with suppress(Unavailable):
                    await self._bury(self._stream, stored, f"{self._name} failed over it: {error!r}")
                    answer = b"+ACK"
        if answer == b"+ACK":
            self._failures.pop(sequence, None)
        with suppress(nats.errors.Error):  # not acknowledged, it comes again
            await self._nats.publish(message.reply, answer)


def _again(seconds: float) -> bytes:
    """The answer that brings a message back."""
    return b'-NAK {"delay": %d}' % int(seconds * 1e9)
