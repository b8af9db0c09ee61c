"""Web Push through the real gateway, to a real push service: who is told what, once, and over which deaths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx2
import pytest

from gateway.push.courier import ACK_SECONDS
from protocol.live import Accepted, Answer, Cancel, Looking, ReceiptSeen, Submit
from protocol.routes import Service, command_subject
from protocol.task import FinishAttempt, Published, Question, RaiseQuestion, TaskCommand, TaskState, Usage
from services.bus import connect
from services.scheduler.actors import TaskActor
from tests.integration.gateway_house import (
    GatewayHouse,
    Phone,
    Runner,
    Scheduler,
    gateway_house,
    phone,
    repos,
    rest,
)
from tests.integration.push_service import Browser, PushService, push_service

pytestmark = pytest.mark.anyio
SECONDS = 15.0


@pytest.fixture(scope="module")
def service() -> Iterator[PushService]:
    with push_service() as found:
        yield found


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, service: PushService) -> Iterator[GatewayHouse]:
    data = tmp_path_factory.mktemp("push")
    hosts = service.url.removeprefix("http://")
    with gateway_house(data, ERRAND_DATA=str(data), ERRAND_PUSH_HOSTS=hosts, ERRAND_PUSH_LIMIT="1000") as house:
        yield house


class World:
    """The services around the gateway, and users of this test's own."""

    def __init__(self, gateway: GatewayHouse, scheduler: Scheduler, runner: Runner, service: PushService) -> None:
        self.gateway = gateway
        self.scheduler = scheduler
        self.runner = runner
        self.service = service

    async def device(self, user: str, name: str) -> str:
        """A device signed in; return its token."""
        token = f"{user}-{name}"
        await self.scheduler.make_user(user, token)
        async with rest(self.gateway, token) as client:
            with anyio.fail_after(SECONDS):
                while (await client.get("/api/me")).status_code != 200:
                    await anyio.lowlevel.checkpoint()
        return token

    async def browser(self, token: str) -> Browser:
        """A browser that the device of this token has turned notifications on in."""
        browser = self.service.browser(token)
        async with rest(self.gateway, token) as client:
            answer = await client.post("/api/push/subscriptions", json=browser.to_json())
            assert answer.status_code == 201, answer.text
        return browser

    async def has_push(self, token: str) -> bool:
        async with rest(self.gateway, token) as client:
            me = (await client.get("/api/me")).json()
            return {device["id"]: device["push"] for device in me["devices"]}[me["device"]]

    async def submit(self, user: str, client: Phone, key: str) -> str:
        await client.send(Submit(key=key, prompt="Fix the test", repository="https://git.example/a.git"))
        task = (await client.until(Accepted)).task
        await client.until(ReceiptSeen)
        await self.scheduler.claim(user, task)
        return task

    async def command(self, user: str, task: str, client: Phone, command: TaskCommand) -> None:
        """As the runner does, until it was decided."""
        await self.runner.bus.publish(command_subject(user, task, command), command)
        while (await client.until(ReceiptSeen)).receipt.key != command.key:
            pass

    async def decided(self, user: str, task: str, state: TaskState) -> None:
        """Return once the scheduler has led the task to this state."""
        actor = await self.scheduler.actor(user, task)
        with anyio.fail_after(SECONDS):
            while not (isinstance(actor, TaskActor) and actor.task.state is state):
                await anyio.lowlevel.checkpoint()

    async def ask(self, user: str, task: str, client: Phone, text: str = "Which one?") -> None:
        question = RaiseQuestion(key=f"ask-{text}", attempt=1, question=Question(id=f"q-{text}", text=text))
        await self.command(user, task, client, question)

    async def finish(self, user: str, task: str, client: Phone) -> None:
        await self.command(user, task, client, finished())


def finished() -> FinishAttempt:
    published = Published(branch="errand/fix", commit="c", base_commit="b", pushed_to="https://git.example/a.git")
    return FinishAttempt(
        key="finish", attempt=1, journal_sequence=0, summary="It works.", published=published, usage=Usage()
    )


@pytest.fixture
async def world(gateway: GatewayHouse, service: PushService) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(repos(gateway.nats))
        scheduler = await stack.enter_async_context(Scheduler.running(gateway.nats))
        runner = await stack.enter_async_context(Runner.running(gateway.nats))
        yield World(gateway, scheduler, runner, service)


async def shown(browser: Browser) -> dict[str, Any]:
    return await anyio.to_thread.run_sync(browser.notification)


async def asked(browser: Browser) -> None:
    """Return once the push service has been sent something for this browser."""
    assert await anyio.to_thread.run_sync(lambda: browser.asked.acquire(timeout=SECONDS))


