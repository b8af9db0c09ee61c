"""What thousands of tasks leave behind, counted before and after, in the server and on the disk. Each is submitted,
run by a runner that does nothing, ended and archived over the real bus.

1,000 tasks with the other tests, 10,000 by `make test-faults`; `ERRAND_TASKS=<n>` says another number.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from typing import Any

import anyio
import pytest

from benchmarks.noop_runner import slot
from gateway.users import Users
from protocol.evolve import User, evolve_user
from protocol.history import AskReached, HistoryReached
from protocol.ids import OWNER, task_id
from protocol.query import ListTasks, TaskList
from protocol.routes import Service, Stream
from protocol.schedule import Submission
from protocol.task import SubmitTask, TaskState
from protocol.user import AddSchedule, AddUser, EndRun, FireSchedule, Role, decode_user_decision
from services.background import background
from services.bus import ARCHIVE, Bus, connect, jetstream_api
from services.scheduler.scheduler import Config, Scheduler
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.test_scheduler import Player, player

pytestmark = pytest.mark.anyio
Counts = dict[tuple[str, str], int]
USERS = 16
SLOTS = 64
AT_ONCE = 256
BLOCK_BYTES = 8 * 1024 * 1024
"""Of the stream's files: NATS keeps what is left of a task in blocks of so much."""

STREAMS = (*Stream, "KV_lease", "OBJ_blobs", "OBJ_snapshots", f"OBJ_{ARCHIVE}")
LEFT_A_TASK = {
    (Stream.TASKS, "messages"): 1,
    (Stream.TASKS, "num_subjects"): 1,
    (f"OBJ_{ARCHIVE}", "messages"): 2,
    (f"OBJ_{ARCHIVE}", "num_subjects"): 2,
}
"""What stays of an archived task: the decision that put it away, and its object (the data, and what it is called)."""
ALLOWED = {("OBJ_snapshots", "messages"): 8, ("OBJ_snapshots", "num_subjects"): 2}
"""How much else may be there, however many tasks there were: the scheduler's snapshot."""
SNAPSHOT_BYTES_A_TASK = 1_500
PIECE_BYTES = 128 * 1024
"""Of an object: each is a message."""
LEASES_ALLOWED = 2 * SLOTS
"""Each lease ends 5 s after its attempt."""
FILES_ALLOWED = 40

RUNS = 300
"""Of a schedule; each writes two messages into its user's log."""
LOG_MESSAGES = 50
BY_HAND = 2
"""What stays in the log besides: the user, and the schedule."""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[NatsHouse]:
    with nats_house(tmp_path) as house:
        yield house


@pytest.mark.timeout(150)
async def test_a_thousand_tasks_leave_what_is_named_here(house: NatsHouse) -> None:
    await count_around(house, int(os.environ.get("ERRAND_TASKS", "1000")))


@pytest.mark.faults
async def test_ten_thousand_tasks_leave_what_is_named_here(house: NatsHouse) -> None:
    await count_around(house, 10_000)


async def count_around(house: NatsHouse, tasks: int) -> None:
    config = Config(running_per_user=SLOTS, running_per_repository=SLOTS, archive_after_days=1e-9)
    async with (
        player(house) as play,
        connect(house.bus_config(Service.HISTORY), Service.HISTORY) as history,
        connect(house.bus_config(Service.OPERATOR), Service.OPERATOR) as operator,
        begun(house, config),
        anyio.create_task_group() as group,
    ):
        await serve_reached(history)
        for number in range(SLOTS):
            group.start_soon(slot, play.runner, f"noop-{number}")
        await put_through(play, operator, "warm", 2 * SLOTS)
        before = await counts(operator, house)
        await put_through(play, operator, "task", tasks, already=2 * SLOTS)
        after = await counts(operator, house)
        await everything_is_listed(play, tasks)
        assert_bounded(before, after, tasks)
        group.cancel_scope.cancel()


def assert_bounded(before: Counts, after: Counts, tasks: int) -> None:
    print({name: (before[name], after[name]) for name in after if before[name] != after[name]})
    for (stream, what), count in after.items():
        allowed = LEFT_A_TASK.get((stream, what), 0) * tasks + ALLOWED.get((stream, what), 0)
        if (stream, what) == ("OBJ_snapshots", "messages"):
            allowed += tasks * SNAPSHOT_BYTES_A_TASK // PIECE_BYTES
        if stream == "KV_lease":
            allowed += LEASES_ALLOWED
        if what == "files":
            allowed += FILES_ALLOWED
        assert count - before[stream, what] <= allowed, f"{what} of {stream}"


