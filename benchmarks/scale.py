"""A store of many tasks: how long a scheduler takes to start over it, and whether a submit takes longer than in an
empty one. `ERRAND_TASKS=<n>` says another number than 100,000.

Half of the tasks are queued, for a queue that no runner serves; half have ended and lie in the archive. Both houses
are up at once, and are asked by turns.
"""

from __future__ import annotations

import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec
import psutil

from benchmarks import Row, compared, median, percentile, report
from benchmarks.queue import process
from protocol.evolve import Task, evolve
from protocol.ids import task_id
from protocol.query import ClaimAttempt, ListTasks, TaskList
from protocol.routes import Service, command_subject, decision_subject
from protocol.task import (
    AttemptEnd,
    AttemptEnded,
    Decision,
    Receipt,
    ReceiptStatus,
    SubmitTask,
    TaskArchived,
    TaskState,
    TurnEnded,
    Usage,
)
from services.bus import SNAPSHOTS, Bus, Refused, Stored, Unavailable, connect
from services.scheduler.decide import Limits, answer, claim
from services.scheduler.snapshots import NAME
from tests.integration.nats_house import NatsHouse, nats_house

TASKS = int(os.environ.get("ERRAND_TASKS", "100000"))
USERS = 1_000
AT_ONCE = 500
SUBMITS = 300
START_SECONDS = 5.0
SLOWER_AT_MOST = 1.2


def kept(number: int) -> tuple[str, Decision]:
    """What the stream has of one task, and its subject."""
    user, key = f"user{number % USERS}", f"task-{number}"
    queue = "nobody's" if number % 2 else "default"
    now = datetime.now(UTC) - timedelta(days=40) + timedelta(milliseconds=number)
    submit = SubmitTask(
        key=key,
        prompt=f"Make the {number}th thing work as it says in the documentation, and add a test that shows it.",
        repository=f"https://git.example/people/repository-{number % 500}",
        queue=queue,
    )
    task = Task(id=task_id(user, key), user=user)
    decision = answer(task, submit, 1, now, Limits())
    assert decision is not None
    if queue == "default":
        task = evolve(task, decision)
        task = evolve(task, claim(task, ClaimAttempt(request=f"r{number}", runner="r"), now))
        decision = archived(evolve(task, ended(now)), number)
    return decision_subject(user, task.id, decision.state), decision


def archived(task: Task, number: int) -> Decision:
    """All that the stream has of it then."""
    put = TaskArchived(fold=msgspec.to_builtins(task), archive=f"{task.user}.{task.id}.{number}", until=number)
    return Decision(at=datetime.now(UTC) - timedelta(days=10), state=task.state, events=(put,))


def ended(now: datetime) -> Decision:
    usage = Usage(input_tokens=10_000, output_tokens=1_000, cost_usd=0.1)
    summary = "The thing works, and a test shows it."
    return Decision(
        at=now,
        state=TaskState.SUCCEEDED,
        events=(
            AttemptEnded(attempt=1, how=AttemptEnd.FINISHED, usage=usage),
            TurnEnded(turn=1, outcome=TaskState.SUCCEEDED, summary=summary, usage=usage),
        ),
        receipt=Receipt(key="finish 1", status=ReceiptStatus.CONSUMED),
    )


async def fill(house: NatsHouse) -> None:
    """Store the tasks."""
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
        await bus.make_streams()
        limit = anyio.CapacityLimiter(AT_ONCE)

        async def store(number: int) -> None:
            async with limit:
                await bus.publish(*kept(number), key=str(number))

        for first in range(0, TASKS, 10_000):
            async with anyio.create_task_group() as group:
                for number in range(first, min(first + 10_000, TASKS)):
                    group.start_soon(store, number)


async def until_it_answers(bus: Bus) -> None:
    while True:
        try:
            await bus.ask(Service.SCHEDULER, ListTasks(user="nobody"), TaskList, timeout_seconds=30)
            return
        except (Unavailable, Refused):
            await anyio.sleep(0.02)


