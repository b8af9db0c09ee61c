"""The history on a real stream: its rows are what independent code computes, whatever kills it and whatever comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import anyio
import anyio.to_thread
import duckdb
import pytest

from protocol.evolve import Task, evolve
from protocol.history import RunSql, SqlAnswer
from protocol.query import AskHealth, Health
from protocol.routes import Service, Stream
from protocol.task import decode_decision
from services.bus import Bus, Refused, connect
from services.history.service import Config, History
from tests.integration.history_world import (
    SECRETS,
    HistoryProcess,
    Said,
    random_stream,
    recompute,
    rows_of,
)
from tests.integration.nats_house import NatsHouse, nats_house

pytestmark = pytest.mark.anyio


class World:
    """A house with one history, and everyone who speaks to it."""

    def __init__(self, history: HistoryProcess, buses: dict[Service, Bus]) -> None:
        self.history = history
        self.buses = buses

    async def say(self, stream: Sequence[Said]) -> None:
        for service, subject, message in stream:
            await self.buses[service].publish(subject, message)

    async def ask(self, sql: str, *, at_least: int = 0, wait_seconds: float = 20.0) -> SqlAnswer:
        question = RunSql(sql=sql, at_least=at_least, wait_seconds=wait_seconds)
        return await self.buses[Service.GATEWAY].ask(Service.HISTORY, question, SqlAnswer, timeout_seconds=40)

    async def last(self) -> int:
        return await self.buses[Service.SCHEDULER].last("evt.>")

    async def raw(self) -> list[tuple[int, str, bytes]]:
        stored = await self.buses[Service.SCHEDULER].replay("evt.>")
        return [(one.sequence, one.subject, one.data) for one in stored]

    async def start(self) -> None:
        await anyio.to_thread.run_sync(self.history.start)

    async def finish(self) -> int:
        """Let the history reach the stream's end, then stop it; return its exit code."""
        await self.ask("SELECT 1", at_least=await self.last())
        return await anyio.to_thread.run_sync(self.history.stop)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[NatsHouse]:
    with nats_house(tmp_path / "nats") as house:
        yield house


@pytest.fixture
async def world(house: NatsHouse, tmp_path: Path) -> AsyncIterator[World]:
    async with _world(house, HistoryProcess(house, tmp_path)) as world:
        yield world


@asynccontextmanager
async def _world(house: NatsHouse, history: HistoryProcess) -> AsyncIterator[World]:
    async with (
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as scheduler,
        connect(house.bus_config(Service.RUNNER), Service.RUNNER) as runner,
        connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
    ):
        await scheduler.make_streams()
        try:
            yield World(history, {Service.SCHEDULER: scheduler, Service.RUNNER: runner, Service.GATEWAY: gateway})
        finally:
            await anyio.to_thread.run_sync(history.kill)


