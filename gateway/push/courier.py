"""Takes what was decided to the devices. All gateways take turns at one shared consumer, so each decision is one
gateway's work; when that one dies, another's (docs/decisions/0019)."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime

import anyio
import msgspec
from msgspec import Struct

from gateway.live.looking import looks
from gateway.push.news import STATES, News, Pace, devices_to_tell, news_of, tells
from gateway.push.patience import Patience
from gateway.push.web_push import Expired, Undelivered, Unusable, WebPush
from gateway.remembered import Remembered
from gateway.users import Users
from protocol.evolve import Device, Task, evolve
from protocol.task import decode_decision
from protocol.user import RemovePushSubscription
from services import log
from services.bus import Bus, Later, Stored, Unavailable
from services.envelope import NotOpened

CONSUMER = "push"
"""The shared consumer's name; the gateways' permissions have it."""
FILTERS = tuple(f"evt.*.*.task.{state}" for state in STATES)
TTL_SECONDS = 24 * 3600
"""News that is older is not told any more, neither by us nor by the push service."""
HANDLE_SECONDS = 12.0
"""For all devices of one decision; what is not done by then is done later."""
ACK_SECONDS = 15.0
"""After so long the decision of a gateway that died is another's. Longer than HANDLE_SECONDS."""
AT_ONCE = 8


class Told(Struct, frozen=True):
    """Marks that a device has been told of a decision."""


class Courier:
    """`run` works until `stop`."""

    def __init__(self, bus: Bus, users: Users, channel: WebPush, per_minute: int) -> None:
        self._bus = bus
        self._users = users
        self._channel = channel
        self._turns = bus.share(CONSUMER, *FILTERS, handle=self._handle, ack_seconds=ACK_SECONDS, at_once=AT_ONCE)
        self._pace = Pace(per_minute)
        self._patience = Patience()
        self._told: Remembered[Told] = Remembered(TTL_SECONDS)
        """By sequence and device. When one device of several could not be told, the others are not told again."""

    async def run(self) -> None:
        try:
            await self._turns.run()
        finally:
            with anyio.CancelScope(shield=True):
                await self._channel.close()

    async def stop(self) -> None:
        """Return when what is in hand has been told."""
        await self._turns.stop()

    async def _handle(self, stored: Stored) -> None:
        """One decision. Raises Later when somebody could not be told."""
        left = TTL_SECONDS - (datetime.now(UTC) - stored.at).total_seconds()
        user = stored.subject.split(".")[1]
        if left <= 0 or not self._wished(user):
            return
        try:
            news = await self._news(stored)
        except Unavailable:
            raise Later(1.0) from None
        if news is not None:
            await self._tell_all(user, stored.sequence, news, int(left))

    def _wished(self, user: str) -> bool:
        known = self._users.get(user)
        return known is not None and any(device.push for device in known.devices.values())

    async def _news(self, stored: Stored) -> News | None:
        try:
            event = tells(decode_decision(stored.data))
        except msgspec.MsgspecError as error:
            await self._bus.bury("tasks", stored, str(error))
            return None
        return news_of(await self._task(stored.subject), event) if event else None

    async def _task(self, subject: str) -> Task:
        """The task as it stands now."""
        _, user, name, *_ = subject.split(".")
        task = Task(id=name, user=user)
        for stored in await self._bus.replay(f"evt.{user}.{name}.task.>"):
            with suppress(msgspec.MsgspecError):  # reported by whoever acts on it
                task = evolve(task, decode_decision(stored.data))
        return task

    async def _tell_all(self, user: str, sequence: int, news: News, ttl_seconds: int) -> None:
        known = self._users.get(user)
        devices = known.devices.values() if known else ()
        waits: list[float] = []

        async def tell(device: Device) -> None:
            if left := self._patience.left(device.id, time.monotonic()):
                waits.append(left)
                return
            try:
                with anyio.fail_after(HANDLE_SECONDS):
                    await self._tell(user, device, sequence, news, ttl_seconds)
                self._patience.worked(device.id)
            except Undelivered as error:
                log.get().warning("push_undelivered", device=device.id, task=news.tag, reason=str(error))
                waits.append(self._patience.failed(device.id, error.seconds, time.monotonic()))
            except (TimeoutError, Unavailable):
                waits.append(1.0)

        async with anyio.create_task_group() as group:
            for device in devices_to_tell(devices, news):
                group.start_soon(tell, device)
        if waits:
            raise Later(min(waits))

    async def _tell(self, user: str, device: Device, sequence: int, news: News, ttl_seconds: int) -> None:
        if self._told.get(str(sequence), device.id) or await looks(self._bus, user, device.id):
            return
        admitted = self._pace.admit(device.id, news, time.monotonic())
        if admitted is None:
            log.get().info("push_left_out", device=device.id, task=news.tag)
            return
        assert device.push is not None
        try:
            await self._channel.send(self._channel.unseal(user, device.id, device.push.sealed), admitted, ttl_seconds)
            self._told.put(str(sequence), device.id, Told())
        except Undelivered:
            self._pace.take_back(device.id)
            raise
        except (Expired, NotOpened):
            await self._forget(user, device.id, device.push.id)
        except Unusable as error:
            log.get().warning("push_refused", device=device.id, task=news.tag, reason=str(error))

    async def _forget(self, user: str, device: str, subscription: str) -> None:
        """The browser gave it up, or our keys are not those that it was sealed for."""
        log.get().info("push_subscription_expired", device=device)
        key = f"push-{secrets.token_hex(16)}"
        command = RemovePushSubscription(key=key, device=device, subscription=subscription)
        await self._users.command(user, command)
