"""What the sandbox was refused of the network, into the journal: beside the agent's own steps, in the order it came."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import suppress

import anyio
from msgspec.structs import replace

from agents.contract import Fenced
from protocol.journal import HostRefused
from sandbox.contract import ExecResult
from sandbox.egress.policy import SETTING, Egress, Refusal
from services.bus import Refused
from services.runner.log import TaskLog

LOOK_UPS_FAILED = (
    "could not resolve host",
    "could not resolve '",
    "unable to resolve host address",
    "temporary failure resolving",
    "temporary failure in name resolution",
    "name or service not known",
    "failed to lookup address",
    "no such host",
    "eai_again",
    "unknownhostexception",
)
"""How curl, git, apt, wget, pip, cargo, Go, Node and the JVM say that there is no DNS."""
CLOSED = f"tasks reach no host of the network here; the owner can allow hosts by {SETTING}"
NO_DNS = f"names are not looked up in here: programs reach the hosts of {SETTING} by the proxy in https_proxy alone"


def why_no_look_ups(sandbox: str, egress: Egress) -> str:
    """A sentence; empty where names are looked up as on the server itself."""
    if sandbox == "unsandboxed":
        return ""
    return NO_DNS if egress.words else CLOSED


def tells_of_look_up(output: str) -> bool:
    """Whether a program says there that it could not look a name up."""
    said = output.lower()
    return any(words in said for words in LOOK_UPS_FAILED)


def with_lines(result: ExecResult, lines: Sequence[str]) -> ExecResult:
    """After what the command itself said."""
    if not lines:
        return result
    output = result.output if not result.output or result.output.endswith("\n") else f"{result.output}\n"
    return replace(result, output=output + "".join(lines))


class Refusals:
    """Of one attempt. The sandbox bounds how many there are."""

    def __init__(self, log: TaskLog, look_ups: str = "") -> None:
        """`look_ups` says why none can be made in the sandbox; empty where they can. No proxy hears of them."""
        self._log = log
        self._look_ups = look_ups
        self._waiting: deque[Refusal] = deque()
        self._unsaid: list[str] = []
        self._came = anyio.Event()
        self._lock = anyio.Lock()

    def add(self, refusal: Refusal) -> None:
        """To a command of the agent's, who is told too."""
        self._unsaid.append(refusal.reason)
        self.show(refusal)

    def show(self, refusal: Refusal) -> None:
        """To the user alone."""
        self._waiting.append(refusal)
        self._came.set()

    def said_with(self, result: ExecResult) -> ExecResult:
        """A command's result, with what was refused since the last one: most programs show no more than a number."""
        if self._look_ups and tells_of_look_up(result.output):
            self.add(Refusal(host="", port=0, reason=self._look_ups))
            self._look_ups = ""
        lines, self._unsaid = [f"[network: {reason}]\n" for reason in self._unsaid], []
        return with_lines(result, lines)

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
