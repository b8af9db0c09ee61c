"""What the sandbox was refused of the network, into the journal: beside the agent's own steps, in the order it came."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import anyio
from msgspec.structs import replace

from agents.contract import Fenced
from protocol.journal import HostRefused
from sandbox.contract import ExecResult
from sandbox.egress.policy import Refusal
from services.bus import Refused
from services.runner.log import TaskLog


class Refusals:
    """Of one attempt. The sandbox bounds how many there are."""

    def __init__(self, log: TaskLog) -> None:
        self._log = log
        self._waiting: deque[Refusal] = deque()
        self._unsaid: list[str] = []
        self._came = anyio.Event()
        self._lock = anyio.Lock()

    def add(self, refusal: Refusal) -> None:
        self._waiting.append(refusal)
        self._unsaid.append(refusal.reason)
        self._came.set()

    def said_with(self, result: ExecResult) -> ExecResult:
        """A command's result, with what was refused since the last one: most programs show no more than a number."""
        lines, self._unsaid = [f"[network: {reason}]\n" for reason in self._unsaid], []
        if not lines:
            return result
        output = result.output if not result.output or result.output.endswith("\n") else f"{result.output}\n"
        return replace(result, output=output + "".join(lines))

    async def keep(self) -> None:
        """Journal each as it comes, until cancelled or the attempt is over."""
        with suppress(Fenced, Refused):  # whoever appends next learns so too
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