async def test_a_question_and_an_outcome_are_told_and_nothing_else(world: World) -> None:
    token = await world.device("u_told", "phone")
    browser = await world.browser(token)
    async with phone(world.gateway, token) as client:
        task = await world.submit("u_told", client, "told")
        await world.ask("u_told", task, client, "Keep the old\nname?\u202e")
        question = await shown(browser)
        headers = question.pop("headers")
        assert question == {
            "title": "Needs you: Fix the test",
            "body": "Keep the old name?",
            "tag": task,
            "url": f"/#/task/{task}",
        }
        assert (headers["urgency"], headers["topic"]) == ("high", task)
        assert 86_000 < int(headers["ttl"]) <= 86_400
        await client.send(Answer(key="a", task=task, question="q-Keep the old\nname?\u202e", text="yes"))
        await client.until(ReceiptSeen)
        await world.finish("u_told", task, client)
        outcome = await shown(browser)
        assert (outcome["title"], outcome["body"]) == ("Done: Fix the test", "Branch errand/fix. It works.")
        assert outcome["headers"]["urgency"] == "normal"
        assert browser.shown.empty()


async def test_a_device_that_looks_is_told_nothing_and_the_others_are(world: World) -> None:
    looking, other = await world.device("u_look", "phone"), await world.device("u_look", "tablet")
    browsers = await world.browser(looking), await world.browser(other)
    async with phone(world.gateway, looking) as client:
        task = await world.submit("u_look", client, "look")
        await client.send(Looking(looking=True))
        await world.ask("u_look", task, client, "1")
        assert (await shown(browsers[1]))["body"] == "1"
        await client.send(Answer(key="a", task=task, question="q-1", text="yes"))
        await client.until(ReceiptSeen)
        await client.send(Looking(looking=False))
        await world.ask("u_look", task, client, "2")
        assert [(await shown(browser))["body"] for browser in browsers] == ["2", "2"]
        await client.send(Answer(key="b", task=task, question="q-2", text="yes"))
        await client.until(ReceiptSeen)
        await client.send(Looking(looking=True))
    async with phone(world.gateway, other) as client:
        await world.ask("u_look", task, client, "3")
        assert [(await shown(browser))["body"] for browser in browsers] == ["3", "3"], "a closed page does not look"


async def test_a_phone_that_is_gone_without_a_word_does_not_look(world: World) -> None:
    token = await world.device("u_gone", "phone")
    browser = await world.browser(token)
    async with phone(world.gateway, token) as silent, phone(world.gateway, token) as client:
        await silent.send(Looking(looking=True))
        task = await world.submit("u_gone", client, "gone")
        silent.socket.transport.pause_reading()  # no pong comes, and no end of the connection either
        await world.ask("u_gone", task, client)
        assert (await shown(browser))["tag"] == task
        silent.socket.transport.resume_reading()


async def test_a_cancelled_task_is_told_to_the_devices_that_did_not_do_it(world: World) -> None:
    first, second = await world.device("u_cancel", "phone"), await world.device("u_cancel", "tablet")
    browsers = await world.browser(first), await world.browser(second)
    async with phone(world.gateway, first) as client:
        task = await world.submit("u_cancel", client, "cancelled")
        await client.send(Cancel(key="c", task=task, reason="Not needed."))
        notification = await shown(browsers[1])
        assert (notification["title"], notification["body"]) == ("Cancelled: Fix the test", "Not needed.")
        assert browsers[0].shown.empty()


async def test_other_users_are_told_nothing(world: World) -> None:
    mine, theirs = await world.device("u_mine", "phone"), await world.device("u_theirs", "phone")
    browser, other = await world.browser(mine), await world.browser(theirs)
    async with phone(world.gateway, mine) as client:
        await world.ask("u_mine", await world.submit("u_mine", client, "mine"), client)
        await shown(browser)
        assert other.shown.empty()


async def test_a_subscription_that_has_ended_is_forgotten(world: World) -> None:
    token = await world.device("u_ended", "phone")
    browser = await world.browser(token)
    browser.answers = [410]
    assert await world.has_push(token)
    async with phone(world.gateway, token) as client:
        await world.ask("u_ended", await world.submit("u_ended", client, "ended"), client)
    with anyio.fail_after(SECONDS):
        while await world.has_push(token):
            await anyio.lowlevel.checkpoint()


async def test_what_a_push_service_did_not_take_comes_later_to_that_device_alone(world: World) -> None:
    first, second = await world.device("u_later", "phone"), await world.device("u_later", "tablet")
    browsers = await world.browser(first), await world.browser(second)
    browsers[0].answers = [503]
    async with phone(world.gateway, first) as client:
        task = await world.submit("u_later", client, "later")
        await world.ask("u_later", task, client)
        assert [(await shown(browser))["tag"] for browser in browsers] == [task, task]
    assert browsers[1].shown.empty()


