"""The service catching up with a stream of a real nats-server, beside `executemany` of the same rows; and its lag."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import duckdb
import nats
from nats.aio.client import Client

from benchmarks import Row, compared, percentile, report
from protocol.base import encode
from protocol.journal import (
    AttemptStarted,
    JournalEntry,
    ModelCall,
    ModelReply,
    StepFinished,
    StepStarted,
    ToolCall,
    ToolResult,
)
from protocol.query import AskHealth, Health
from protocol.routes import Service, decision_subject, journal_subject
from protocol.task import AttemptClaimed, AttemptEnded, Decision, TaskState, TaskSubmitted, TurnEnded, Usage
from services.bus import Bus, Stored, connect
from services.history.fold import fold
from tests.integration.history_world import HistoryProcess
from tests.integration.nats_house import NatsHouse

TASKS = 900
STEPS = 50
PEER_ROWS = 1_000
PEER_BATCH = 500
LIVE_PER_SECOND = 5_000
LIVE_SECONDS = 6
TICKS_PER_SECOND = 50
NOW = datetime(2026, 11, 1, tzinfo=UTC)

Said = tuple[str, bytes]


def decisions(state: TaskState) -> Iterator[Said]:
    """One for each task: how it begins, is claimed, or ends."""
    for number in range(TASKS):
        match state:
            case TaskState.QUEUED:
                events = (
                    TaskSubmitted(prompt="Mend the build. " * 20, repository="https://git.example/x", title="Mend"),
                )
            case TaskState.RUNNING:
                events = (AttemptClaimed(attempt=1, turn=1, runner="r", request="q"),)
            case _:
                ended = TurnEnded(turn=1, outcome=state, summary="Mended.", usage=Usage(output_tokens=9, cost_usd=0.5))
                events = (AttemptEnded(attempt=1, how="finished"), ended)
        yield decision_subject("owner", f"t{number}", state), encode(Decision(at=NOW, state=state, events=events))


def journals() -> Iterator[Said]:
    """All tasks' steps side by side: model and tool calls in turn, with content as large as it commonly is."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "bash", "input": {"command": "python -m unittest"}}
    reply = ModelReply(
        content=({"type": "text", "text": "I run the tests. " * 8}, call), stop_reason="tool_use", usage=Usage()
    )
    output = ToolResult(text="test_one ... ok\n" * 20, exit_code=0)
    start = AttemptStarted(turn=1, base_commit="b" * 40, branch="main", model="claude", sandbox="bubblewrap")
    for event in (
        start,
        *(
            event
            for step in range(1, STEPS, 2)
            for event in (
                StepStarted(step=step, action=ModelCall(reserved_usd=0.1)),
                StepFinished(step=step, result=reply, duration_seconds=2.5),
                StepStarted(step=step + 1, action=ToolCall(id="toolu_1", name="bash", input=call["input"])),
                StepFinished(step=step + 1, result=output, duration_seconds=0.5),
            )
        ),
    ):
        data = encode(JournalEntry(attempt=1, at=NOW, event=event))
        for number in range(TASKS):
            yield journal_subject("owner", f"t{number}", event), data


async def measure(folder: Path, house: NatsHouse) -> list[Row]:
    async with (
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as scheduler,
        connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
    ):
        await scheduler.make_streams()
        await publish(
            house, scheduler, Service.SCHEDULER, [*decisions(TaskState.QUEUED), *decisions(TaskState.RUNNING)]
        )
        await publish(house, scheduler, Service.RUNNER, [*journals()])
        await publish(house, scheduler, Service.SCHEDULER, [*decisions(TaskState.SUCCEEDED)])
        history = HistoryProcess(house, folder)
        try:
            ours = await anyio.to_thread.run_sync(catch_up, history)
            behind = await follow(house, scheduler, gateway)
        finally:
            await anyio.to_thread.run_sync(history.kill)
        peer = await anyio.to_thread.run_sync(executemany, folder, await scheduler.replay("evt.*.*.journal.>"))
    return [
        compared(
            f"stream into DuckDB, {TASKS * (2 * STEPS + 4):,} messages",
            ours,
            peer,
            "events/s",
            demanded="50,000",
            ok=ours >= 50_000,
            peer_name=f"executemany, {PEER_BATCH} a commit",
        ),
        Row(
            what=f"the history's lag at {LIVE_PER_SECOND:,} events/s, p99",
            ours=percentile(behind, 0.99),
            unit="s",
            demanded="1",
            ok=percentile(behind, 0.99) <= 1,
        ),
    ]


