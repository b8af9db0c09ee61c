"""10,000 timers: dated tasks are submitted, their timers armed at a real nats-server by a real scheduler, the server is
killed and started again, and they fire within a few seconds of each other."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from benchmarks import Row, median, percentile, report
from protocol.ids import task_id
from protocol.routes import Service, command_subject
from protocol.task import FireTimer, SubmitTask, TaskQueued, decode_decision, decode_task_command
from services.bus import Bus, connect
from services.nats_server import password_file
from tests.integration.nats_house import NatsHouse, nats_house

TIMERS = 10_000
AHEAD_SECONDS = 90.0
"""Until the first is due: time to arm them all."""
SPREAD_SECONDS = 30.0
"""Over which they are due: each is three synced writes, so that a disk sets the pace."""
AT_ONCE = 256
USERS = 32
LOOK_SECONDS = 3.0
"""Between looks at all of them, which cost the server as much as setting some hundreds."""
PATIENCE_SECONDS = 120.0


async def submit_all(bus: Bus, first: datetime) -> None:
    slots = anyio.Semaphore(AT_ONCE)

    async def submit(number: int) -> None:
        async with slots:
            user, key = f"user{number % USERS}", f"timer-{number}"
            start = first + timedelta(seconds=SPREAD_SECONDS * number / TIMERS)
            command = SubmitTask(key=key, prompt="Nothing.", repository="https://git.example/x", start_at=start)
            task = task_id(user, key)
            await bus.publish(command_subject(user, task, command), command, key=f"{task}.{key}")

    async with anyio.create_task_group() as group:
        for number in range(TIMERS):
            group.start_soon(submit, number)


async def until_armed(bus: Bus) -> None:
    """All timers are at the server."""
    while len(await bus.replay("timer.*.*")) < TIMERS:
        await anyio.sleep(LOOK_SECONDS)


async def fired_at(bus: Bus) -> list[float]:
    """Seconds after its due time at which the server stored each timer's command."""
    commands = [(s.at, decode_task_command(s.data)) for s in await bus.replay("cmd.*.*.fire_timer")]
    return [(at - command.due).total_seconds() for at, command in commands if isinstance(command, FireTimer)]


async def queued(bus: Bus) -> Counter[str]:
    """How often each task was queued by its timer."""
    decisions = [(s.subject.split(".")[2], decode_decision(s.data)) for s in await bus.replay("evt.*.*.task.queued")]
    return Counter(task for task, decision in decisions if any(isinstance(e, TaskQueued) for e in decision.events))


async def until_queued(bus: Bus) -> Counter[str]:
    with anyio.fail_after(PATIENCE_SECONDS):
        while len(found := await queued(bus)) < TIMERS:
            await anyio.sleep(LOOK_SECONDS)
    return found


def start_scheduler(house: NatsHouse, folder: Path) -> subprocess.Popen[bytes]:
    secret = str(password_file(house.data, Service.SCHEDULER))
    environment = {**os.environ, "ERRAND_NATS_URL": house.url, "ERRAND_NATS_PASSWORD_FILE": secret}
    # No snapshot: it would take away the commands whose times are looked at.
    environment |= {"ERRAND_SNAPSHOT_MESSAGES": "1000000", "ERRAND_LOG_LEVEL": "warning"}
    with (folder / "scheduler.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", "services.scheduler"], env=environment, stdout=log, stderr=log)


async def measure(folder: Path) -> list[Row]:
    with nats_house(folder) as house:
        scheduler = start_scheduler(house, folder)
        try:
            async with (
                connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as maker,
                connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
            ):
                await maker.make_streams()
                return await _measure(house, gateway, maker)
        finally:
            scheduler.terminate()
            scheduler.wait(15)


async def _measure(house: NatsHouse, gateway: Bus, maker: Bus) -> list[Row]:
    began, first = time.perf_counter(), datetime.now(UTC) + timedelta(seconds=AHEAD_SECONDS)
    await submit_all(gateway, first)
    submitted = time.perf_counter() - began
    await until_armed(maker)
    armed = time.perf_counter() - began
    house.kill()
    house.start()
    await anyio.sleep(max(0.0, (first - datetime.now(UTC)).total_seconds()))
    times = await until_queued(gateway)
    late = await fired_at(gateway)
    once = sum(count == 1 for count in times.values())
    return [
        _row("submitted (all stored)", submitted, "s"),
        _row("submitted, decided and armed", armed, "s", ok=armed < AHEAD_SECONDS, demanded="before they are due"),
        _row("a timer fires after its time, p50", median(late), "s"),
        _row("a timer fires after its time, p99", percentile(late, 0.99), "s"),
        _row("fires of timers", len(late), "", ok=len(late) >= TIMERS, demanded="10,000"),
        _row("tasks queued by theirs exactly once", once, "", ok=once == TIMERS, demanded="10,000"),
    ]


def _row(what: str, value: float, unit: str, *, ok: bool = True, demanded: str = "nothing") -> Row:
    return Row(what=what, ours=value, unit=unit, ok=ok, demanded=demanded)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        rows = anyio.run(measure, Path(folder))
    report("timers", rows)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