async def start(house: NatsHouse, bus: Bus) -> tuple[float, float]:
    """Seconds from the start of a scheduler's process until it answers, and the MiB it has then. It is ended again."""
    began = time.perf_counter()
    with process(house, Service.SCHEDULER, "services.scheduler") as pid:
        await until_it_answers(bus)
        seconds = time.perf_counter() - began
        size = psutil.Process(pid).memory_info().rss / 2**20
        await until_kept(house)
    return seconds, size


async def until_kept(house: NatsHouse) -> None:
    """Until there is a snapshot."""
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
        with anyio.fail_after(120):
            while NAME not in await bus.blob_names(SNAPSHOTS):
                await anyio.sleep(0.1)


class Door:
    """Submits as the gateway does, and sees the decision as the gateway does."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.milliseconds: list[float] = []
        self._decided = anyio.Event()

    async def open(self) -> None:
        await self.bus.tap("evt.submitter.*.task.*", self._see)
        await until_it_answers(self.bus)

    async def submit(self, number: int) -> None:
        self._decided = anyio.Event()
        key = f"timed-{number}"
        command = SubmitTask(key=key, prompt="Nothing.", repository="https://git.example/x", queue="nobody's")
        task = task_id("submitter", key)
        began = time.perf_counter()
        await self.bus.publish(command_subject("submitter", task, command), command, key=f"{task}.{key}")
        await self._decided.wait()
        self.milliseconds.append((time.perf_counter() - began) * 1000)

    async def _see(self, stored: Stored) -> None:
        self._decided.set()


async def submits(full: NatsHouse, empty: NatsHouse) -> tuple[list[float], list[float]]:
    """Milliseconds of each, in the full house and in the empty one, by turns."""
    with (
        process(full, Service.SCHEDULER, "services.scheduler"),
        process(empty, Service.SCHEDULER, "services.scheduler"),
    ):
        async with (
            connect(full.bus_config(Service.GATEWAY), Service.GATEWAY) as one,
            connect(empty.bus_config(Service.GATEWAY), Service.GATEWAY) as other,
        ):
            await other.wait_for_streams()
            doors = Door(one), Door(other)
            for door in doors:
                await door.open()
            for number in range(SUBMITS):
                for door in doors:
                    await door.submit(number)
    return doors[0].milliseconds, doors[1].milliseconds


async def measure(full: NatsHouse, empty: NatsHouse) -> list[Row]:
    began = time.perf_counter()
    await fill(full)
    print(f"  {TASKS:,} tasks stored in {time.perf_counter() - began:.0f} s")
    async with connect(full.bus_config(Service.GATEWAY), Service.GATEWAY) as bus:
        without, _ = await start(full, bus)
        with_snapshot, size = await start(full, bus)
    many, few = await submits(full, empty)
    demanded = f"{START_SECONDS:g} s"
    what = f"start over {TASKS:,} tasks"
    slower = f"{SLOWER_AT_MOST:g} x an empty store's"
    return [
        Row(what=f"{what}, from its snapshot", ours=with_snapshot, unit="s", demanded=demanded,
            ok=with_snapshot <= START_SECONDS),
        Row(what=f"{what}, without one", ours=without, unit="s", demanded="none", ok=True),
        Row(what="the scheduler's memory after it", ours=size, unit="MiB", demanded="none", ok=True),
        *(
            compared(f"submit to decided, {name}", of(many), of(few), "ms", demanded=slower,
                     ok=of(many) <= SLOWER_AT_MOST * of(few), peer_name="empty store")
            for name, of in (("p50", median), ("p90", lambda values: percentile(values, 0.9)))
        ),
    ]  # fmt: skip


def rows() -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="errand-bench-") as one,
        tempfile.TemporaryDirectory(prefix="errand-bench-") as other,
        nats_house(Path(one)) as full,
        nats_house(Path(other)) as empty,
    ):
        return anyio.run(measure, full, empty, backend_options={"use_uvloop": True})


if __name__ == "__main__":
    report("scale", rows())
