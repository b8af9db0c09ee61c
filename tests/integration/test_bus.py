"""The bus against a real nats-server with the house's own permissions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import pytest

from protocol.query import AskHealth, ClaimAttempt, Health, NothingToClaim, Refusal
from protocol.routes import Service, Stream
from protocol.task import CancelTask, Decision, FireTimer, TaskState
from services.bus import Bus, Conflict, Reader, Refused, Stored, Unavailable, connect
from tests.integration.nats_house import NatsHouse, nats_house

pytestmark = pytest.mark.anyio
DECISION = Decision(at=datetime(2026, 1, 1, tzinfo=UTC), state=TaskState.QUEUED)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


@asynccontextmanager
async def connected(house: NatsHouse, *services: Service) -> AsyncIterator[list[Bus]]:
    """One bus a service; the streams are there."""
    async with AsyncExitStack() as stack:
        maker = await stack.enter_async_context(connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER))
        await maker.make_streams()
        others = [s for s in services if s is not Service.SCHEDULER]
        buses = {s: await stack.enter_async_context(connect(house.bus_config(s), s)) for s in others}
        yield [buses.get(service, maker) for service in services]


async def collect(reader: Reader, count: int) -> list[Stored]:
    found: list[Stored] = []
    with anyio.fail_after(20):
        async for batch in reader.batches():
            found += batch
            if len(found) >= count:
                return found
    raise AssertionError


async def test_a_commit_with_the_wrong_last_sequence_is_a_conflict(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER) as [bus]:
        first = await bus.commit("evt.owner.t1.task.queued", DECISION, log="evt.owner.t1.task.>", expected=0)
        with pytest.raises(Conflict):
            await bus.commit("evt.owner.t1.task.failed", DECISION, log="evt.owner.t1.task.>", expected=0)
        await bus.commit("evt.owner.t1.task.failed", DECISION, log="evt.owner.t1.task.>", expected=first)


async def test_a_keyed_publish_is_stored_once(house: NatsHouse) -> None:
    async with connected(house, Service.GATEWAY) as [bus]:
        command = CancelTask(key="c")
        sequences = {await bus.publish("cmd.owner.t2.cancel_task", command, key="t2.c") for _ in range(3)}
        assert len(sequences) == 1


async def test_a_replay_gives_exactly_what_came_after_the_cursor(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER) as [bus]:
        sequences = [await bus.publish("evt.owner.t3.task.queued", DECISION) for _ in range(1100)]
        found = await bus.replay("evt.owner.t3.>", after=sequences[9])
        assert [stored.sequence for stored in found] == sequences[10:]
        assert await bus.replay("evt.owner.t3.>", after=sequences[-1]) == []
        assert await bus.replay("evt.nobody.>") == []
        assert await bus.last("evt.owner.t3.>") == sequences[-1]
        assert await bus.last("evt.nobody.>") == 0


async def test_a_reader_goes_on_in_order_over_a_killed_server(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER) as [bus]:
        start = await bus.last(">")
        async with bus.read("evt.owner.t4.>", after=start) as reader:
            sequences = [await bus.publish("evt.owner.t4.task.queued", DECISION, key=f"a{i}") for i in range(3)]
            assert [s.sequence for s in await collect(reader, 3)] == sequences
            house.kill()
            house.start()
            more = [await bus.publish("evt.owner.t4.task.queued", DECISION, key=f"b{i}") for i in range(3)]
            assert [s.sequence for s in await collect(reader, 3)] == more
            assert bus.stalled() == []


async def test_a_tap_sees_what_was_stored_and_not_what_was_refused(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER, Service.GATEWAY) as [bus, gateway]:
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


async def test_a_schedule_fires_as_a_command_and_can_be_taken_back(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER) as [bus]:
        now = datetime.now(UTC)
        async with bus.read("cmd.owner.t6.>", after=await bus.last(">")) as reader:
            timer = FireTimer(key="k", name="retry", due=now)
            for task, seconds in (("t7", 0.3), ("t6", 0.6)):
                await bus.schedule(
                    f"timer.{task}.retry", timer, at=now + timedelta(seconds=seconds), target="cmd.owner.t6.fire_timer"
                )
            await bus.purge(Stream.TASKS, "timer.t7.retry")
            fired = await collect(reader, 1)
            assert fired[0].at >= now + timedelta(seconds=0.6), "the one that was taken back did not fire"


async def test_queries_are_answered_refused_or_have_nobody(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER, Service.GATEWAY, Service.RUNNER) as [bus, gateway, runner]:
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
        answer = await runner._nats.request("qry.scheduler.claim_attempt", b"{not json")
        assert b"cannot be read" in answer.data
        await service.stop()


async def test_a_service_may_not_write_what_is_not_its_own(house: NatsHouse) -> None:
    async with connected(house, Service.GATEWAY, Service.READER) as [gateway, reader]:
        for bus in (gateway, reader):
            with pytest.raises(Unavailable):
                await bus.publish("evt.owner.t8.task.queued", DECISION)
        with pytest.raises(Unavailable):
            await reader.publish("cmd.owner.t8.cancel_task", CancelTask(key="x"))
        assert await gateway.last("evt.owner.t8.>") == 0


async def test_nobody_connects_without_a_credential(house: NatsHouse) -> None:
    config = house.bus_config(Service.GATEWAY)
    with pytest.raises(Unavailable):
        async with connect(config, Service.SCHEDULER):
            pass


async def test_a_lease_has_one_holder_and_is_free_once_dropped(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER) as [bus]:
        holder = Refusal(reason="")
        revision = await bus.take_lease("scheduler", holder)
        revision = await bus.take_lease("scheduler", holder, revision)
        with pytest.raises(Conflict):
            await bus.take_lease("scheduler", holder)
        await bus.drop_lease("scheduler")
        await bus.take_lease("scheduler", holder)


async def test_a_blob_of_a_few_megabytes_comes_back_as_it_was(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER, Service.RUNNER) as [bus, runner]:
        data = bytes(range(256)) * 8192
        await runner.put_blob("checkpoint.t9", data)
        assert await bus.get_blob("checkpoint.t9") == data
        await runner.delete_blob("checkpoint.t9")
        with pytest.raises(KeyError):
            await bus.get_blob("checkpoint.t9")
