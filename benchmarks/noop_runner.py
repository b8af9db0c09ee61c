"""A runner without an agent, as a process: every claim, journal entry and last word is the real one; the turn does
nothing. `python -m benchmarks.noop_runner <slots>`."""

from __future__ import annotations

import os
import sys
import uuid
from contextlib import suppress

import anyio

from protocol.journal import AttemptStarted
from protocol.query import AttemptGranted, ClaimAttempt
from protocol.routes import Service, command_subject
from protocol.task import FinishAttempt, Usage
from services.bus import Bus, BusConfig, Refused, Unavailable, connect
from services.config import from_environment
from services.runner.log import TaskLog
from services.runner.runner import CLAIM_GRACE_SECONDS, CLAIM_SECONDS

STARTED = AttemptStarted(turn=1, base_commit="b" * 40, branch="errand/none", model="none", sandbox="none")


async def slot(bus: Bus, name: str) -> None:
    """One attempt after the other, as `services.runner` claims, starts and ends them."""
    while True:
        granted = await claim(bus, ClaimAttempt(request=uuid.uuid4().hex, runner=name, wait_seconds=CLAIM_SECONDS))
        await run(bus, granted)


async def claim(bus: Bus, asked: ClaimAttempt) -> AttemptGranted:
    while True:
        with suppress(Unavailable, Refused):
            answer = await bus.ask_any(Service.SCHEDULER, asked, timeout_seconds=CLAIM_SECONDS + CLAIM_GRACE_SECONDS)
            if isinstance(answer, AttemptGranted):
                return answer


async def run(bus: Bus, granted: AttemptGranted) -> None:
    task = granted.task
    log = TaskLog(bus, task, granted.sequence)
    await log.open()
    await log.append(STARTED)
    finish = FinishAttempt(
        key=f"finish {log.attempt}",
        attempt=log.attempt,
        journal_sequence=log.journal_sequence,
        summary="Nothing.",
        usage=Usage(),
    )
    await bus.publish(command_subject(task.user, task.id, finish), finish, key=f"{task.id}.{finish.key}")


async def main(slots: int) -> None:
    async with connect(from_environment(BusConfig, os.environ), Service.RUNNER) as bus, anyio.create_task_group() as g:
        for number in range(slots):
            g.start_soon(slot, bus, f"noop-{number}")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]), backend_options={"use_uvloop": True})
