"""Who may come in: all users and their devices, folded in memory from their logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import anyio
import msgspec
from msgspec import Struct

from protocol.evolve import User, evolve_user
from protocol.ids import token_hash
from protocol.routes import user_command_subject
from protocol.schedule import Schedule
from protocol.task import Receipt
from protocol.user import Role, UserCommand, decode_user_decision
from services import log
from services.bus import Bus, Refused, Stored, Unavailable

LOGS = "evt.*.user.>"
RECEIPT_SECONDS = 8.0
"""How long a command to a user's log may take until its receipt is here."""


class Asker(Struct, frozen=True):
    """Who asks: a user, by one device."""

    user: str
    device: str
    name: str
    role: Role

    @property
    def is_owner(self) -> bool:
        return self.role is Role.OWNER


class Users:
    """`follow` keeps it up to date."""

    def __init__(self, bus: Bus) -> None:
        self.on_device_removed: Callable[[str, str], None] = lambda user, device: None
        """Called with user and device at once."""
        self._bus = bus
        self._users: dict[str, User] = {}
        self._tokens: dict[str, tuple[str, str]] = {}
        """The hash of a device's token -> user and device."""
        self._waiting: dict[tuple[str, str], anyio.Event] = {}
        self._position = 0
        self._moved = anyio.Event()

    def __iter__(self) -> Iterator[User]:
        return iter(list(self._users.values()))

    def get(self, user: str) -> User | None:
        return self._users.get(user)

    def schedules(self, user: str) -> dict[str, Schedule]:
        known = self._users.get(user)
        return known.schedules if known else {}

    def by_token(self, token: str) -> Asker | None:
        """Whose token this is. The table holds hashes of random bits, so how long a look-up takes tells nothing."""
        found = self._tokens.get(token_hash(token))
        if found is None:
            return None
        user = self._users[found[0]]
        return Asker(user.id, found[1], user.name, user.role)

    def has_device(self, user: str, device: str) -> bool:
        known = self._users.get(user)
        return known is not None and device in known.devices

    def by_code(self, code_hash: str) -> User | None:
        """Whose unused sign-in code this is; it may have expired."""
        return next((user for user in self._users.values() if code_hash in user.codes), None)

    async def follow(self, started: Callable[[], None]) -> None:
        """Fold the logs until cancelled; `started` once all that was stored before is known."""
        async with self._bus.read(LOGS, after=0) as reader, anyio.create_task_group() as group:

            async def start() -> None:
                await reader.caught_up.wait()
                started()

            group.start_soon(start)
            async for batch in reader.batches():
                for stored in batch:
                    await self._fold(stored)
                self._position = reader.position
                self._moved.set()
                self._moved = anyio.Event()

    async def catch_up(self) -> None:
        """Return when all that is stored now is known. Raises Unavailable."""
        last = await self._bus.last(LOGS)
        with anyio.move_on_after(RECEIPT_SECONDS):
            while self._position < last:
                await self._moved.wait()

    async def command(self, user: str, command: UserCommand) -> Receipt:
        """Send a command to a user's log and wait for its receipt. Raises Unavailable without one in time."""
        place = (user, command.key)
        arrived = self._waiting.setdefault(place, anyio.Event())
        try:
            await self._bus.publish(user_command_subject(user, command), command, key=f"{user}.{command.key}")
            with anyio.move_on_after(RECEIPT_SECONDS):
                while (receipt := self._receipt(user, command.key)) is None:
                    await arrived.wait()
                return receipt
        finally:
            self._waiting.pop(place, None)
        raise Unavailable("The scheduler did not answer in time: try again in a moment.")

    def _receipt(self, user: str, key: str) -> Receipt | None:
        known = self._users.get(user)
        return known.receipts.get(key) if known else None

    async def _fold(self, stored: Stored) -> None:
        user = stored.subject.split(".")[1]
        try:
            decision = decode_user_decision(stored.data)
        except msgspec.MsgspecError as error:
            await self._bury(stored, str(error))
            return
        before = self._users.get(user) or User(id=user)
        after = evolve_user(before, decision)
        self._users[user] = after
        self._index(before, after)
        # Not the decision's own receipt: of a command that was answered long ago, a folded log brings it with others.
        for (of, key), arrived in self._waiting.items():
            if of == user and key in after.receipts:
                arrived.set()

    def _index(self, before: User, after: User) -> None:
        for device in before.devices.values():
            now = after.devices.get(device.id)
            if now is None or now.token_hash != device.token_hash:
                self._tokens.pop(device.token_hash, None)
                self.on_device_removed(before.id, device.id)
        for device in after.devices.values():
            self._tokens[device.token_hash] = (after.id, device.id)

    async def _bury(self, stored: Stored, reason: str) -> None:
        try:
            await self._bus.bury("tasks", stored, reason)
        except (Unavailable, Refused) as error:
            # The message itself stays where it is; only the report of it is lost.
            log.get().error("not_buried", sequence=stored.sequence, reason=str(error))
