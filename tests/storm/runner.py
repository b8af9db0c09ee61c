"""The real runner as a process of its own, with claims, leases, journal and last words as they are; its model and its
sandbox do nothing. `python -m tests.storm.runner`."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import anyio

from agents.contract import ModelRequest, OnDelta
from protocol.journal import ModelReply
from protocol.routes import Service
from protocol.task import Usage
from sandbox.contract import Capabilities, Checkpoint, ExecResult, SandboxSpec
from sandbox.egress.policy import Egress
from services import actor
from services.bus import Bus, BusConfig
from services.config import from_environment
from services.runner.runner import Config, Runner

THINKS_SECONDS = 0.4
"""At most, so that faults come in the middle of attempts."""


class IdleModel:
    """Thinks for a moment, runs a command, and finishes."""

    scripted = True
    quiet_seconds = 5.0

    async def load(self) -> None: ...

    async def close(self) -> None: ...

    def most_it_can_cost(self, request: ModelRequest) -> Usage:
        return Usage()

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        await anyio.sleep(random.uniform(0.0, THINKS_SECONDS))
        calls = sum(message["role"] == "assistant" for message in request.messages)
        name, given = (
            ("bash", {"command": "true"})
            if calls % 2 == 0
            else ("finish", {"summary": "Nothing.", "commit_message": "None"})
        )
        block = {"type": "tool_use", "id": f"toolu_{len(request.messages)}", "name": name, "input": given}
        return ModelReply(content=(block,), stop_reason="tool_use", usage=Usage())


class IdleSandbox:
    """Nothing ever changes in it."""

    async def exec(self, command: str, **_: Any) -> ExecResult:
        return ExecResult(exit_code=0, output="")

    async def shell(self, command: str, **given: Any) -> ExecResult:
        return await self.exec(command, **given)

    async def resume(self, name: str, **given: Any) -> ExecResult | None:
        return None

    async def restart_shell(self) -> None: ...

    async def read(self, path: str, limit_bytes: int = 0) -> bytes:
        return b""

    async def write(self, path: str, data: bytes) -> None: ...

    async def checkpoint(self, base: str, message: str, *, advance: bool = False, unless: str = "") -> Checkpoint:
        return Checkpoint(head=base, commit=base, tree=base)

    async def restore(self, checkpoint: Checkpoint) -> None: ...

    def let_go(self) -> None: ...

    @property
    def death(self) -> str:
        return ""

    async def leave(self) -> bool:
        return False

    async def stop(self) -> None: ...


class IdleDriver:
    name = "idle"
    copies_workspaces = False

    async def capabilities(self) -> Capabilities:
        return Capabilities(isolated=True, memory_limit=True, disk_limit=True, process_limit=True)

    async def reattach(self, spec: SandboxSpec, previous: int) -> IdleSandbox | None:
        return None

    async def sweep(self) -> int:
        return 0

    async def start(self, spec: SandboxSpec) -> IdleSandbox:
        return IdleSandbox()


class IdleDrivers:
    why = notice = ""
    egress = Egress()
    ignored_bytes = 0
    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.driver = IdleDriver()
        self.found = anyio.Event()

    async def keep(self, tell: Callable[[str, str], None]) -> None:
        self.found.set()

    def rest(self) -> None: ...

    async def close(self) -> None: ...


def main() -> None:
    config = from_environment(Config, os.environ)
    bus_config = from_environment(BusConfig, os.environ)

    def make(bus: Bus) -> Runner:
        return Runner(bus, config, IdleModel(), IdleDrivers())  # type: ignore[arg-type]

    actor.run(Service.RUNNER, bus_config, make, level=config.log_level)


if __name__ == "__main__":
    main()
