"""What services rely on of a bus: of the real one, and of the one in memory that simulations run on."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from protocol.base import encode
from protocol.query import AskHealth, ClaimAttempt, Health, NothingToClaim, Refusal
from protocol.routes import Service, Stream
from protocol.task import CancelTask, Decision, FireTimer, TaskState, decode_task_command
from services import bus as real
from services.bus import Conflict, Refused, Stored, Unavailable
from services.clock import Clock
from tests.integration.nats_house import NatsHouse, collect, nats_house
from tests.simulation import memory

pytestmark = pytest.mark.anyio
DECISION = Decision(at=datetime(2026, 1, 1, tzinfo=UTC), state=TaskState.QUEUED)
Connected = Callable[..., AbstractAsyncContextManager[list[Any]]]
"""Given services, one bus each; the streams are there."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


@pytest.fixture(params=["nats", "memory"])
def connected(request: pytest.FixtureRequest) -> Connected:
    if request.param == "memory":
        return in_memory
    house: NatsHouse = request.getfixturevalue("house")

    @asynccontextmanager
    async def connect(*services: Service) -> AsyncIterator[list[Any]]:
        async with AsyncExitStack() as stack:
            every = dict.fromkeys((Service.SCHEDULER, *services))
            buses = {s: await stack.enter_async_context(real.connect(house.bus_config(s), s)) for s in every}
            await buses[Service.SCHEDULER].make_streams()
            yield [buses[service] for service in services]

    return connect


@asynccontextmanager
async def in_memory(*services: Service) -> AsyncIterator[list[Any]]:
    server, weather = memory.Server(Clock()), memory.Weather(random.Random(0))
    weather.calm = True
    async with AsyncExitStack() as stack:
        timers = await stack.enter_async_context(anyio.create_task_group())
        timers.start_soon(memory.run_timers, server, weather)
        yield [await stack.enter_async_context(memory.connect(server, s, weather)) for s in services]
        timers.cancel_scope.cancel()


async def test_a_commit_with_the_wrong_last_sequence_is_a_conflict(connected: Connected) -> None:
    async with connected(Service.SCHEDULER) as [bus]:
        first = await bus.commit("evt.owner.t1.task.queued", DECISION, log="evt.owner.t1.task.>", expected=0)
        with pytest.raises(Conflict):
            await bus.commit("evt.owner.t1.task.failed", DECISION, log="evt.owner.t1.task.>", expected=0)
        await bus.commit("evt.owner.t1.task.failed", DECISION, log="evt.owner.t1.task.>", expected=first)


async def test_of_many_commits_at_once_only_the_one_in_conflict_is_refused(connected: Connected) -> None:
    async with connected(Service.SCHEDULER) as [bus]:
        first = await bus.commit("evt.owner.g0.task.queued", DECISION, log="evt.owner.g0.task.>", expected=0)
        stored: dict[str, int] = {}
        refused: list[str] = []

        async def commit(task: str) -> None:
            try:
                log = f"evt.owner.{task}.task.>"
                stored[task] = await bus.commit(f"evt.owner.{task}.task.queued", DECISION, log=log, expected=0)
            except Conflict:
                refused.append(task)

        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(commit, f"g{number}")
        assert refused == ["g0"]
        assert len(stored) == 199
        for task, sequence in (("g0", first), *stored.items()):
            found = await bus.replay(f"evt.owner.{task}.>")
            assert [(each.sequence, each.previous) for each in found] == [(sequence, 0)]


async def test_of_many_keyed_publishes_at_once_each_is_stored_once(connected: Connected) -> None:
    async with connected(Service.GATEWAY) as [bus]:
        command = CancelTask(key="c")
        stored: dict[int, set[int]] = {number: set() for number in range(100)}

        async def publish(number: int) -> None:
            stored[number].add(await bus.publish(f"cmd.owner.p{number}.cancel_task", command, key=f"p{number}.c"))

        async with anyio.create_task_group() as group:
            for number in [*range(100), *range(50)]:
                group.start_soon(publish, number)
        assert all(len(sequences) == 1 for sequences in stored.values())
        assert len({sequence for [sequence] in stored.values()}) == 100


async def test_a_keyed_publish_is_stored_once(connected: Connected) -> None:
    async with connected(Service.GATEWAY) as [bus]:
        command = CancelTask(key="c")
        sequences = {await bus.publish("cmd.owner.t2.cancel_task", command, key="t2.c") for _ in range(3)}
        assert len(sequences) == 1


async def test_a_replay_gives_exactly_what_came_after_the_cursor(connected: Connected) -> None:
    async with connected(Service.SCHEDULER) as [bus]:
        sequences = [await bus.publish("evt.owner.t3.task.queued", DECISION) for _ in range(1100)]
        found = await bus.replay("evt.owner.t3.>", after=sequences[9])
        assert [stored.sequence for stored in found] == sequences[10:]
        assert await bus.replay("evt.owner.t3.>", after=sequences[-1]) == []
        assert await bus.replay("evt.nobody.>") == []
        assert await bus.last("evt.owner.t3.>") == sequences[-1]
        assert await bus.last("evt.nobody.>") == 0


