"""What the sandbox was refused of the network, into the journal: beside the agent's own steps, in the order it came."""

from __future__ import annotations

from collections import deque

import anyio

from protocol.journal import HostRefused
from sandbox.egress.policy import Refusal
from services.runner.log import TaskLog


class Refusals:
    """Of one attempt. The sandbox bounds how many there are."""

    def __init__(self, log: TaskLog) -> None:
        self._log = log
        self._waiting: deque[Refusal] = deque()
        self._came = anyio.Event()
        self._lock = anyio.Lock()

    def add(self, refusal: Refusal) -> None:
        self._waiting.append(refusal)
        self._came.set()

    async def keep(self) -> None:
        """Journal each as it comes, until cancelled. Raises Fenced."""
        while True:
            await self._came.wait()
            await self.flush()

    async def flush(self) -> None:
        """Return when all that came is in the journal. Raises Fenced."""
        async with self._lock:
            self._came = anyio.Event()
            while self._waiting:
                refusal = self._waiting[0]
                await self._log.append(HostRefused(host=refusal.host, port=refusal.port, reason=refusal.reason))
                self._waiting.popleft()
