"""What the bus has of a real nats-server: its restarts, and the house's own permissions."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import pytest
import structlog

from protocol.query import ClaimAttempt, NothingToClaim
from protocol.routes import Service
from protocol.task import CancelTask, Decision, TaskState
from services.bus import (
    SILENCE_SECONDS,
    TIMEOUT_SECONDS,
    Bus,
    Conflict,
    Later,
    NoAnswer,
    Stored,
    Unavailable,
    connect,
    jetstream_api,
)
from tests.integration.nats_house import NatsHouse, collect, nats_house

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


async def test_a_reader_goes_on_in_order_over_a_killed_server(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER) as [bus]:
        start = await bus.last(">")
        async with bus.read("evt.owner.t4.>", after=start) as reader:
            sequences = [await bus.publish("evt.owner.t4.task.queued", DECISION, key=f"a{i}") for i in range(3)]
            assert [s.sequence for s in await collect(reader, 3)] == sequences
            house.kill()
            house.start()
            # Much sooner than the silence in which the reader would have missed the server.
            with anyio.fail_after(SILENCE_SECONDS / 2):
                more = [await bus.publish("evt.owner.t4.task.queued", DECISION, key=f"b{i}") for i in range(3)]
                assert [s.sequence for s in await collect(reader, 3)] == more
            assert bus.stalled() == []


async def test_what_a_killed_server_will_not_answer_is_given_up_at_once(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER, Service.RUNNER) as [scheduler, runner]:
        asked = anyio.Event()

        async def wait_for_work(_: ClaimAttempt) -> NothingToClaim:
            asked.set()
            await anyio.sleep_forever()
            raise AssertionError

        async def ask() -> None:
            claim = ClaimAttempt(request="q1", runner="r1", queue="default", wait_seconds=60)
            with pytest.raises(NoAnswer):
                await runner.ask(Service.SCHEDULER, claim, NothingToClaim, timeout_seconds=60)

        async def commit() -> None:
            with pytest.raises(Unavailable):
                await scheduler.commit("evt.owner.t8.task.queued", DECISION, log="evt.owner.t8.task.>", expected=0)

        await scheduler.serve({ClaimAttempt: wait_for_work}, version="0.0.0")
        with anyio.fail_after(TIMEOUT_SECONDS / 2):
            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                await asked.wait()
                os.kill(house.pid, signal.SIGSTOP)  # it answers nothing, and has not gone yet
                group.start_soon(commit)
                await anyio.lowlevel.checkpoint()
                house.kill()
    house.start()


async def test_whatever_batch_a_killed_server_had_in_hand_the_log_says_what_was_stored(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER) as [bus]:
        acknowledged: dict[str, int] = {}
        some = anyio.Event()

        async def commit(task: str) -> None:
            log = f"evt.owner.{task}.task.>"
            while task not in acknowledged:
                try:
                    acknowledged[task] = await bus.commit(f"{log[:-1]}queued", DECISION, log=log, expected=0)
                except Unavailable:
                    await anyio.sleep(0.1)
                except Conflict:  # stored all the same: the answer was lost
                    acknowledged[task] = await bus.last(log)
                if len(acknowledged) > 50:
                    some.set()

        async with anyio.create_task_group() as group:
            for number in range(600):
                group.start_soon(commit, f"k{number}")
            await some.wait()
            house.kill()
            house.start()
        for task, sequence in acknowledged.items():
            assert [each.sequence for each in await bus.replay(f"evt.owner.{task}.>")] == [sequence]


async def test_a_subscription_that_is_given_up_on_its_way_leaves_the_connection_as_it_is(house: NatsHouse) -> None:
    async def hears(subject: str, data: bytes) -> None: ...

    async with connected(house, Service.GATEWAY) as [gateway]:
        pongs = gateway._nats._pongs  # pyright: ignore[reportPrivateUsage]
        async with anyio.create_task_group() as group:
            group.start_soon(gateway.listen, "out.owner.*", hears)
            while not pongs:
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()
        await gateway.last("evt.>")


async def test_a_service_may_not_write_what_is_not_its_own(house: NatsHouse) -> None:
    async with connected(house, Service.GATEWAY, Service.READER) as [gateway, reader]:
        for bus in (gateway, reader):
            with pytest.raises(Unavailable):
                await bus.publish("evt.owner.t8.task.queued", DECISION)
        with pytest.raises(Unavailable):
            await reader.publish("cmd.owner.t8.cancel_task", CancelTask(key="x"))
        assert await gateway.last("evt.owner.t8.>") == 0


async def test_a_deleted_blob_leaves_no_message(house: NatsHouse) -> None:
    async with connected(house, Service.RUNNER) as [runner]:

        async def left() -> list[int]:
            found = await jetstream_api(runner._nats, "STREAM.INFO.OBJ_blobs", {})  # pyright: ignore[reportPrivateUsage]
            return [found["state"]["messages"], found["state"].get("num_subjects", 0)]

        before = await left()
        for name in ("checkpoint.t1.1.2.abc", "checkpoint.t1.1.3.abd"):
            await runner.put_blob(name, bytes(300_000))
            await runner.delete_blob(name)
            await runner.delete_blob(name)
        assert await left() == before


async def test_nobody_connects_without_a_credential(house: NatsHouse) -> None:
    config = house.bus_config(Service.GATEWAY)
    with pytest.raises(Unavailable):
        async with connect(config, Service.SCHEDULER):
            pass


async def test_a_question_that_cannot_be_read_is_refused(house: NatsHouse) -> None:
    async with connected(house, Service.SCHEDULER, Service.RUNNER) as [bus, runner]:

        async def claim(question: ClaimAttempt) -> NothingToClaim:
            return NothingToClaim()

        service = await bus.serve({ClaimAttempt: claim}, version="0.1.0")
        answer = await runner._nats.request("qry.scheduler.claim_attempt", b"{not json")
        assert b"cannot be read" in answer.data
        await service.stop()


SHARED = "evt.owner.share.task.queued"
ACK_SECONDS = 4.0
"""Long enough for a busy machine."""


class Turn:
    """One of those who share the consumer that gateways may share."""

    def __init__(self, bus: Bus, *errors: Exception) -> None:
        self.handled: list[int] = []
        self.has_one = anyio.Event()
        self.may_end = anyio.Event()
        self.may_end.set()
        self._errors = list(errors)
        self.poison = 0
        self.turns = bus.share("push", "evt.owner.share.>", handle=self._handle, ack_seconds=ACK_SECONDS, at_once=2)

    async def _handle(self, stored: Stored) -> None:
        self.has_one.set()
        await self.may_end.wait()
        if self._errors:
            raise self._errors.pop(0)
        if stored.sequence == self.poison:
            raise ValueError("boom")
        self.handled.append(stored.sequence)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_a_message_over_which_the_handling_fails_again_and_again_is_buried(
    house: NatsHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.bus.turns.FAILED_SECONDS", 0.01)
    async with (
        connected(house, Service.SCHEDULER, Service.GATEWAY) as [scheduler, gateway],
        anyio.create_task_group() as group,
    ):
        turn = Turn(gateway)
        group.start_soon(turn.turns.run)
        while not turn.handled:  # nothing of what is older than their consumer is theirs
            await scheduler.publish(SHARED, DECISION)
            await anyio.lowlevel.checkpoint()
        turn.poison = await scheduler.publish(SHARED, DECISION)
        after = await scheduler.publish(SHARED, DECISION)
        await until(lambda: after in turn.handled)
        with anyio.fail_after(10):
            while not (found := await gateway.buried()):
                await anyio.lowlevel.checkpoint()
        assert [(letter.of, letter.subject) for letter in found] == [(turn.poison, SHARED)]
        assert "boom" in found[0].reason
        await gateway.unbury(found[0].sequence)
        assert await gateway.buried() == []
        await turn.turns.stop()
        group.cancel_scope.cancel()


async def test_those_who_share_handle_each_message_once_and_what_came_too_early_again(house: NatsHouse) -> None:
    async with (
        connected(house, Service.SCHEDULER, Service.GATEWAY) as [scheduler, gateway],
        anyio.create_task_group() as group,
    ):
        first, second = Turn(gateway, Later(0.1)), Turn(gateway)
        group.start_soon(first.turns.run)
        group.start_soon(second.turns.run)
        while not first.handled + second.handled:  # nothing of what is older than their consumer is theirs
            await scheduler.publish(SHARED, DECISION)
        sequences = {await scheduler.publish(SHARED, DECISION) for _ in range(40)}
        await until(lambda: sequences <= {*first.handled, *second.handled})
        assert len(first.handled + second.handled) == len({*first.handled, *second.handled})
        await first.turns.stop()
        last = await scheduler.publish(SHARED, DECISION)
        await until(lambda: last in second.handled)
        await second.turns.stop()


async def test_who_stops_ends_what_is_in_hand_and_nobody_handles_it_again(house: NatsHouse) -> None:
    async with (
        connected(house, Service.SCHEDULER, Service.GATEWAY) as [scheduler, gateway],
        anyio.create_task_group() as group,
    ):
        first, second = Turn(gateway), Turn(gateway)
        first.may_end = anyio.Event()
        group.start_soon(first.turns.run)
        while not first.has_one.is_set():  # nothing of what is older than their consumer is theirs
            await scheduler.publish(SHARED, DECISION)
        group.start_soon(first.turns.stop)
        group.start_soon(second.turns.run)
        first.may_end.set()
        await first.turns.stop()
        assert first.handled
        await anyio.sleep(ACK_SECONDS + 1)  # longer than it takes until a message is another's
        assert not {*first.handled} & {*second.handled}
        await second.turns.stop()


async def test_a_shared_consumer_that_somebody_took_away_is_made_again_without_haste(house: NatsHouse) -> None:
    async with (
        connected(house, Service.SCHEDULER, Service.GATEWAY) as [scheduler, gateway],
        anyio.create_task_group() as group,
    ):
        turn, log = Turn(gateway), structlog.testing.LogCapture()
        turn.turns._log = structlog.wrap_logger(None, processors=[log])
        group.start_soon(turn.turns.run)
        while not turn.handled:
            await scheduler.publish(SHARED, DECISION)
        await jetstream_api(gateway._nats, "CONSUMER.DELETE.TASKS.push", {})
        before = len(turn.handled)
        with anyio.fail_after(20):
            while len(turn.handled) == before:
                await scheduler.publish(SHARED, DECISION)
        await turn.turns.stop()
        assert len(log.entries) < 20


async def test_what_is_of_no_blob_goes_once_it_is_old(house: NatsHouse) -> None:
    """The pieces of one whose writer died, and the word of an earlier release that one was deleted."""
    async with connected(house, Service.SCHEDULER) as [bus]:
        await bus.put_blob("checkpoint.whole", b"whole")
        store = await bus._jetstream.object_store("blobs")
        await store.put("checkpoint.deleted", b"deleted")
        await store.delete("checkpoint.deleted")
        await bus._jetstream.publish("$O.blobs.C.nobody", b"half of")
        assert await bus.drop_leftovers("blobs", before=datetime.now(UTC) - timedelta(hours=1)) == 0
        assert await bus.drop_leftovers("blobs", before=datetime.now(UTC) + timedelta(hours=1)) == 2
        assert await bus.drop_leftovers("blobs", before=datetime.now(UTC) + timedelta(hours=1)) == 0
        assert await bus.get_blob("checkpoint.whole") == b"whole"
