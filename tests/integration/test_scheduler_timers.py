"""Waits over a real nats-server: they outlive it, and the scheduler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from protocol.evolve import User, evolve_user
from protocol.ids import task_id
from protocol.routes import Service, user_command_subject
from protocol.schedule import Submission
from protocol.task import CancelTask, SubmitTask, TaskState, decode_decision
from protocol.user import AddSchedule, AddUser, EndRun, FireSchedule, Role, decode_user_decision
from services.background import background
from services.bus import Bus, connect
from services.scheduler.scheduler import Config, Scheduler
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.test_scheduler import USER, Player, player

pytestmark = pytest.mark.anyio


@pytest.fixture
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


@asynccontextmanager
async def scheduler(house: NatsHouse) -> AsyncIterator[Bus]:
    """A scheduler of this process, stopped in order at the end."""
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus, background() as group:
        started = anyio.Event()
        working = Scheduler(bus, Config())
        group.start_soon(working.run, started.set)
        await started.wait()
        yield bus
        await working.drain()


async def submit(play: Player, key: str, **waits: object) -> str:
    task = task_id(USER, key)
    command = SubmitTask(key=key, prompt="do it", repository="https://example.test/r", **waits)  # type: ignore[arg-type]
    await play.send(task, command)
    return task


async def armed(bus: Bus, count: int) -> list[str]:
    """The subjects of the timers that are set, once there are so many."""
    with anyio.fail_after(10):
        while len(found := await bus.replay("timer.*.*")) != count:
            await anyio.sleep(0.02)
    return sorted(each.subject for each in found)


async def test_every_wait_outlives_the_server_and_the_scheduler(house: NatsHouse) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=4)
    async with player(house) as play:
        async with scheduler(house) as bus:
            dated = await submit(play, "dated", start_at=soon)
            queued = await submit(play, "queued", queue_seconds=4.0)
            timed = await submit(play, "timed", turn_seconds=4.0)
            far = await submit(play, "far", start_at=soon + timedelta(days=300))
            gone = await submit(play, "gone", start_at=soon)
            await play.until(gone, lambda t: t.state is TaskState.DELAYED)
            await play.send(gone, CancelTask(key="c"))
            await play.until(gone, lambda t: t.state is TaskState.CANCELLED)
            wanted = [f"timer.{dated}.delay", f"timer.{far}.delay", f"timer.{queued}.queue", f"timer.{timed}.turn"]
            assert await armed(bus, 4) == sorted(wanted), "a cancelled task's timer is taken away"
        # As a scheduler leaves it that dies between a commit and its timers.
        await set_in_vain(house, gone, soon + timedelta(days=1))
        house.kill()
        house.start()
        async with scheduler(house) as bus:
            begun = await play.until(dated, lambda t: t.state is TaskState.QUEUED)
            assert begun.in_line_since is not None
            assert begun.in_line_since >= soon
            failed = await play.until(queued, lambda t: t.state is TaskState.FAILED)
            assert "No runner was free within 4 s" in failed.reason
            ended = await play.until(timed, lambda t: t.state is TaskState.FAILED)
            assert "did not end within 4 s" in ended.reason
            assert await armed(bus, 1) == [f"timer.{far}.delay"]
            # As one that a scheduler sent before it was frozen, and that comes when another has its place.
            await set_in_vain(house, gone, soon + timedelta(days=1))
            assert await armed(bus, 1) == [f"timer.{far}.delay"]


async def set_in_vain(house: NatsHouse, task: str, at: datetime) -> None:
    """A timer that nobody waits for, by a scheduler that is not the active one."""
    async with connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
        await bus.schedule(f"timer.{task}.turn", CancelTask(key="never"), at=at, target=f"cmd.{USER}.x.y")


async def owner(bus: Bus) -> User:
    user = User(id=USER)
    for stored in await bus.replay(f"evt.{USER}.user.>"):
        user = evolve_user(user, decode_user_decision(stored.data))
    return user


async def test_a_schedule_submits_each_occurrence_once_over_a_restart_and_stops_after_three_failures(
    house: NatsHouse,
) -> None:
    submission = Submission(prompt="do it", repository="https://example.test/r")
    async with player(house) as play:
        for command in (
            AddUser(key="u", name="Owner", role=Role.OWNER),
            AddSchedule(
                key="a", schedule="s1", name="n", cron="0 0 * * *", time_zone="Europe/Berlin", submission=submission
            ),
        ):
            await play.gateway.publish(user_command_subject(USER, command), command, key=command.key)
        async with scheduler(house) as bus:
            assert await armed(bus, 1) == [f"timer.{USER}.s1"]
            due = (await owner(bus)).schedules["s1"].next_at
            assert due is not None
            # Its time, at once and three times over: by a timer that is late, repeated and of another scheduler.
            for number in range(3):
                fired = FireSchedule(key=f"fire {number}", schedule="s1", due=due)
                await bus.publish(user_command_subject(USER, fired), fired)
            task = task_id(USER, f"schedule s1 {due.isoformat()}")
            state = await play.until(task, lambda t: t.turn == 1)
            assert (state.schedule, state.title) == ("s1", "n")
        house.kill()
        house.start()
        async with scheduler(house) as bus:
            for _ in range(3):
                user = await owner(bus)
                [run] = user.schedules["s1"].runs
                await play.until(run.task, lambda t: t.turn == 1)
                failed = EndRun(key=f"end of {run.task}", schedule="s1", task=run.task, outcome=TaskState.FAILED)
                await bus.publish(user_command_subject(USER, failed), failed)
                due = user.schedules["s1"].next_at
                fired = FireSchedule(key=f"fire {due}", schedule="s1", due=due)  # type: ignore[arg-type]
                await bus.publish(user_command_subject(USER, fired), fired)
                with anyio.fail_after(10):
                    while fired.key not in (user := await owner(bus)).receipts:
                        await anyio.sleep(0.02)
            assert "3 runs in a row failed" in user.schedules["s1"].paused
            assert await armed(bus, 0) == []
            submitted = [decode_decision(s.data).events for s in await bus.replay(f"evt.{USER}.*.task.*")]
            assert sum(type(event).__name__ == "TaskSubmitted" for events in submitted for event in events) == 3
