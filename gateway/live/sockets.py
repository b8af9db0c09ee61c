"""All live sockets of this gateway: how they sign in, which feed they share, and how they end."""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
import anyio.abc
import msgspec
from msgspec import Struct

from gateway.config import Config
from gateway.live.feed import Feed
from gateway.live.looking import Looking
from gateway.live.phone import GOING_AWAY, SIGNED_OUT, TRY_AGAIN_LATER, Phone
from gateway.live.wire import Gone, Wire
from gateway.notices import Notices
from gateway.tasks import Tasks
from gateway.users import Asker, Users
from protocol.base import encode
from protocol.live import SIGN_IN_SECONDS, Closing, SignedIn, SignIn, decode_client_frame
from services.bus import Bus, Unavailable

READS_AT_ONCE = 32
"""Replays that this gateway asks NATS for at one time: after a reconnect, every watch wants one."""
STUCK_CHECK_SECONDS = 1.0
SIGN_IN_AGAIN = "This device is not signed in, or was signed out: sign in again with a new link."


class TurnedAway(Exception):
    """This socket is not taken."""

    def __init__(self, reason: str, code: int, *, come_back: bool) -> None:
        super().__init__(reason)
        self.closing = encode(Closing(reason=reason, come_back=come_back))
        self.code = code


class Joined(Struct):
    """A user's feed and how many sockets hold it."""

    feed: Feed
    holders: int = 0


class Sockets:
    """`run` keeps them in order; `attend` is one socket, from its acceptance to its end."""

    def __init__(self, bus: Bus, users: Users, tasks: Tasks, notices: Notices, config: Config) -> None:
        self._bus = bus
        self._users = users
        self._tasks = tasks
        self._notices = notices
        self._config = config
        self._reads = anyio.CapacityLimiter(READS_AT_ONCE)
        self._feeds: dict[str, Joined] = {}
        self._phones: set[Phone] = set()
        self._unknown = 0
        """Sockets that have not signed in yet."""
        self._draining = False
        self._empty = anyio.Event()
        self._group: anyio.abc.TaskGroup
        self._looking: Looking
        users.on_device_removed = self._sign_out
        bus.on_interruption(self._interrupted)

    async def run(self) -> None:
        """Until cancelled."""
        async with anyio.create_task_group() as self._group:
            self._looking = Looking(self._bus, self._group)
            while True:
                await anyio.sleep(STUCK_CHECK_SECONDS)
                now = time.monotonic()
                for phone in self._phones:
                    phone.abort_if_stuck(now, self._config.send_seconds)

    async def drain(self) -> None:
        """Send every phone away, to come back from its cursor; return when they have gone."""
        self._draining = True
        for phone in self._phones:
            phone.close("The server restarts: come back from your cursor.", GOING_AWAY)
        while self._phones:
            self._empty = anyio.Event()
            await self._empty.wait()

    async def attend(self, wire: Wire) -> None:
        """One socket."""
        try:
            asker = await self._signed_in(wire)
            await self._attend(wire, asker)
        except TurnedAway as away:
            with suppress(Gone), anyio.move_on_after(SIGN_IN_SECONDS):
                await wire.send(away.closing)
                await wire.close(away.code, "")
        except Gone:
            return

    async def _signed_in(self, wire: Wire) -> Asker:
        if self._draining or len(self._phones) + self._unknown >= self._config.sockets_limit:
            raise TurnedAway("The server takes no more connections now.", TRY_AGAIN_LATER, come_back=True)
        self._unknown += 1
        try:
            with anyio.fail_after(SIGN_IN_SECONDS):
                frame = decode_client_frame(await wire.receive())
        except TimeoutError:
            reason = f"No sign-in came within {SIGN_IN_SECONDS} s."
            raise TurnedAway(reason, SIGNED_OUT, come_back=False) from None
        except msgspec.MsgspecError as error:
            reason = f"The first frame must sign in, and this one cannot be read: {error}."
            raise TurnedAway(reason, SIGNED_OUT, come_back=False) from None
        finally:
            self._unknown -= 1
        if not isinstance(frame, SignIn):
            raise TurnedAway("The first frame must sign in.", SIGNED_OUT, come_back=False)
        asker = self._users.by_token(frame.token)
        if asker is None:
            raise TurnedAway(SIGN_IN_AGAIN, SIGNED_OUT, come_back=False)
        return asker

    async def _attend(self, wire: Wire, asker: Asker) -> None:
        joined = self._feeds.get(asker.user) or Joined(Feed(self._bus, asker.user, self._group))
        if joined.holders >= self._config.user_sockets_limit:
            limit = self._config.user_sockets_limit
            raise TurnedAway(f"You have {limit} connections: close one.", TRY_AGAIN_LATER, come_back=True)
        self._feeds[asker.user] = joined
        joined.holders += 1
        try:
            await self._open(joined.feed)
            notices = await self._notices.current()
            await self._follow(wire, asker, joined.feed, notices)
        finally:
            joined.holders -= 1
            if not joined.holders:
                del self._feeds[asker.user]
                self._group.start_soon(joined.feed.close)

    async def _open(self, feed: Feed) -> None:
        try:
            await feed.open()
        except Unavailable:
            raise TurnedAway("The server has lost NATS: try again.", TRY_AGAIN_LATER, come_back=True) from None

    async def _follow(self, wire: Wire, asker: Asker, feed: Feed, notices: tuple[str, ...]) -> None:
        if self._draining:
            raise TurnedAway("The server restarts: come back.", GOING_AWAY, come_back=True)
        if not self._users.has_device(asker.user, asker.device):
            raise TurnedAway(SIGN_IN_AGAIN, SIGNED_OUT, come_back=False)
        phone = Phone(
            wire, asker, self._bus, self._tasks, feed, self._looking, self._reads, self._config.socket_queue_bytes
        )
        greeting = SignedIn(user=asker.user, name=asker.name, role=asker.role, device=asker.device, notices=notices)
        self._phones.add(phone)
        try:
            await phone.attend(encode(greeting))
        finally:
            self._phones.discard(phone)
            if not self._phones:
                self._empty.set()

    def _sign_out(self, user: str, device: str) -> None:
        for phone in self._phones:
            if (phone.asker.user, phone.asker.device) == (user, device):
                phone.close("This device was signed out.", SIGNED_OUT, come_back=False)

    def _interrupted(self) -> None:
        for joined in self._feeds.values():
            joined.feed.interrupted()