async def test_turning_it_off_and_signing_out_end_it(world: World) -> None:
    tokens = [await world.device("u_off", name) for name in ("off", "out", "stays")]
    off, out, stays = [await world.browser(token) for token in tokens]
    async with rest(world.gateway, tokens[0]) as client:
        for _ in range(2):
            assert (await client.delete("/api/push/subscriptions")).status_code == 204
    async with rest(world.gateway, tokens[1]) as client:
        device = (await client.get("/api/me")).json()["device"]
        assert (await client.delete(f"/api/devices/{device}")).status_code == 204
    async with phone(world.gateway, tokens[2]) as client:
        await world.ask("u_off", await world.submit("u_off", client, "off"), client)
    await shown(stays)
    assert (off.shown.empty(), out.shown.empty()) == (True, True)


async def test_a_browser_that_signs_in_as_somebody_else_is_told_of_nobody_elses_tasks(world: World) -> None:
    before, after = await world.device("u_before", "phone"), await world.device("u_after", "phone")
    browser = await world.browser(before)
    async with rest(world.gateway, after) as client:
        assert (await client.post("/api/push/subscriptions", json=browser.to_json())).status_code == 201
    assert (await world.has_push(before), await world.has_push(after)) == (False, True)


async def test_the_log_has_no_address_of_a_browser_and_the_keys_are_the_owners_alone(world: World) -> None:
    token = await world.device("u_sealed", "phone")
    browser = await world.browser(token)
    async with connect(world.gateway.nats.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
        log = b"".join([stored.data for stored in await bus.replay("evt.u_sealed.user.>")])
        commands = b"".join([stored.data for stored in await bus.replay("cmd.u_sealed.user.>")])
    assert b"push_subscription_added" in log
    for secret in (browser.endpoint, browser.to_json()["keys"]["auth"]):
        assert secret.encode() not in log + commands
    assert (world.gateway.nats.data / "secrets" / "push.key").stat().st_mode & 0o777 == 0o600


async def test_push_is_offered_where_browsers_allow_it(world: World) -> None:
    token = await world.device("u_offer", "phone")
    async with rest(world.gateway, token) as client:
        offer = (await client.get("/api/push")).json()
        assert (offer["available"], offer["reason"], len(offer["public_key"])) == (True, "", 87)
        assert not (await client.get("/api/push")).json()["subscribed"]
        await world.browser(token)
        assert (await client.get("/api/push")).json() == {**offer, "subscribed": True}
        far = (await client.get("/api/push", headers={"host": "192.168.1.5:8420"})).json()
        assert (far["available"], far["public_key"]) == (False, "")
        assert "HTTPS" in far["reason"]
    async with rest(world.gateway) as stranger:
        assert (await stranger.get("/api/push")).status_code == 401


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"endpoint": "http://push.example/x"}, "plain HTTP"),
        ({"endpoint": "https://127.0.0.1:6379/x"}, "this machine"),
        ({"endpoint": "https://localhost/x"}, "this machine by name"),
        ({"endpoint": "https://169.254.169.254/latest"}, "a cloud's metadata"),
        ({"endpoint": "https://2130706433/x"}, "this machine as a number"),
        ({"endpoint": "https://me:secret@push.example/x"}, "a user name"),
        ({"endpoint": "ftp://push.example/x"}, "another scheme"),
        ({"endpoint": "https://push.example/" + "x" * 2_000}, "too long"),
        ({"endpoint": "https://push.example/a b"}, "a space"),
        ({"keys": {"p256dh": "AAAA", "auth": "AAAA"}}, "keys that are too short"),
        ({"keys": {"p256dh": "B" + "A" * 86, "auth": "A" * 22}}, "no point of the curve"),
        ({"keys": {"p256dh": "%%%", "auth": "ü"}}, "no base64url"),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(world: World, change: dict[str, Any], why: str) -> None:
    token = await world.device("u_refused", "phone")
    body = {**world.service.browser("refused").to_json(), **change}
    async with rest(world.gateway, token) as client:
        answer = await client.post("/api/push/subscriptions", json=body)
        assert answer.status_code == 422, (why, answer.text)
        assert "secret" not in answer.text
    assert not await world.has_push(token)