async def test_a_schedule_that_runs_and_runs_leaves_no_more_in_its_users_log(house: NatsHouse) -> None:
    config = Config(user_log_messages=LOG_MESSAGES)
    async with (
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus,
        connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
        connect(house.bus_config(Service.HISTORY), Service.HISTORY) as history,
    ):
        await serve_reached(history)
        async with begun(house, config) as scheduler, begun_users(gateway) as people, begun_users(bus) as users:
            await add_schedule(people)
            await run_often(users, RUNS)
            await people.catch_up()
            assert people.get(OWNER) == users.get(OWNER)
            last, log = users.get(OWNER), f"evt.{OWNER}.user.>"
            actor = scheduler.roster.user(OWNER)
            with anyio.fail_after(20):
                while not actor.is_cleared or actor.routine >= LOG_MESSAGES:
                    await anyio.sleep(0.05)
            stored = await bus.replay(log)
        assert last is not None
        assert len(stored) <= BY_HAND + 1 + LOG_MESSAGES
        assert last == reduce(evolve_user, (decode_user_decision(each.data) for each in stored), User(id=OWNER))
        async with begun(house, config), begun_users(bus) as users:
            assert users.get(OWNER) == last, "who comes later finds the same"
            again = await users.command(
                OWNER, FireSchedule(key=f"fire {RUNS - 1}", schedule="s", due=datetime.now(UTC))
            )
            assert again == last.receipts[again.key]
            assert await bus.last(log) == stored[-1].sequence, "and a command that is repeated has its receipt"


async def add_schedule(users: Users) -> None:
    submission = Submission(prompt="Nothing.", repository="https://git.example/1")
    await users.command(OWNER, AddUser(key="u", name="Owner", role=Role.OWNER))
    await users.command(
        OWNER, AddSchedule(key="a", schedule="s", name="s", cron="0 0 1 * *", time_zone="UTC", submission=submission)
    )


async def run_often(users: Users, runs: int) -> None:
    await users.catch_up()
    for number in range(runs):
        schedule = users.schedules(OWNER)["s"]
        assert schedule.next_at is not None
        await users.command(OWNER, FireSchedule(key=f"fire {number}", schedule="s", due=schedule.next_at))
        [run] = users.schedules(OWNER)["s"].runs
        await users.command(
            OWNER, EndRun(key=f"end {number}", schedule="s", task=run.task, outcome=TaskState.SUCCEEDED)
        )


@asynccontextmanager
async def begun(house: NatsHouse, config: Config) -> AsyncIterator[Scheduler]:
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus, background() as group:
        scheduler, started = Scheduler(bus, config), anyio.Event()
        scheduler.pace.pause_seconds, scheduler.pace.look_seconds = 0, 0.1
        group.start_soon(scheduler.run, started.set)
        await started.wait()
        yield scheduler
        await scheduler.drain()


@asynccontextmanager
async def begun_users(bus: Bus) -> AsyncIterator[Users]:
    users, started = Users(bus), anyio.Event()
    async with background() as group:
        group.start_soon(users.follow, started.set)
        await started.wait()
        yield users


async def serve_reached(history: Bus) -> None:
    """A history that has everything."""

    async def reached(asked: AskReached) -> HistoryReached:
        return HistoryReached(sequence=max(asked.at_least, await history.last("evt.>")))

    await history.serve({AskReached: reached}, version="0.0.0")


async def put_through(play: Player, operator: Bus, name: str, count: int, *, already: int = 0) -> None:
    """`count` tasks, from the submission to the archive."""
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def submit(number: int) -> None:
        user, key = f"user{number % USERS}", f"{name}-{number}"
        async with limit:
            command = SubmitTask(key=key, prompt="Nothing.", repository=f"https://git.example/{number % 100}")
            await play.send(task_id(user, key), command, user=user)

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(submit, number)
    with anyio.fail_after(900):
        while (await state(operator, f"OBJ_{ARCHIVE}"))["num_subjects"] < 2 * (count + already):
            await anyio.sleep(0.1)
        while (await state(operator, Stream.TASKS))["messages"] > count + already:
            await anyio.sleep(0.1)


async def everything_is_listed(play: Player, tasks: int) -> None:
    found = 0
    for number in range(USERS):
        before, more = "", True
        while more:
            asked = ListTasks(user=f"user{number}", limit=200, before=before)
            page = await play.gateway.ask(Service.SCHEDULER, asked, TaskList)
            assert all(line.archived for line in page.tasks)
            found, before, more = found + len(page.tasks), page.tasks[-1].id, page.more
    assert found == tasks + 2 * SLOTS


async def counts(operator: Bus, house: NatsHouse) -> Counts:
    found: Counts = {}
    for stream in STREAMS:
        now = await state(operator, stream)
        found |= {(stream, what): now.get(what, 0) for what in ("messages", "num_subjects", "consumer_count")}
    files = sum(len(names) for _, _, names in os.walk(house.data))
    sizes = [(await state(operator, stream))["bytes"] for stream in STREAMS]
    blocks = sum(size // BLOCK_BYTES for size in sizes)
    return found | {("data", "files"): files - blocks}


async def state(operator: Bus, stream: str) -> dict[str, Any]:
    now = (await jetstream_api(operator._nats, f"STREAM.INFO.{stream}", {}))["state"]  # pyright: ignore[reportPrivateUsage]
    return {"num_subjects": 0, **now}
