"""The live socket: sign-in, watching over breaks, isolation, limits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from protocol.journal import Output
from protocol.live import (
    FRAME_LIMIT_BYTES,
    Accepted,
    Answer,
    Cancel,
    CaughtUp,
    Closing,
    JournalSeen,
    OutputSeen,
    Ping,
    Pong,
    ReceiptSeen,
    Refused,
    Say,
    SignedIn,
    SignIn,
    Submit,
    TaskLine,
    Tasks,
    UnwatchTask,
    WatchTask,
    WatchTasks,
)
from protocol.task import Question, Receipt, ReceiptStatus, TaskState
from services.bus import Unavailable
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
    rest,
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
    await receipt(phone, key)
    return task


async def receipt(phone: Phone, key: str) -> Receipt:
    """Wait for the receipt of a command."""
    while (seen := (await phone.until(ReceiptSeen)).receipt).key != key:
        pass
    return seen


async def journal_again(runner: Runner, task: str, *texts: str) -> list[int]:
    """Journal, over a restart of NATS."""
    while True:
        try:
            return await runner.journal("owner", task, *texts)
        except Unavailable:
            await anyio.lowlevel.checkpoint()


async def test_a_phone_signs_in_submits_and_sees_each_event_once_and_in_order(
    gateway: GatewayHouse, world: World
) -> None:
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


async def test_a_second_phone_that_comes_later_sees_the_same(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as first, phone(gateway, OWNER_TOKEN) as second:
        task = await submit(first, "two-phones")
        await world.scheduler.claim("owner", task)
        await first.send(WatchTask(task=task))
        written = await world.runner.journal("owner", task, *map(str, range(20)))
        await second.send(WatchTask(task=task, cursor=written[4]))
        more = await world.runner.journal("owner", task, *map(str, range(20)))
        assert [event.sequence for event in await first.events(42)][2:] == [*written, *more]
        assert [event.sequence for event in await second.events(35)] == [*written[5:], *more]


async def test_watching_again_moves_nothing_back_and_leaving_ends_it(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "watch-again")
        await client.send(WatchTask(task=task))
        await client.until(CaughtUp)
        await client.send(WatchTask(task=task, cursor=0))
        assert isinstance(await client.receive(), CaughtUp)
        await client.send(UnwatchTask(task=task))
        await client.send(Say(key="left", task=task, text="Are you there?"))
        assert isinstance(await client.receive(), Accepted)
        assert isinstance(await client.receive(), ReceiptSeen)


async def test_decisions_and_journal_entries_keep_their_order(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client, phone(gateway, OWNER_TOKEN) as speaker:
        task = await submit(speaker, "mixed")
        await world.scheduler.claim("owner", task)
        await client.send(WatchTask(task=task))
        for key in map(str, range(10)):
            await world.runner.journal("owner", task, "a", "b")
            await speaker.send(Say(key=key, task=task, text="Go on"))
            await receipt(speaker, key)
        stored = await world.runner.bus.replay(f"evt.owner.{task}.>")
        assert [event.sequence for event in await client.events(len(stored))] == [each.sequence for each in stored]


async def test_a_thousand_events_arrive_exactly(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "thousand")
        await world.scheduler.claim("owner", task)
        await client.send(WatchTask(task=task))
        await client.until(CaughtUp)
        written = await world.runner.journal("owner", task, *map(str, range(1000)))
        seen = await client.events(1000)
        assert [event.sequence for event in seen] == written
        texts = [getattr(event.entry.event, "text", "") for event in seen if isinstance(event, JournalSeen)]
        assert texts == list(map(str, range(1000)))


async def test_output_is_shown_while_a_step_runs(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "output")
        await world.scheduler.claim("owner", task)
        await client.send(WatchTask(task=task))
        await client.until(CaughtUp)
        output = Output(attempt=1, step=1, offset=0, text="héllo\x00\x1b[31m")
        # The first previews of an attempt may pass before the gateway listens.
        seen: OutputSeen | None = None
        while seen is None:
            await world.runner.bus.preview(f"out.owner.{task}", output)
            with anyio.move_on_after(0.1):
                seen = await client.until(OutputSeen)
        assert seen == OutputSeen(task=task, output=output)


async def test_who_looks_late_at_any_gateway_sees_what_was_printed_and_goes_on_without_gap_or_duplicate(
    gateway: GatewayHouse, world: World
) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "printed")
    await world.scheduler.claim("owner", task)
    async with world.runner.printing("owner", task) as printer:
        await printer.print("before ")
        cursor = 0
        for _ in range(2):  # the second one has seen all events: only the runner knows that there is more
            async with phone(gateway, OWNER_TOKEN) as late:
                await late.send(WatchTask(task=task, cursor=cursor))
                cursor = (await late.until(CaughtUp)).cursor
                seen, before = "", printer.printed
                while len(seen) < len(before) + 50:
                    piece = (await late.until(OutputSeen)).output
                    assert piece.offset == len(seen), "no gap, no duplicate"
                    seen += piece.text
                    await printer.print("more ")
                assert printer.printed.startswith(seen)


async def test_an_event_that_cannot_be_read_is_shown_as_such_and_leaves_no_gap(
    gateway: GatewayHouse, world: World
) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "unreadable")
        await world.scheduler.claim("owner", task)
        await client.send(WatchTask(task=task))
        await client.until(CaughtUp)
        log = f"evt.owner.{task}.>"
        last = await world.runner.bus.last(log)
        broken = await world.runner.bus.commit(
            f"evt.owner.{task}.journal.noticed", Question(id="q", text="no entry"), log=log, expected=last
        )
        after = await world.runner.journal("owner", task, "after")
        first, second = await client.events(2)
        assert [first.sequence, second.sequence] == [broken, *after]
        assert isinstance(first, JournalSeen)
        assert "cannot be read" in getattr(first.entry.event, "text", "")


async def test_the_task_list_comes_with_a_line_for_each_change(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client, phone(gateway, OWNER_TOKEN) as speaker:
        task = await submit(speaker, "listed")
        await client.send(WatchTasks(limit=100))
        listed = await client.until(Tasks)
        assert task in [each.id for each in listed.tasks]
        await speaker.send(Cancel(key="stop", task=task, reason="Enough"))
        while (line := (await client.until(TaskLine)).task).state is not TaskState.CANCELLED:
            pass
        assert (line.id, line.reason) == (task, "Enough")


async def test_a_rejected_command_has_its_receipt_and_a_repeated_one_has_it_again(
    gateway: GatewayHouse, world: World
) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "receipts")
        answer = Answer(key="a1", task=task, question="none", text="yes")
        await client.send(answer)
        assert (await client.until(Accepted)).key == "a1"
        rejected = await receipt(client, "a1")
        assert rejected.status is ReceiptStatus.REJECTED
        assert "not open" in rejected.reason
    async with phone(gateway, OWNER_TOKEN) as again:
        await again.send(answer)
        assert await receipt(again, "a1") == rejected


async def test_a_key_that_stands_for_another_command_carries_out_nothing_and_says_so(
    gateway: GatewayHouse, world: World
) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "taken")
        await client.send(Cancel(key="taken", task=task))
        said = await receipt(client, "taken")
        assert (said.status, "`submit_task`: use a new one" in said.reason) == (ReceiptStatus.REJECTED, True)


async def test_the_same_key_is_the_same_task(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        frame = Submit(key="once", prompt="Do it", repository=REPOSITORY)
        await client.send(frame)
        first = await client.until(Accepted)
        await client.send(frame)
        assert await client.until(Accepted) == first


async def test_a_user_sees_nothing_of_anothers_task(gateway: GatewayHouse, world: World) -> None:
    await world.scheduler.make_user("u_other", "other-token")
    async with phone(gateway, OWNER_TOKEN) as owner, phone(gateway, "other-token") as other:
        task = await submit(owner, "private")
        await other.send(WatchTasks())
        assert (await other.until(Tasks)).tasks == ()
        for frame in (
            WatchTask(task=task),
            Say(key="s", task=task, text="Hello"),
            Answer(key="a", task=task, question="q", text="Hello"),
            Cancel(key="c", task=task),
        ):
            await other.send(frame)
            refused = await other.receive()
            assert isinstance(refused, Refused)
            assert (refused.task, refused.code, refused.reason) == (task, "not_found", "There is no such task.")
        await world.scheduler.claim("owner", task)
        await world.runner.journal("owner", task, "secret")
        # The next frame that the other sees is of its own doing: nothing came between.
        await other.send(UnwatchTask(task=task))
        await other.send(Submit(key="private", prompt="Mine", repository=REPOSITORY))
        accepted = await other.receive()
        assert isinstance(accepted, Accepted)
        assert accepted.task != task, "the same key of another user is another task"


@pytest.mark.parametrize(
    ("frame", "part"),
    [
        ("{", "cannot be read"),
        ('{"type":"nonsense","key":"k9"}', "nonsense"),
        ('{"type":"watch_task"}', "task"),
        ('{"type":"submit","key":"k","prompt":"","repository":"https://a/b"}', "prompt is empty"),
        ('{"type":"submit","key":"k","prompt":"x","repository":"https://git.example/missing"}', "no such repository"),
        ('{"type":"sign_in","token":"x"}', "signed in already"),
        ('{"type":"watch_task","task":"../x"}', "no such task"),
        ('{"type":"watch_task","task":"user"}', "no such task"),
        ('{"type":"say","key":"k","task":"' + "x" * FRAME_LIMIT_BYTES + '","text":"x"}', "over the limit"),
        (b"\xff\xfe", "cannot be read"),
        ('{"x":' + "[" * 5_000, "cannot be read"),
    ],
)
async def test_a_bad_frame_is_refused_and_the_socket_stays(
    gateway: GatewayHouse, world: World, frame: str | bytes, part: str
) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        await client.socket.send(frame)
        refused = await client.receive()
        assert isinstance(refused, Refused)
        assert part in refused.reason
        await client.send(WatchTasks())
        await client.until(Tasks)


async def test_a_page_can_ask_whether_its_connection_is_alive(gateway: GatewayHouse) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        await client.send(Ping())
        assert await client.receive() == Pong()


async def test_a_frame_far_over_the_limit_ends_the_socket_alone(gateway: GatewayHouse) -> None:
    async with phone(gateway, OWNER_TOKEN) as client, phone(gateway, OWNER_TOKEN) as other:
        with suppress(ConnectionClosed):  # it may end before all of it was sent
            await client.socket.send("x" * (3 * FRAME_LIMIT_BYTES))
        assert await client.closed() == 1009
        await other.send(SignIn(token="x"))
        await other.until(Refused)


@pytest.mark.parametrize(
    ("frame", "part"),
    [
        ('{"type":"sign_in","token":"wrong"}', "not signed in"),
        ('{"type":"watch_tasks"}', "must sign in"),
        ("{", "cannot be read"),
    ],
)
async def test_who_does_not_sign_in_is_told_and_closed(gateway: GatewayHouse, frame: str, part: str) -> None:
    async with stranger(gateway) as client:
        await client.socket.send(frame)
        closing = await client.receive()
        assert isinstance(closing, Closing)
        assert part in closing.reason
        assert not closing.come_back
        assert await client.closed() == 4401


async def test_another_pages_socket_is_refused(gateway: GatewayHouse) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with stranger(gateway, origin=Origin("https://evil.example")):
            pass
    assert refused.value.response.status_code == 403
    async with stranger(gateway, origin=Origin(gateway.url)):
        pass


async def test_a_phone_that_does_not_read_is_closed_while_another_goes_on(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as reading, stranger(gateway, max_queue=1) as sleeping:
        task = await submit(reading, "slow")
        await world.scheduler.claim("owner", task)
        await sleeping.send(SignIn(token=OWNER_TOKEN))
        await sleeping.send(WatchTask(task=task))
        await reading.send(WatchTask(task=task))
        await sleeping.until(CaughtUp)
        # More than its queue and all buffers on the way hold; it takes none of it.
        sleeping.socket.transport.pause_reading()
        texts = ["x" * 200_000] * 60
        seen = [*await reading.events(2)]
        async with anyio.create_task_group() as group:
            group.start_soon(world.runner.journal, "owner", task, *texts)
            seen += await reading.events(60)
        sleeping.socket.transport.resume_reading()
        assert await sleeping.closed() in (1006, 1013)
        async with phone(gateway, OWNER_TOKEN) as back:
            await back.send(WatchTask(task=task, cursor=seen[9].sequence))
            assert [event.sequence for event in await back.events(52)] == [event.sequence for event in seen[10:]]


async def test_nothing_is_missed_or_doubled_when_nats_is_killed(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "nats-killed")
        await world.scheduler.claim("owner", task)
        await client.send(WatchTask(task=task))
        await client.until(CaughtUp)
        before = await world.runner.journal("owner", task, "1", "2")
        gateway.nats.kill()
        async with rest(gateway) as stranger:
            while (await stranger.get("/api/health")).status_code != 503:
                await anyio.lowlevel.checkpoint()
        gateway.nats.start()
        # The runner is back before or after the gateway; either way nothing may be lost.
        after = await journal_again(world.runner, task, "3", "4")
        assert [event.sequence for event in await client.events(4)] == [*before, *after]


async def test_nothing_is_missed_or_doubled_when_the_gateway_is_killed(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        task = await submit(client, "gateway-killed")
        await world.scheduler.claim("owner", task)
        await client.send(WatchTask(task=task))
        await client.until(CaughtUp)
        before = await world.runner.journal("owner", task, "1", "2")
        assert [event.sequence for event in await client.events(2)] == before
        gateway.kill()
        missed = await world.runner.journal("owner", task, "3")
        gateway.start()
    async with phone(gateway, OWNER_TOKEN) as client:
        await client.send(WatchTask(task=task, cursor=before[-1]))
        after = await world.runner.journal("owner", task, "4")
        assert [event.sequence for event in await client.events(2)] == [*missed, *after]


async def test_a_gateway_that_stops_sends_its_phones_away_to_come_back(gateway: GatewayHouse, world: World) -> None:
    async with phone(gateway, OWNER_TOKEN) as client:
        code = await anyio.to_thread.run_sync(gateway.terminate)
        gateway.start()
        closing = await client.until(Closing)
        assert closing.come_back
        assert await client.closed() == 1012
        assert code == 0