async def publish(house: NatsHouse, bus: Bus, service: Service, said: list[Said]) -> None:
    """Store messages without waiting for each; return when the server has all."""
    wanted = await bus.last("evt.>") + len(said)
    connection = await client(house, service)
    for subject, data in said:
        await connection.publish(subject, data)
    await connection.drain()
    while await bus.last("evt.>") < wanted:
        await anyio.sleep(0.01)


async def client(house: NatsHouse, service: Service) -> Client:
    config = house.bus_config(service)
    return await nats.connect(config.nats_url, user=service.value, password=config.password())


def catch_up(history: HistoryProcess) -> float:
    """Events a second, from when the service answers until it has folded all that was stored, by its own log."""
    history.start()
    caught_up = history.wait_for("caught_up")
    first, last = (datetime.fromisoformat(line["timestamp"]) for line in (history.wait_for("started"), caught_up))
    return caught_up["sequence"] / (last - first).total_seconds()


async def follow(house: NatsHouse, scheduler: Bus, gateway: Bus) -> list[float]:
    """How old the oldest event was that the history had not folded, sampled while events come."""
    first = await scheduler.last("evt.>") + 1
    published: list[float] = []
    behind: list[float] = []

    async def publish_evenly() -> None:
        connection = await client(house, Service.RUNNER)
        said = list(journals())
        per_tick = LIVE_PER_SECOND // TICKS_PER_SECOND
        began = time.perf_counter()
        for tick in range(LIVE_SECONDS * TICKS_PER_SECOND):
            await anyio.sleep(max(0.0, began + tick / TICKS_PER_SECOND - time.perf_counter()))
            for number in range(tick * per_tick, (tick + 1) * per_tick):
                await connection.publish(*said[number % len(said)])
                published.append(time.perf_counter())
        await connection.drain()
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(publish_evenly)
        while True:
            folded = int((await gateway.ask(Service.HISTORY, AskHealth(), Health)).detail.split()[-1])
            oldest = max(folded + 1 - first, 0)
            behind.append(time.perf_counter() - published[oldest] if oldest < len(published) else 0.0)
            await anyio.sleep(1 / TICKS_PER_SECOND)
    return behind


def executemany(folder: Path, messages: list[Stored]) -> float:
    """Rows a second of the naive way: the same rows of the same table, inserted by `executemany`."""
    rows = fold(messages[:PEER_ROWS], {}).events
    with duckdb.connect(str(folder / "peer.duckdb")) as connection:
        connection.execute((Path(__file__).parents[1] / "services" / "history" / "schema.sql").read_text())
        began = time.perf_counter()
        for first in range(0, len(rows), PEER_BATCH):
            connection.begin()
            values = ", ".join("?" * 9)
            connection.executemany(
                f"INSERT INTO events VALUES ({values}, ?::JSON::VARIANT)", rows[first : first + PEER_BATCH]
            )
            connection.commit()
        return len(rows) / (time.perf_counter() - began)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as name:
        folder = Path(name)
        house = NatsHouse(folder / "nats")
        # Only the reading is measured: without a sync for each message the stream is there in a second.
        config = folder / "nats" / "secrets" / "nats.conf"
        config.write_text(config.read_text().replace("sync_interval: always", ""))
        house.start()
        try:
            return anyio.run(measure, folder, house, backend_options={"use_uvloop": True})
        finally:
            house.kill()


if __name__ == "__main__":
    report("history", rows())
