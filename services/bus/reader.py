"""An ordered read of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import anyio
import nats.errors
from nats.aio.msg import Msg

from protocol.routes import Stream
from services.bus.client import RECONNECT_SECONDS, Client, jetstream_api
from services.bus.errors import Refused, Unavailable
from services.bus.stored import Stored, delivery_of, expected_of, status_of

HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.5
"""A reader that heard nothing for so long, no heartbeat either, is made again."""


class Reader:
    """An ordered read that survives reconnects and server restarts: a push consumer without acknowledgements, made
    again from the last sequence whenever a message is missing or the server falls silent."""

    def __init__(self, client: Client, stream: Stream, filters: Sequence[str], after: int) -> None:
        self.position = after
        """The sequence of the last message that was handed out."""
        self.caught_up = anyio.Event()
        """Set once everything that was stored when the read began has been handed out."""
        self.name = f"{stream}:{','.join(filters)}"
        self._nats = client
        self._stream = stream
        self._filters = filters
        self._received = after
        self._expected_delivery = 1
        self._batch: list[Stored] = []
        self._owed: set[str] = set()
        """Flow control requests that wait for their answer."""
        self._pending: int | None = None
        self._wake = asyncio.Event()
        self._remake = asyncio.Event()
        self._heard_at = 0.0
        self._generation = 0

    @property
    def moving(self) -> bool:
        """False when the server has been silent for longer than its heartbeat allows."""
        return self._now() - self._heard_at < SILENCE_SECONDS + 2

    def make_again(self) -> None:
        """Do not wait for the silence: a server that restarted has no such consumer."""
        self._remake.set()

    async def keep(self) -> None:
        """Keep a consumer going until cancelled."""
        while True:
            subscription = None
            try:
                subscription = await self._make()
                await self._until_broken()
            except (Unavailable, Refused, nats.errors.Error):
                await asyncio.sleep(RECONNECT_SECONDS)  # nobody tells when a server that is coming up answers
            finally:
                if subscription is not None:
                    with suppress(nats.errors.Error):
                        await subscription.unsubscribe()

    async def batches(self) -> AsyncIterator[list[Stored]]:
        """What has arrived since the last time, never empty, in order. `position` is moved before each batch is handed
        out."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._batch = self._batch, []
            if batch:
                self.position = batch[-1].sequence
                yield batch
            # Only now: the server sends no more than one window ahead of who reads, however long the stream is.
            await self._answer_flow_control()
            if self._pending == 0 and not self._batch:
                self.caught_up.set()

    async def _answer_flow_control(self) -> None:
        while self._owed:
            with suppress(nats.errors.Error):
                await self._nats.publish(self._owed.pop())

    async def _make(self) -> Any:
        self._generation += 1
        self._expected_delivery = 1
        self._remake.clear()
        inbox = self._nats.new_inbox()
        generation = self._generation

        async def on_message(message: Msg) -> None:
            if generation == self._generation:
                await self._receive(message)

        subscription = await self._nats.subscribe(inbox, cb=on_message)
        config = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._received + 1,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "filter_subjects": list(self._filters),
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
            "inactive_threshold": int(10e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        name = inbox.rpartition(".")[2]
        created = await jetstream_api(
            self._nats, f"CONSUMER.CREATE.{self._stream}.{name}", {"stream_name": self._stream, "config": config}
        )
        self._heard_at = self._now()
        if created.get("num_pending", 0) == 0:
            self._pending = 0  # nothing came yet, or what was still to come has been purged
            self._wake.set()
        return subscription

    async def _receive(self, message: Msg) -> None:
        self._heard_at = self._now()
        if status_of(message):
            # A flow control request, or a heartbeat that says that one was not answered.
            if owed := message.reply or (message.headers or {}).get("Nats-Consumer-Stalled"):
                self._owed.add(owed)
                self._wake.set()
            return
        sequence, delivery, nanoseconds, self._pending = delivery_of(message.reply)
        if delivery != self._expected_delivery:
            self._remake.set()
            return
        self._expected_delivery += 1
        self._received = sequence
        at = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
        self._batch.append(Stored(message.subject, sequence, message.data, at, expected_of(message)))
        self._wake.set()

    async def _until_broken(self) -> None:
        while self._now() - self._heard_at < SILENCE_SECONDS and self._nats.is_connected:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._remake.wait(), HEARTBEAT_SECONDS / 2)
                return

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
