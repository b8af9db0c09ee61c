"""Two whole installations on one nats-server, each a cell: nothing of one is seen in the other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import anyio
import pytest

from protocol.query import AttemptGranted, ClaimAttempt
from protocol.routes import Service, command_subject
from protocol.task import FinishAttempt, SubmitTask, Usage
from services.bus import Bus, Stored, Unavailable, connect
from tests.integration.nats_house import NatsHouse, nats_house

pytestmark = pytest.mark.anyio
CELLS = ("", "b")


@contextmanager
def scheduler(house: NatsHouse, cell: str) -> Iterator[None]:
    config = house.bus_config(Service.SCHEDULER, cell)
    environment = {
        **os.environ,
        "ERRAND_NATS_URL": house.url,
        "ERRAND_NATS_PASSWORD_FILE": config.nats_password_file,
        "ERRAND_CELL": cell,
    }
    with open(house.folder(cell) / "scheduler.log", "wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "services.scheduler"], env=environment, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


async def granted(runner: Bus) -> AttemptGranted:
    while True:
        try:
            answer = await runner.ask_any(Service.SCHEDULER, ClaimAttempt(request="r", runner="x", wait_seconds=5))
        except Unavailable:
            await anyio.sleep(0.05)  # no scheduler is active yet
            continue
        assert isinstance(answer, AttemptGranted)
        return answer


async def test_the_same_task_of_the_same_user_is_another_one_in_another_cell(tmp_path: Path) -> None:
    seen: dict[str, list[Stored]] = {cell: [] for cell in CELLS}
    with nats_house(tmp_path, *CELLS) as house, scheduler(house, ""), scheduler(house, "b"), anyio.fail_after(30):
        async with AsyncExitStack() as stack:
            for cell in CELLS:
                ended = anyio.Event()

                async def see(stored: Stored, cell: str = cell, ended: anyio.Event = ended) -> None:
                    seen[cell].append(stored)
                    if stored.subject.endswith(".succeeded"):
                        ended.set()

                gateway, runner = [
                    await stack.enter_async_context(connect(house.bus_config(service, cell), service))
                    for service in (Service.GATEWAY, Service.RUNNER)
                ]
                await gateway.wait_for_streams()
                await gateway.tap("evt.>", see)
                await gateway.publish(
                    "cmd.owner.t1.submit_task", SubmitTask(key="k", prompt=f"do {cell or 'a'}", repository="r"), key="k"
                )
                attempt = await granted(runner)
                assert attempt.task.prompt == f"do {cell or 'a'}"
                await runner.put_blob("checkpoint", cell.encode())
                finish = FinishAttempt(key="finish 1", attempt=1, journal_sequence=0, summary=cell, usage=Usage())
                await runner.publish(command_subject("owner", "t1", finish), finish)
                await ended.wait()
                assert [each.subject for each in await gateway.replay("evt.>")] == [s.subject for s in seen[cell]]
                assert await runner.get_blob("checkpoint") == cell.encode()
    assert [len(each) for each in seen.values()] == [3, 3]


async def test_a_service_reaches_nothing_of_another_cell(tmp_path: Path) -> None:
    with nats_house(tmp_path, *CELLS) as house:
        for cell in CELLS:
            maker = house.bus_config(Service.SCHEDULER, cell)
            async with connect(maker, Service.SCHEDULER) as bus:
                await bus.make_streams()
        async with connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway:
            with pytest.raises(Unavailable):
                await gateway.publish("b.cmd.owner.t1.cancel_task", SubmitTask(key="k", prompt="p", repository="r"))
        async with connect(house.bus_config(Service.GATEWAY, "b"), Service.GATEWAY) as gateway:
            assert await gateway.last("cmd.>") == 0