async def test_the_rows_are_what_independent_code_computes_from_the_stream(world: World) -> None:
    said = random_stream(seed=1, tasks=60)
    # Half of it is there before the history starts, the other half comes while it follows.
    await world.say(said[: len(said) // 2])
    await world.start()
    await world.say(said[len(said) // 2 :])
    assert await world.finish() == 0
    raw = await world.raw()
    assert rows_of(world.history.file) == recompute(raw)
    assert _states(world.history.file) == _folded(raw)
    whole = world.history.file.read_bytes()
    assert not [secret for secret in SECRETS if secret.encode() in whole]


def _states(file: Path) -> dict[str, str]:
    with duckdb.connect(str(file), read_only=True) as connection:
        return dict(connection.execute("SELECT task_id, state FROM tasks").fetchall())


def _folded(raw: Sequence[tuple[int, str, bytes]]) -> dict[str, str]:
    """By `protocol.evolve`, which the scheduler uses."""
    tasks: dict[str, Task] = {}
    for _, subject, data in raw:
        _, user, task, source, *_ = subject.split(".")
        if source == "task":
            tasks[task] = evolve(tasks.get(task, Task(id=task, user=user)), decode_decision(data))
    return {task: state.state.value for task, state in tasks.items() if state.created_at}


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_history_killed_at_random_moments_has_no_row_twice_and_none_missing(world: World, seed: int) -> None:
    random = Random(seed)
    said = random_stream(seed=seed, tasks=80)
    await world.start()
    for _ in range(3):
        piece, said = said[: (cut := random.randint(1, 250))], said[cut:]
        if random.random() < 0.5:
            await world.say(piece)
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(world.say, piece)
                await anyio.to_thread.run_sync(world.history.wait_for_a_write)
                world.history.kill()
        await anyio.to_thread.run_sync(world.history.kill)
        await world.start()
    await world.say(said[:100])
    await world.finish()
    assert rows_of(world.history.file) == recompute(await world.raw())


async def test_what_cannot_be_decoded_is_buried_and_the_history_goes_on(house: NatsHouse, world: World) -> None:
    bus = world.buses[Service.SCHEDULER]
    before, after = random_stream(seed=3, tasks=2), random_stream(seed=4, tasks=2)
    await world.start()
    await world.say(before)
    entry = b'{"attempt":%s,"at":"2026-11-01T00:00:00Z","event":{"type":"noticed","text":%s}}'
    for subject, data in (
        ("evt.u0.t9.task.queued", b"not JSON"),
        ("evt.u0.t9.task.queued", b'{"type":"from_the_future"}'),
        ("evt.u0.t9.task.queued", b'{"type":"decision","at":"2026-11-01T00:00:00Z","state":"an odd one"}'),
        ("evt.u0.user.odd", b"[]"),
    ):
        await bus._jetstream.publish(subject, data)
    for attempt, text in (
        (b"1", b'"\xff"'),
        (b"1", b"[" * 5000 + b"]" * 5000),
        (b"100000000000", b'"attempt too large"'),
    ):
        await world.buses[Service.RUNNER]._jetstream.publish("evt.u0.t9.journal.noticed", entry % (attempt, text))
    await world.say(after)
    answer = await world.ask("SELECT count(*) FROM events WHERE task_id = 't9'", at_least=await world.last())
    assert answer.rows == ((0,),)
    async with connect(house.bus_config(Service.READER), Service.READER) as reader:
        dead = await reader.replay("dead.>", stream=Stream.DEAD)
    assert len(dead) == 7
    assert (await world.buses[Service.GATEWAY].ask(Service.HISTORY, AskHealth(), Health)).healthy


async def test_an_answer_waits_for_what_the_asker_has_seen(world: World) -> None:
    said = random_stream(seed=5, tasks=20)
    await world.start()
    for first in range(0, 60, 20):
        await world.say(said[first : first + 20])
        last = await world.last()
        answer = await world.ask("SELECT max(sequence) FROM (FROM receipts UNION BY NAME FROM events)", at_least=last)
        assert (answer.sequence, answer.rows) == (last, ((last,),))
    # What was seen last may be no event.
    timer = await world.buses[Service.SCHEDULER].publish("timer.t1.x", said[0][2])
    assert (await world.ask("SELECT 1", at_least=timer)).sequence == timer


async def test_an_answer_that_would_wait_too_long_is_refused_as_unavailable(house: NatsHouse, world: World) -> None:
    await world.say(random_stream(seed=6, tasks=1))
    async with connect(house.bus_config(Service.HISTORY), Service.HISTORY) as bus:
        never_run = History(bus, Config(data=str(world.history.data)))
        with pytest.raises(Refused) as refused:
            await never_run.run_sql(RunSql(sql="SELECT 1", at_least=1, wait_seconds=0.01))
    assert refused.value.code == "unavailable"


async def test_a_second_writer_waits_for_the_file_and_says_so(house: NatsHouse, world: World) -> None:
    await world.start()
    second = HistoryProcess(house, world.history.data)
    try:
        await anyio.to_thread.run_sync(second.start)
        line = await anyio.to_thread.run_sync(second.wait_for, "history_failed")
        assert "lock" in line["error"]
        assert await anyio.to_thread.run_sync(second.stop) == 0
    finally:
        await anyio.to_thread.run_sync(second.kill)
