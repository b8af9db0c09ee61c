"""The live socket: sign-in, watching over breaks, isolation, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest

from protocol.live import (
    Accepted,
    CaughtUp,
    Closing,
    DecisionSeen,
    JournalSeen,
    ReceiptSeen,
    Refused,
    Say,
    SignedIn,
    SignIn,
    Submit,
    WatchTask,
)
from protocol.task import ReceiptStatus
from tests.integration.gateway_house import (
    NOTICE,
    OWNER_TOKEN,
    GatewayHouse,
    Phone,
    Runner,
    Scheduler,
    gateway_house,
    phone,
    repos,
    stranger,
)

pytestmark = pytest.mark.anyio
REPOSITORY = "https://git.example/a.git"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayHouse]:
    with gateway_house(tmp_path_factory.mktemp("gateway")) as house:
        yield house


class World:
    """The services around the gateway."""

    def __init__(self, scheduler: Scheduler, runner: Runner) -> None:
        self.scheduler = scheduler
        self.runner = runner


@pytest.fixture
async def world(gateway: GatewayHouse) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(repos(gateway.nats))
        scheduler = await stack.enter_async_context(Scheduler.running(gateway.nats))
        runner = await stack.enter_async_context(Runner.running(gateway.nats))
        yield World(scheduler, runner)


async def submit(phone: Phone, key: str) -> str:
    """Submit a task and wait until it was decided; return its id."""
    await phone.send(Submit(key=key, prompt="Do it", repository=REPOSITORY))
    task = (await phone.until(Accepted)).task
    while (await phone.until(ReceiptSeen)).receipt.key != key:
        pass
    return task


async def test_a_phone_signs_in_submits_and_sees_each_event_once_and_in_order(gateway: GatewayHouse, world: World) -> None:
    async with stranger(gateway) as client:
        await client.send(SignIn(token=OWNER_TOKEN))
        greeting = await client.until(SignedIn)
        assert (greeting.user, greeting.role, greeting.notices) == ("owner", "owner", (NOTICE,))
        task = await submit(client, "first")
        await client.send(WatchTask(task=task))
        assert (await client.until(CaughtUp)).task == task
        await world.scheduler.claim("owner", task)
        written = await world.runner.journal("owner", task, *map(str, range(50)))
        seen = await client.events(51)
        assert [event.sequence for event in seen[1:]] == written
        assert [event.previous for event in seen[1:]] == [seen[0].sequence, *written[:-1]]