async def test_a_tap_sees_what_was_stored_and_not_what_was_refused(connected: Connected) -> None:
    async with connected(Service.SCHEDULER, Service.GATEWAY) as [bus, gateway]:
        seen: list[Stored] = []
        two = anyio.Event()

        async def take(stored: Stored) -> None:
            seen.append(stored)
            if len(seen) == 2:
                two.set()

        await gateway.tap("evt.owner.t5.>", take)
        log = "evt.owner.t5.task.>"
        first = await bus.commit("evt.owner.t5.task.queued", DECISION, log=log, expected=0)
        with pytest.raises(Conflict):
            await bus.commit("evt.owner.t5.task.failed", DECISION, log=log, expected=0)
        second = await bus.commit("evt.owner.t5.task.failed", DECISION, log=log, expected=first)
        with anyio.fail_after(10):
            await two.wait()
        assert [(s.sequence, s.previous, s.subject) for s in seen] == [
            (first, 0, "evt.owner.t5.task.queued"),
            (second, first, "evt.owner.t5.task.failed"),
        ]


async def test_a_schedule_fires_as_a_command_and_can_be_taken_back(connected: Connected) -> None:
    async with connected(Service.SCHEDULER) as [bus]:
        now = datetime.now(UTC)
        async with bus.read("cmd.owner.t6.>", after=await bus.last(">")) as reader:
            timer = FireTimer(key="k", name="delay", due=now)
            for task, seconds in (("t7", 0.3), ("t6", 0.6)):
                await bus.schedule(
                    f"timer.{task}.delay", timer, at=now + timedelta(seconds=seconds), target="cmd.owner.t6.fire_timer"
                )
            assert [each.subject for each in await bus.replay("timer.*.*")] == ["timer.t7.delay", "timer.t6.delay"]
            await bus.purge(Stream.TASKS, "timer.t7.*")
            assert [each.data for each in await bus.replay("timer.*.*")] == [encode(timer)]
            fired = await collect(reader, 1)
            assert fired[0].at >= now + timedelta(seconds=0.6), "the one that was taken back did not fire"
            assert await bus.replay("timer.*.*") == [], "what has fired is gone"


async def test_a_schedule_on_the_same_subject_takes_the_place_of_the_one_before(connected: Connected) -> None:
    async with connected(Service.SCHEDULER) as [bus]:
        now = datetime.now(UTC)
        async with bus.read("cmd.owner.t8.>", after=await bus.last(">")) as reader:
            for key, seconds in (("far", 3600), ("near", 0.1)):
                timer = FireTimer(key=key, name="delay", due=now)
                at = now + timedelta(seconds=seconds)
                await bus.schedule("timer.t8.delay", timer, at=at, target="cmd.owner.t8.fire_timer")
            assert len(await bus.replay("timer.t8.*")) == 1
            assert [decode_task_command(fired.data).key for fired in await collect(reader, 1)] == ["near"]


async def test_queries_are_answered_refused_or_have_nobody(connected: Connected) -> None:
    async with connected(Service.SCHEDULER, Service.GATEWAY, Service.RUNNER) as [bus, gateway, runner]:
        asked = ClaimAttempt(request="r", runner="x")
        with pytest.raises(Unavailable, match="No scheduler is running"):
            await runner.ask_any(Service.SCHEDULER, asked)

        async def claim(question: ClaimAttempt) -> NothingToClaim:
            return NothingToClaim()

        async def health(question: AskHealth) -> Health:
            raise Refused("not now", "unavailable")

        service = await bus.serve({ClaimAttempt: claim, AskHealth: health}, version="0.1.0")
        assert await runner.ask_any(Service.SCHEDULER, asked) == NothingToClaim()
        with pytest.raises(Refused, match="not now") as refused:
            await gateway.ask(Service.SCHEDULER, AskHealth(), Health)
        assert refused.value.code == "unavailable"
        await service.stop()


async def test_a_lease_has_one_holder_and_is_free_once_dropped(connected: Connected) -> None:
    async with connected(Service.SCHEDULER) as [bus]:
        holder = Refusal(reason="")
        revision = await bus.take_lease("scheduler", holder)
        revision = await bus.take_lease("scheduler", holder, revision)
        with pytest.raises(Conflict):
            await bus.take_lease("scheduler", holder)
        await bus.drop_lease("scheduler")
        await bus.take_lease("scheduler", holder)


async def test_a_blob_of_a_few_megabytes_comes_back_as_it_was(connected: Connected) -> None:
    async with connected(Service.SCHEDULER, Service.RUNNER) as [bus, runner]:
        data = bytes(range(256)) * 8192
        await runner.put_blob("checkpoint.t9", data)
        assert await bus.get_blob("checkpoint.t9") == data
        await runner.delete_blob("checkpoint.t9")
        with pytest.raises(KeyError):
            await bus.get_blob("checkpoint.t9")


async def test_work_that_takes_long_is_asked_for_again_and_joined(connected: Connected) -> None:
    async with connected(Service.SCHEDULER, Service.RUNNER) as [bus, runner]:
        begun, asked, third, go_on = 0, 0, anyio.Event(), anyio.Event()
        ask_any = runner.ask_any

        async def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 3:
                third.set()
            return await ask_any(*arguments, **named)

        async def claim(question: ClaimAttempt) -> NothingToClaim:
            nonlocal begun
            begun += 1
            await go_on.wait()
            return NothingToClaim()

        runner.ask_any = counted
        service = await bus.serve({ClaimAttempt: claim}, version="0.1.0", joined=[ClaimAttempt])
        async with anyio.create_task_group() as group:

            async def finish() -> None:
                await third.wait()
                assert begun == 1
                go_on.set()

            group.start_soon(finish)
            question = ClaimAttempt(request="long", runner="x")
            answer = await runner.ask(
                Service.SCHEDULER, question, NothingToClaim, timeout_seconds=10, again_seconds=0.1
            )
        assert answer == NothingToClaim()
        await service.stop()