async def test_two_gateways_tell_each_decision_once(world: World) -> None:
    token = await world.device("u_two", "phone")
    browser = await world.browser(token)
    second = GatewayHouse(world.gateway.nats)
    second.environment = {**world.gateway.environment, "ERRAND_PORT": str(second.port)}
    second.start()
    try:
        async with phone(second, token) as client:
            tasks = [await world.submit("u_two", client, f"two-{number}") for number in range(20)]
            for task in tasks:
                await world.ask("u_two", task, client)
            told = [(await shown(browser))["tag"] for _ in tasks]
        assert sorted(told) == sorted(tasks)
        assert browser.shown.empty()
    finally:
        second.terminate()


async def test_a_device_that_looks_at_one_gateway_is_told_nothing_by_another(world: World) -> None:
    looking, other = await world.device("u_both", "phone"), await world.device("u_both", "tablet")
    browsers = await world.browser(looking), await world.browser(other)
    second = GatewayHouse(world.gateway.nats)
    second.environment = {**world.gateway.environment, "ERRAND_PORT": str(second.port)}
    second.start()
    try:
        async with phone(second, looking) as client:
            await client.send(Looking(looking=True))
            tasks = [await world.submit("u_both", client, f"both-{number}") for number in range(10)]
            for task in tasks:
                await world.ask("u_both", task, client)
            assert sorted([(await shown(browsers[1]))["tag"] for _ in tasks]) == sorted(tasks)
            assert browsers[0].shown.empty()
            second.kill()
            finish = finished()
            await world.runner.bus.publish(command_subject("u_both", tasks[0], finish), finish)
        assert [(await shown(browser))["tag"] for browser in browsers] == [tasks[0], tasks[0]], (
            "it died with its interest"
        )
    finally:
        second.terminate()


async def test_what_a_killed_gateway_had_in_hand_another_one_tells(world: World) -> None:
    token = await world.device("u_killed", "phone")
    browser = await world.browser(token)
    browser.hold.clear()
    async with phone(world.gateway, token) as client:
        task = await world.submit("u_killed", client, "killed")
        await world.ask("u_killed", task, client)
        await asked(browser)  # the gateway has it in hand
    world.gateway.kill()
    browser.answers = [500]  # nobody is there any more to read the answer
    browser.hold.set()
    world.gateway.start()
    with anyio.fail_after(ACK_SECONDS + SECONDS):
        assert (await shown(browser))["tag"] == task


async def test_after_a_restart_nothing_is_repeated_and_what_is_over_is_not_told(world: World) -> None:
    token = await world.device("u_again", "phone")
    browser = await world.browser(token)
    async with phone(world.gateway, token) as client:
        tasks = [await world.submit("u_again", client, f"again-{number}") for number in range(3)]
        await world.ask("u_again", tasks[0], client, "told")
        assert (await shown(browser))["body"] == "told"
    world.gateway.terminate()
    for task in tasks[1:]:
        question = RaiseQuestion(key="ask", attempt=1, question=Question(id="q", text="missed"))
        await world.runner.bus.publish(command_subject("u_again", task, question), question)
    finish = FinishAttempt(key="finish", attempt=1, journal_sequence=0, summary="Over.", usage=Usage())
    await world.runner.bus.publish(command_subject("u_again", tasks[1], finish), finish)
    await world.decided("u_again", tasks[1], TaskState.SUCCEEDED)
    world.gateway.start()
    told = [await shown(browser) for _ in range(2)]
    assert {(each["tag"], each["body"]) for each in told} == {(tasks[1], "Over."), (tasks[2], "missed")}
    assert browser.shown.empty()


async def test_who_turns_it_on_is_told_nothing_of_the_past(world: World) -> None:
    token = await world.device("u_past", "phone")
    async with phone(world.gateway, token) as client:
        past = await world.submit("u_past", client, "past")
        await world.ask("u_past", past, client)
        browser = await world.browser(token)
        new = await world.submit("u_past", client, "new")
        await world.ask("u_past", new, client)
        assert (await shown(browser))["tag"] == new
        assert browser.shown.empty()


async def test_push_survives_a_restart_of_nats(world: World) -> None:
    token = await world.device("u_nats", "phone")
    browser = await world.browser(token)
    async with phone(world.gateway, token) as client:
        task = await world.submit("u_nats", client, "nats")
    world.gateway.nats.kill()
    world.gateway.nats.start()
    async with rest(world.gateway, token) as client:
        with anyio.fail_after(SECONDS):
            while (await healthy(client)) != 200:
                await anyio.lowlevel.checkpoint()
    question = RaiseQuestion(key="ask", attempt=1, question=Question(id="q", text="after"))
    await world.runner.bus.publish(command_subject("u_nats", task, question), question, key="ask")
    assert (await shown(browser))["body"] == "after"


async def healthy(client: httpx2.AsyncClient) -> int:
    return (await client.get("/api/health")).status_code
