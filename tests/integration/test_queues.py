"""Queues, labels and priorities with the real scheduler over a real nats-server; runners and phone are played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from protocol.ids import OWNER
from protocol.query import AttemptGranted, ClaimAttempt, ListTasks, NothingToClaim, QueueShown, ShowQueue, TaskList, Why
from protocol.routes import Service, user_command_subject
from protocol.task import CancelTask, SetPriority, TaskState
from protocol.user import AddUser, Role, SetDailyLimit, SetQueue, UserCommand
from tests.integration.nats_house import NatsHouse, nats_house
from tests.integration.test_scheduler import USER, Player, Schedulers, player

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsHouse]:
    with nats_house(tmp_path_factory.mktemp("nats")) as house:
        yield house


@pytest.fixture
def schedulers(house: NatsHouse, tmp_path: Path) -> Iterator[Schedulers]:
    schedulers = Schedulers(house, tmp_path)
    yield schedulers
    schedulers.end()


async def claim(play: Player, request: str, queue: str, *labels: str, seconds: float = 8) -> str:
    """The task that a runner with these labels gets; empty for none."""
    asked = ClaimAttempt(request=request, runner=request, queue=queue, labels=labels, wait_seconds=seconds)
    granted = await play.runner.ask_any(Service.SCHEDULER, asked, timeout_seconds=seconds + 2)
    assert isinstance(granted, AttemptGranted | NothingToClaim)
    return granted.task.id if isinstance(granted, AttemptGranted) else ""


async def shown(play: Player, *, user: str = OWNER, everything: bool = True) -> QueueShown:
    return await play.gateway.ask(Service.SCHEDULER, ShowQueue(user=user, everything=everything), QueueShown)


async def command(play: Player, command: UserCommand) -> None:
    await play.gateway.publish(user_command_subject(OWNER, command), command, key=command.key)


async def until(
    play: Player, holds: Callable[[QueueShown], bool], *, user: str = OWNER, everything: bool = True
) -> QueueShown:
    with anyio.fail_after(20):
        while not holds(seen := await shown(play, user=user, everything=everything)):
            await anyio.lowlevel.checkpoint()
    return seen


async def test_two_runners_get_what_their_queue_and_labels_fit_and_the_rest_is_told_why_it_waits(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        await play.claim("awake", wait_seconds=0.1, queue="none")
        arm = await play.submit("arm", queue="build", labels=("arm64",))
        plain = await play.submit("plain", queue="build")
        nobody = await play.submit("nobody", queue="nowhere")
        picky = await play.submit("picky", queue="build", labels=("arm64", "gpu"))
        await play.until(picky, lambda task: task.state is TaskState.QUEUED)
        found: dict[str, str] = {}

        async def runner(request: str, *labels: str) -> None:
            found[request] = await claim(play, request, "build", *labels)

        async with anyio.create_task_group() as group:
            group.start_soon(runner, "r-arm", "arm64", "linux")
            group.start_soon(runner, "r-plain", "linux")
        assert found == {"r-plain": plain, "r-arm": arm}
        assert await claim(play, "r-arm-2", "build", "arm64", "linux", seconds=0.1) == ""

        seen = await until(play, lambda seen: Why.NOT_SERVED in {task.why for task in seen.waiting})
        reasons = {task.id: task.reason for task in seen.waiting}
        assert reasons == {
            nobody: "no runner serves the queue nowhere",
            picky: "no runner of the queue build has the labels arm64, gpu",
        }
        assert {task.id: task.runner for task in seen.running} == {plain: "r-plain", arm: "r-arm"}
        runners = [(each.runner, each.queue, each.labels, each.busy) for each in seen.runners if each.queue == "build"]
        assert ("r-arm", "build", ("arm64", "linux"), 1) in runners
        [build] = [queue for queue in seen.queues if queue.queue == "build"]
        assert (build.waiting, build.running, build.served) == (1, 2, True)
        listed = await play.gateway.ask(Service.SCHEDULER, ListTasks(user=USER), TaskList)
        assert {task.id: task.waits for task in listed.tasks if task.waits} == reasons

        other = await shown(play, user="uother", everything=False)
        assert (other.waiting, other.running) == ((), ()), "of another user's tasks nothing is seen"
        assert all((queue.waiting, queue.running) == (0, 0) for queue in other.queues)
        assert all((each.runner, each.busy) == ("", None) for each in other.runners)
        for task in (plain, arm, nobody, picky):
            await play.send(task, CancelTask(key="c"))
        await until(play, lambda seen: not seen.waiting and not seen.running)


async def test_a_queue_is_paused_and_limited_and_a_priority_changes_the_order(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    first = schedulers.start()
    async with player(house) as play:
        await command(play, AddUser(key="o", name="owner", role=Role.OWNER))
        await command(play, SetQueue(key="p", queue="held", paused=True, running_limit=1))
        tasks = [await play.submit(f"held-{number}", queue="held") for number in range(3)]
        await play.until(tasks[2], lambda task: task.state is TaskState.QUEUED)
        await play.claim("awake", wait_seconds=0.1, queue="none")
        seen = await until(play, lambda seen: len(seen.waiting) == 3 and seen.waiting[0].why is Why.PAUSED)
        assert [task.id for task in seen.waiting] == tasks
        await play.send(tasks[2], SetPriority(key="up", priority=10))
        await play.until(tasks[2], lambda task: task.priority == 10)
        seen = await until(play, lambda seen: seen.waiting[0].id == tasks[2])
        assert [(task.place, task.priority) for task in seen.waiting] == [(1, 10), (2, 0), (3, 0)]
        assert await claim(play, "held-1", "held", seconds=0.1) == ""

        # The owner's log keeps it: another scheduler holds the queue back too.
        schedulers.start()
        first.kill()
        first.wait()
        assert isinstance(await play.claim("held-2", wait_seconds=0.1, queue="held"), NothingToClaim)
        async with anyio.create_task_group() as group:

            async def take() -> None:
                assert await claim(play, "held-3", "held") == tasks[2]

            group.start_soon(take)
            await command(play, SetQueue(key="r", queue="held", paused=False))
        assert await claim(play, "held-4", "held", seconds=0.1) == "", "one runs, and one may"
        seen = await until(play, lambda seen: {task.why for task in seen.waiting} == {Why.QUEUE_LIMIT})
        assert {task.reason for task in seen.waiting} == {"the queue held has 1 running, its limit"}
        for task in tasks:
            await play.send(task, CancelTask(key="c"))
        await until(play, lambda seen: not seen.waiting and not seen.running)


async def test_a_task_that_no_runner_takes_holds_up_no_money_of_others(
    house: NatsHouse, schedulers: Schedulers
) -> None:
    schedulers.start()
    async with player(house) as play:
        await play.claim("awake", wait_seconds=0.1, queue="none")
        await command(play, AddUser(key="o", name="owner", role=Role.OWNER))
        await command(play, SetDailyLimit(key="none", daily_usd=0.0))
        picky = await play.submit("picky-money", queue="money", labels=("nobody",))
        plain = await play.submit("plain-money", queue="money")
        await play.until(plain, lambda task: task.state is TaskState.QUEUED)
        assert await claim(play, "poor", "money", seconds=1) == ""
        await play.until(plain, lambda task: task.state is TaskState.DELAYED)
        await command(play, SetDailyLimit(key="more", daily_usd=None))
        assert await claim(play, "rich", "money") == plain
        for task in (picky, plain):
            await play.send(task, CancelTask(key="c"))
        await until(play, lambda seen: not seen.waiting and not seen.running)
