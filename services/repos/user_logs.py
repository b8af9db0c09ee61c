"""Users as their logs have them at the moment of each question."""

from __future__ import annotations

from collections import OrderedDict

import anyio
import msgspec

from protocol.evolve import User, evolve_user
from protocol.user import decode_user_decision
from services import log
from services.bus import Bus

USERS_LIMIT = 1_000
"""Users whose state is kept in memory; of another one the whole log is read."""


class UserLogs:
    """Reads from where it got to last time."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._known: OrderedDict[str, tuple[User, int]] = OrderedDict()
        self._lock = anyio.Lock()

    async def read(self, user: str) -> User:
        """The user, as of now. Raises Unavailable."""
        async with self._lock:
            state, sequence = self._known.pop(user, (User(id=user), 0))
            try:
                for stored in await self._bus.replay(f"evt.{user}.user.>", after=sequence):
                    try:
                        state = evolve_user(state, decode_user_decision(stored.data))
                    except msgspec.MsgspecError as error:
                        log.get().warning("not_decoded", subject=stored.subject, error=str(error))
                    sequence = stored.sequence
            finally:
                self._known[user] = state, sequence
            if len(self._known) > USERS_LIMIT:
                self._known.popitem(last=False)
            return state
