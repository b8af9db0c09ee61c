"""Which scheduler is active: a lease elects one (a hint), the expected sequences of each commit fence all others."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from services import log
from services.bus import LEASE_SECONDS, Bus, Conflict, Refused, Unavailable
from services.clock import Clock

LEASE = "scheduler"
RENEW_SECONDS = 1.0
TRY_SECONDS = 0.25


class Claim(Struct, frozen=True):
    """Who holds the lease: a process, and the place in which its number means something."""

    pid: int
    place: str
    candidate: str = ""
    """Which one, of all that ever were."""


_decode = msgspec.json.Decoder(Claim).decode


def here() -> str:
    """This boot of this machine and the namespace of its process numbers, so that no two places are mixed up."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}.{Path('/proc/self/ns/pid').stat().st_ino}"


def is_dead(claim: Claim, place: str) -> bool:
    """Whether the holder is known to have ended; one in another place never is."""
    if claim.place != place:
        return False
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


class Election:
    """One candidate. `wait_until_elected`, then `hold` until it ends."""

    def __init__(self, bus: Bus, clock: Clock) -> None:
        self._bus = bus
        self._clock = clock
        self._claim = Claim(pid=os.getpid(), place=here(), candidate=uuid.uuid4().hex)
        self._revision = 0
        self._held_until = 0.0

    @property
    def held(self) -> bool:
        """Whether the lease cannot have ended yet, by our own clock; asked before each commit, since a process may be
        frozen."""
        return self._clock.monotonic() < self._held_until

    async def wait_until_elected(self) -> None:
        while not await self._take(0):
            if not await self._free_from_the_dead():
                await anyio.sleep(TRY_SECONDS)

    async def hold(self) -> None:
        """Renew; return once the lease had ended by our own clock, even if it could be renewed after that: whoever
        asked `held` in between has given up."""
        renewed = True
        while self.held:
            held_until = self._held_until
            await anyio.sleep(RENEW_SECONDS if renewed else TRY_SECONDS)
            renewed = await self._take(self._revision)
            if self._clock.monotonic() >= held_until:
                await self.release()

    async def release(self) -> None:
        """Let a standby have it at once."""
        if self.held:
            self._held_until = 0.0
            try:
                await self._bus.drop_lease(LEASE)
            except (Unavailable, Refused):
                log.get().info("lease_not_dropped")

    async def _free_from_the_dead(self) -> bool:
        """Do not wait for the end of a lease whose holder ended on this machine, as after a kill and a new start, nor
        of one that we took without being told: what was sent while the server was away is stored once it is back. A
        hint like the lease itself: the fence is in the commits."""
        try:
            data = await self._bus.lease_holder(LEASE)
            if data and ((claim := _decode(data)) == self._claim or is_dead(claim, self._claim.place)):
                await self._bus.drop_lease(LEASE)
                return True
        except (Unavailable, Refused, msgspec.MsgspecError):
            return False
        return False

    async def _take(self, revision: int) -> bool:
        asked_at = self._clock.monotonic()
        try:
            self._revision = await self._bus.take_lease(LEASE, self._claim, revision)
        except Conflict:
            # Our lease ended, or the server restarted and forgot it: the next try competes from nothing.
            self._revision = 0
            return False
        except Unavailable:
            self._revision = 0
            await self._make_streams()
            return False
        self._held_until = asked_at + LEASE_SECONDS
        return True

    async def _make_streams(self) -> None:
        """Leases live in the server's memory: after its restart their stream is gone."""
        try:
            await self._bus.make_streams()
        except (Unavailable, Refused):
            await anyio.sleep(TRY_SECONDS)
