"""Turns through the whole state machine, durable, with a runner that does nothing: beside BullMQ and Temporal.

A turn is six synced messages: `SubmitTask`, its decision, the claim's decision, the journal's first entry,
`FinishAttempt`, its decision. Server, scheduler, runner and submitter are a process each, as in the house.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import anyio
import psutil

from benchmarks import Row, compared, median, percentile, report
from benchmarks.peers import FOLDER, Missing, Speed, bullmq, temporal
from protocol.ids import task_id
from protocol.routes import Service, command_subject
from protocol.task import SubmitTask
from services.bus import Bus, Stored, connect
from services.nats_server import password_file
from tests.integration.nats_house import NatsHouse, nats_house

TURNS = 6_000
WARM_UP = 500
OPEN = 256
"""Turns that are under way at one time."""
SLOTS = 128
USERS = 32
SINGLES = 200
JOBS = 10_000
WORKFLOWS = 200
WORKFLOWS_AT_ONCE = 50
PER_SECOND = 400.0
AIM_PER_SECOND = 1_000.0
TIMES_TEMPORAL = 25.0
CLAIMED_MILLISECONDS = 5.0


class Submitter:
    """Sends turns as the gateway does, and sees them claimed and ended as the gateway does."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._open = anyio.Semaphore(OPEN)
        self._ended: dict[str, anyio.Event] = {}
        self._claimed_at: dict[str, float] = {}

    async def see(self) -> None:
        await self._bus.tap("evt.*.*.task.*", self._on_decision)

    async def turn(self, key: str, user: str) -> float:
        """Milliseconds from the submit to the sight of the claim; returns once the turn has ended."""
        async with self._open:
            task, sent = task_id(user, key), time.perf_counter()
            ended = self._ended[task] = anyio.Event()
            command = SubmitTask(key=key, prompt="Nothing.", repository="https://git.example/x")
            await self._bus.publish(command_subject(user, task, command), command, key=f"{task}.{key}")
            await ended.wait()
            return (self._claimed_at.pop(task) - sent) * 1000

    async def many(self, count: int, name: str) -> float:
        """Turns a second, `OPEN` of them under way at one time."""
        since = time.perf_counter()
        async with anyio.create_task_group() as group:
            for number in range(count):
                await self._open.acquire()
                self._open.release()
                group.start_soon(self.turn, f"{name}-{number}", f"user{number % USERS}")
        return count / (time.perf_counter() - since)

    async def _on_decision(self, stored: Stored) -> None:
        _, _, task, _, state = stored.subject.split(".")
        if state == "running":
            self._claimed_at[task] = time.perf_counter()
        elif state == "succeeded":
            self._ended.pop(task).set()


async def measure(house: NatsHouse) -> Speed:
    config = house.bus_config(Service.GATEWAY)
    with (
        process(house, Service.SCHEDULER, *SCHEDULER) as scheduler,
        process(house, Service.RUNNER, *NOOP) as runner,
    ):
        async with connect(config, Service.GATEWAY) as bus:
            await bus.wait_for_streams()
            submitter = Submitter(bus)
            await submitter.see()
            await submitter.many(WARM_UP, "warm")
            singles = [await submitter.turn(f"single-{number}", "user0") for number in range(SINGLES)]
            with processor_time(nats=house.pid, scheduler=scheduler, runner=runner, submitter=os.getpid()):
                return Speed(per_second=await submitter.many(TURNS, "turn"), start_milliseconds=singles)


@contextmanager
def processor_time(**pids: int) -> Iterator[None]:
    """Print what a turn costs each process: what bounds the turns a second, whatever else the machine does."""

    def read() -> dict[str, float]:
        times = {name: psutil.Process(pid).cpu_times() for name, pid in pids.items()}
        return {name: time.user + time.system for name, time in times.items()}

    before = read()
    yield
    each = {name: (after - before[name]) * 1000 / TURNS for name, after in read().items()}
    print("  processor time a turn, ms:", ", ".join(f"{name} {cost:.2f}" for name, cost in each.items()))


SCHEDULER = ("services.scheduler",)
NOOP = ("benchmarks.noop_runner", str(SLOTS))


@contextmanager
def process(house: NatsHouse, service: Service, *module: str) -> Iterator[int]:
    environment = {
        **os.environ,
        "ERRAND_NATS_URL": house.url,
        "ERRAND_NATS_PASSWORD_FILE": str(password_file(house.data, service)),
        "ERRAND_RUNNING_PER_USER": str(SLOTS),
        "ERRAND_RUNNING_PER_REPOSITORY": str(SLOTS),
    }
    with open(house.data / f"{service}.log", "wb") as log:
        child = subprocess.Popen([*PYTHON, *module], env=environment, stdout=log, stderr=log)
        try:
            yield child.pid
        finally:
            child.terminate()
            child.wait()


PYTHON = (sys.executable, "-m")


def ours() -> Speed:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as folder, nats_house(Path(folder)) as house:
        return anyio.run(measure, house, backend_options={"use_uvloop": True})


def beside(peer: ModuleType, *sizes: int) -> Speed | None:
    """The peer's speed; None, and on the screen how to get it, where it cannot be run."""
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as folder:
        try:
            return peer.measure(Path(folder), *sizes)
        except Missing as missing:
            print(f"  {peer.NAME} was not run: {missing}")
            return None


def rows() -> list[Row]:
    if not FOLDER.exists():
        subprocess.run([*PYTHON, "benchmarks.peers"], check=False)
    house = ours()
    workflows = beside(temporal, WORKFLOWS, WORKFLOWS_AT_ONCE, SINGLES // 4)
    jobs = beside(bullmq, JOBS, SLOTS, SINGLES)
    return [
        Row(
            what="turns through the whole state machine, durable",
            ours=house.per_second,
            unit="turns/s",
            demanded=f"{PER_SECOND:g}; aim {AIM_PER_SECOND:,g}",
            ok=house.per_second >= PER_SECOND,
        ),
        *compare(house, temporal, workflows, TIMES_TEMPORAL),
        *compare(house, bullmq, jobs, 0),
        Row(
            what="submit to claimed, one task at a time, p50",
            ours=median(house.start_milliseconds),
            unit="ms",
            demanded=f"{CLAIMED_MILLISECONDS:g} ms",
            ok=median(house.start_milliseconds) <= CLAIMED_MILLISECONDS,
        ),
    ]


def compare(house: Speed, peer: ModuleType, theirs: Speed | None, times: float) -> Iterator[Row]:
    """How many `times` the peer's turns ours must be; 0 asks nothing."""
    if theirs is None:
        return
    ratio = house.per_second / theirs.per_second
    yield compared(
        f"turns, beside a {peer.TURN}",
        house.per_second,
        theirs.per_second,
        "turns/s",
        demanded=f"{times:g} x the peer" if times else "-",
        ok=ratio >= times,
        peer_name=peer.NAME,
    )
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        yield compared(
            f"submit to claimed, one at a time, {name}",
            percentile(house.start_milliseconds, share),
            percentile(theirs.start_milliseconds, share),
            "ms",
            demanded="-",
            ok=True,
            peer_name=peer.NAME,
        )


if __name__ == "__main__":
    report("queue", rows())
