"""What a runner says of an attempt that it gives back."""

from __future__ import annotations

import random
from typing import Any

import anyio

from agents.loop import Settings
from protocol.evolve import Holder, Task
from protocol.journal import ModelReply, StepFinished
from protocol.query import AttemptGranted
from protocol.repo import BaseResolved, ResolveBase
from protocol.routes import Service
from protocol.task import ParkAttempt, TaskState, decode_task_command
from services.runner.attempt import Attempt, AttemptConfig
from tests.simulation.clockwork import VirtualClock, VirtualLoop
from tests.simulation.memory import MemoryBus, Server, Weather, connect
from tests.simulation.world import PlayedDriver, PlayedModel

HOLDER = Holder(attempt=1, runner="r", request="q")
TASK = Task(id="t1", user="owner", prompt="do it", state=TaskState.RUNNING, turn=1, attempt=1, holder=HOLDER)


def test_an_attempt_that_is_stopped_while_an_entry_is_on_its_way_tells_the_journals_real_end() -> None:
    async def story() -> None:
        server, weather = Server(VirtualClock()), Weather(random.Random(0))
        weather.calm = True
        async with connect(server, Service.REPOS, weather) as repos, connect(server, Service.RUNNER, weather) as bus:
            await repos.serve({ResolveBase: _resolve}, version="0")
            replied = _hang_on_reply(bus)
            chance = random.Random(0)
            config = AttemptConfig(runner="r", default_model="m", hold_question_seconds=1.0, settings=Settings())
            attempt = Attempt(
                bus,  # type: ignore[arg-type]
                PlayedModel(chance),
                PlayedDriver(chance, weather),  # type: ignore[arg-type]
                config,
                AttemptGranted(task=TASK, sequence=0),
                VirtualClock(),
            )
            async with anyio.create_task_group() as group:
                group.start_soon(attempt.run)
                await replied.wait()
                attempt.stop()
                while not (said := server.find("cmd.owner.t1.>")):
                    await anyio.sleep(0.1)
                group.cancel_scope.cancel()
        parked = decode_task_command(said[-1].data)
        assert isinstance(parked, ParkAttempt)
        stored = server.find("evt.owner.t1.journal.*")
        assert (parked.journal_sequence, parked.usage.cost_usd) == (stored[-1].sequence, 0.0001)

    anyio.run(story, backend_options={"loop_factory": VirtualLoop})


async def _resolve(asked: ResolveBase) -> BaseResolved:
    return BaseResolved(commit="0" * 40)


def _hang_on_reply(bus: MemoryBus) -> anyio.Event:
    """Set once the server has stored the model's reply, whose answer never comes."""
    commit, replied = bus.commit, anyio.Event()

    async def stored(subject: str, message: Any, **options: Any) -> int:
        sequence = await commit(subject, message, **options)
        if isinstance(message.event, StepFinished) and isinstance(message.event.result, ModelReply):
            replied.set()
            await anyio.sleep_forever()
        return sequence

    bus.commit = stored  # type: ignore[method-assign]
    return replied
