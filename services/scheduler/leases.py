"""Whether the runners that hold attempts are still heard of. A runner renews a lease of 5 s; what is heard is a hint,
the loss of it is a decision."""

from __future__ import annotations

import anyio
import msgspec

from protocol.evolve import Task
from services.bus import LEASE_SECONDS, Renewal

_decode = msgspec.json.Decoder(Renewal).decode


class AttemptLeases:
    """When each attempt was last heard of, by this process's own clock."""

    check_seconds = 0.5

    def __init__(self) -> None:
        self._heard: dict[tuple[str, int], float] = {}
        self._checked_at: float | None = None
        self._floor = 0.0

    def grant(self, task: str, attempt: int, now: float) -> None:
        self._heard[task, attempt] = now

    def grant_all(self, now: float) -> None:
        """Give every attempt a whole lease from now: we may have been deaf until this moment."""
        self._floor = now
        self._checked_at = now

    async def hear(self, subject: str, data: bytes) -> None:
        try:
            renewal = _decode(data)
        except msgspec.MsgspecError:
            return
        self._heard[subject.rpartition(".")[2], renewal.attempt] = anyio.current_time()

    def ended(self, held: dict[str, int], now: float, *, connected: bool) -> list[str]:
        """Of the held attempts (task -> number), those not heard of for a whole lease while we were able to hear."""
        late = self._checked_at is not None and now - self._checked_at > 3 * self.check_seconds
        if late or not connected:
            # This process was frozen, or cut off: silence proves nothing.
            self.grant_all(now)
        self._checked_at = now
        keep = set(held.items())
        self._heard = {key: at for key, at in self._heard.items() if key in keep}
        return [
            task
            for task, attempt in held.items()
            if now - max(self._floor, self._heard.setdefault((task, attempt), now)) > LEASE_SECONDS
        ]


def held_attempt(task: Task) -> int:
    return task.holder.attempt if task.holder else 0
