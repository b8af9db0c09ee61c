"""The whole house: how soon it is up, how soon a task reaches the model, what it weighs at rest."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import psutil

from benchmarks import Row, median, report
from sandbox.spare import SPARE
from services.up import free_port
from tests.journey.house import House, errand_up, phone
from tests.journey.test_kills import make_repository

TASKS = 20
READY_SECONDS = 3.0
SEND_MILLISECONDS = 15.0
IDLE_MEBIBYTES = 300.0
SETTLE_SECONDS = 2.0
"""In which the sandbox for the next task starts, and the history gives back what it mapped: nobody is told of it."""


class Meter:
    """Passes bytes on to the model's server and notes when the first ones of each request come by."""

    def __init__(self, port: int, target: int) -> None:
        self.port = port
        self.arrivals: list[float] = []
        self._target = target

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port)
        task_status.started()
        await listener.serve(self._pass)

    async def _pass(self, client: anyio.abc.SocketStream) -> None:
        server = await anyio.connect_tcp("127.0.0.1", self._target)
        async with client, server, anyio.create_task_group() as group:
            group.start_soon(self._pump, server, client, False)
            await self._pump(client, server, True)
            group.cancel_scope.cancel()

    async def _pump(self, source: anyio.abc.SocketStream, sink: anyio.abc.SocketStream, noted: bool) -> None:
        try:
            async for data in source:
                if noted:
                    self.arrivals.append(time.perf_counter())
                await sink.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return


@asynccontextmanager
async def scripted_model() -> AsyncIterator[Meter]:
    """The scripted model in a process of its own, behind a meter."""
    target = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "agents.models.scripted", "--port", str(target)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        async with anyio.create_task_group() as group:
            meter = Meter(free_port(), target)
            await group.start(meter.serve)
            yield meter
            group.cancel_scope.cancel()
    finally:
        process.terminate()
        process.wait()


def at_rest(house: House) -> dict[str, list[psutil.Process]]:
    """The supervisor, each program it keeps and the sandboxes that wait for a task, once nothing else runs any more: no
    task's sandbox, no git."""
    kept = {pid: name for name, pid in house.ready.pids.items()}
    up = psutil.Process(house.process.pid)
    while True:
        family = up.children(recursive=True)
        spares = [one for child in family if waits(child) for one in (child, *child.children(recursive=True))]
        others = [child for child in family if child not in spares]
        if {child.pid for child in others} == set(kept):
            return {"up": [up], **{kept[child.pid]: [child] for child in others}, "warm sandbox": spares}
        time.sleep(0.02)


def waits(process: psutil.Process) -> bool:
    try:
        return process.environ().get("ERRAND_TASK") == SPARE
    except psutil.Error:
        return False


def weights(house: House) -> dict[str, float]:
    """MiB of PSS of all that goes on when nothing is done."""
    at_rest(house)
    time.sleep(SETTLE_SECONDS)
    return {name: sum(map(mebibytes, processes)) for name, processes in at_rest(house).items()}


def mebibytes(process: psutil.Process) -> float:
    return process.memory_full_info().pss / 1024 / 1024


async def send_to_model(house: House, meter: Meter, repository: Path) -> list[float]:
    """Milliseconds from the phone's send to the first byte at the model, each task sent when all is at rest."""
    found: list[float] = []
    async with phone(house) as owner:
        await owner.until(lambda: owner.connections > 0)
        for number in range(TASKS):
            await anyio.to_thread.run_sync(at_rest, house)
            before = len(meter.arrivals)
            sent = time.perf_counter()
            task = await owner.submit("[scenario: noop]", str(repository), key=f"bench-{number}")
            await owner.ended(task)
            found.append((meter.arrivals[before] - sent) * 1000)
    return found[2:]


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as folder:
        repository = make_repository(Path(folder) / "greeter")
        async with scripted_model() as meter:
            settings = {
                "ERRAND_MODEL_URL": f"http://127.0.0.1:{meter.port}",
                "ERRAND_SCRIPTED": "1",
                "ERRAND_MODEL": "scripted",
                "ERRAND_FRESHNESS_SECONDS": "3600",
            }
            with errand_up(Path(folder) / "data", **settings) as house:
                sends = await send_to_model(house, meter, repository)
        with errand_up(Path(folder) / "data2") as house:
            ready = house.ready.seconds
            async with phone(house) as owner:
                task = await owner.submit("[scenario: tour]", str(repository), key="weight")
                await owner.ended(task)
            sizes = await anyio.to_thread.run_sync(weights, house)
            idle = sum(sizes.values())
            print("  idle, MiB:", ", ".join(f"{name} {size:.0f}" for name, size in sizes.items()))
    return [
        Row(
            what="`errand up` until every service takes work",
            ours=ready,
            unit="s",
            demanded="3 s",
            ok=ready <= READY_SECONDS,
        ),
        Row(
            what="phone's send to first model request, p50, mirror fresh",
            ours=median(sends),
            unit="ms",
            demanded="15 ms",
            ok=median(sends) <= SEND_MILLISECONDS,
        ),
        Row(
            what="idle after one task, sum of PSS, NATS included",
            ours=idle,
            unit="MiB",
            demanded="300 MiB",
            ok=idle <= IDLE_MEBIBYTES,
        ),
    ]


def rows() -> list[Row]:
    return anyio.run(measure)


if __name__ == "__main__":
    report("way", rows())
