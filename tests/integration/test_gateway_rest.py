"""REST: sign-in, tasks, users, hosts, SQL, health; who may see what, and how it is refused."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import msgspec
import pytest

from protocol.base import encode
from protocol.evolve import User, evolve_user
from protocol.ids import task_id
from protocol.live import Closing, ReceiptSeen
from protocol.task import Question, QuestionKind, SendMessage
from protocol.user import DailyLimitSet, decode_user_decision
from services.bus import Stored
from tests.integration.gateway_house import (
    NOTICE,
    OWNER_TOKEN,
    GatewayHouse,
    Runner,
    Scheduler,
    gateway_house,
    history,
    phone,
    repos,
    rest,
)

pytestmark = pytest.mark.anyio
TASK = {"prompt": "Do it", "repository": "https://git.example/a.git"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayHouse]:
    with gateway_house(tmp_path_factory.mktemp("gateway"), ERRAND_SIGN_IN_ATTEMPTS="50") as house:
        yield house


@pytest.fixture
async def scheduler(gateway: GatewayHouse) -> AsyncIterator[Scheduler]:
    async with Scheduler.running(gateway.nats) as found:
        yield found


@pytest.fixture
async def owner(gateway: GatewayHouse) -> AsyncIterator[httpx2.AsyncClient]:
    async with rest(gateway, OWNER_TOKEN) as client:
        yield client


@pytest.fixture
async def user(gateway: GatewayHouse, scheduler: Scheduler) -> AsyncIterator[httpx2.AsyncClient]:
    await scheduler.make_user("u_rest", "user-token")
    async with rest(gateway, "user-token") as client:
        await until(client, "/api/me", lambda answer: answer.status_code == 200)
        yield client


async def until(client: httpx2.AsyncClient, path: str, good: Any) -> httpx2.Response:
    """Ask again until the answer is as it will be once the gateway has folded what was just written."""
    with anyio.fail_after(10):
        while not good(answer := await client.get(path)):
            await anyio.lowlevel.checkpoint()
    return answer


async def submitted(client: httpx2.AsyncClient, key: str) -> str:
    answer = await client.post("/api/tasks", json=TASK, headers={"Idempotency-Key": key})
    assert answer.status_code == 202, answer.text
    return answer.json()["task"]


async def test_a_submitted_task_is_listed_shown_and_steered(scheduler: Scheduler, owner: httpx2.AsyncClient) -> None:
    task = await submitted(owner, "whole")
    shown = (await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["sequence"])).json()
    assert (shown["state"], shown["task"]["prompt"]) == ("queued", "Do it")
    for path, body in (("messages", {"text": "Go on"}), ("cancel", {"reason": "Enough"})):
        answer = await owner.post(f"/api/tasks/{task}/{path}", json={**body, "key": path})
        assert answer.status_code == 202, answer.text
        assert answer.json()["sequence"] > 0
    await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["state"] == "cancelled")
    listed = (await owner.get("/api/tasks", params={"state": "cancelled", "limit": 200})).json()["tasks"]
    assert task in [each["id"] for each in listed]
    older = {"limit": 200, "before": task, "before_at": "2020-01-01T00:00:00+00:00"}
    assert (await owner.get("/api/tasks", params=older)).json()["tasks"] == [], "older than it was then"


async def test_a_task_is_held_back_let_go_on_and_tried_again(scheduler: Scheduler, owner: httpx2.AsyncClient) -> None:
    task = await submitted(owner, "held")
    for path, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("retry", "queued")):
        answer = await owner.post(f"/api/tasks/{task}/{path}", json={"key": path})
        assert answer.status_code == 202, answer.text
        shown = await until(owner, f"/api/tasks/{task}", lambda answer, path=path: path in receipts(answer))
        assert (shown.json()["state"], receipts(shown)[path]["status"]) == (state, "consumed")
    assert (await owner.post("/api/tasks/t2222222222222222/pause", json={"key": "k"})).status_code == 404


async def test_a_task_is_found_by_its_marks_and_words(scheduler: Scheduler, owner: httpx2.AsyncClient) -> None:
    body = {**TASK, "key": "marked", "prompt": "Mend the Fountain", "tags": ["ui"], "metadata": {"for": "Ann"}}
    task = (await owner.post("/api/tasks", json=body)).json()["task"]
    await owner.post(f"/api/tasks/{task}/tags", json={"key": "t", "add": ["urgent"], "metadata": {"ticket": "7"}})
    await until(owner, f"/api/tasks/{task}", lambda answer: "t" in receipts(answer))
    for query, found in (
        ({"tag": ["ui", "urgent"]}, True),
        ({"tag": ["ui", "other"]}, False),
        ({"metadata": ["for=Ann", "ticket=7"]}, True),
        ({"metadata": "for=Bob"}, False),
        ({"search": "fountain mend"}, True),
        ({"search": "fountain sea"}, False),
        ({"repository": "GIT.EXAMPLE", "tag": "ui"}, True),
        ({"state": "cancelled", "tag": "ui"}, False),
    ):
        listed = (await owner.get("/api/tasks", params=query)).json()["tasks"]
        assert [each["id"] for each in listed] == [task] * found, query
    wrong = await owner.get("/api/tasks", params={"metadata": "for"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "metadata")
    wrong = await owner.post("/api/tasks", json={**body, "key": "wrong", "tags": ["a b"]})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "tags")


async def test_many_tasks_are_steered_at_once_and_a_repeated_request_means_the_same_ones(
    scheduler: Scheduler, owner: httpx2.AsyncClient
) -> None:
    async def begin(key: str) -> str:
        return (await owner.post("/api/tasks", json={**TASK, "key": key, "tags": ["bulk"]})).json()["task"]

    async def carry_out(body: dict[str, Any]) -> dict[str, tuple[str, str]]:
        with anyio.fail_after(10):
            while True:
                answer = await owner.post("/api/tasks/bulk", json=body)
                assert answer.status_code == 202, answer.text
                done = {task["task"]: (task["status"], task["reason"]) for task in answer.json()["tasks"]}
                if all(status for status, _ in done.values()):
                    return done

    one, other = await begin("bulk-1"), await begin("bulk-2")
    for task in (one, other):
        await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["sequence"])
    pause = {"action": "pause", "tags": ["bulk"], "key": "p"}
    assert await carry_out(pause) == {one: ("consumed", ""), other: ("consumed", "")}
    later = await begin("bulk-3")
    await until(owner, f"/api/tasks/{later}", lambda answer: answer.json()["sequence"])
    assert set(await carry_out(pause)) == {one, other}
    assert (await owner.get(f"/api/tasks/{later}")).json()["state"] == "queued"
    assert set(await carry_out({"action": "cancel", "tags": ["bulk"], "key": "c"})) == {one, other, later}
    assert await carry_out({"action": "resume", "tags": ["bulk"], "key": "r"}) == {}
    everything = {"action": "cancel", "key": "all"}
    cases = (({**pause, "action": "retry"}, "key"), (everything, "states"), ({**everything, "search": " "}, "states"))
    for wrong, field in cases:
        answer = await owner.post("/api/tasks/bulk", json=wrong)
        assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_a_fork_is_of_a_task_of_ones_own(
    scheduler: Scheduler, owner: httpx2.AsyncClient, user: httpx2.AsyncClient
) -> None:
    task = await submitted(owner, "trunk")
    await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["sequence"])
    body = {"prompt": "Another way", "fork_of": task, "key": "fork"}
    forked = (await owner.post("/api/tasks", json=body)).json()["task"]
    shown = (await until(owner, f"/api/tasks/{forked}", lambda answer: answer.json()["sequence"])).json()["task"]
    assert (shown["fork_of"], shown["repository"]) == (task, TASK["repository"])
    anothers = await user.post("/api/tasks", json=body)
    assert (anothers.status_code, anothers.json()["field"]) == (404, "fork_of")
    wrong = await owner.post("/api/tasks", json={**body, "key": "both", "repository": TASK["repository"]})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "fork_of")


def receipts(answer: httpx2.Response) -> dict[str, Any]:
    return answer.json()["task"].get("receipts", {})


async def test_a_task_has_a_queue_labels_and_a_priority(scheduler: Scheduler, owner: httpx2.AsyncClient) -> None:
    body = {**TASK, "key": "placed", "queue": "gpu", "labels": ["gpu", "arm64"], "priority": -3}
    task = (await owner.post("/api/tasks", json=body)).json()["task"]
    answer = await owner.post(f"/api/tasks/{task}/priority", json={"priority": 7, "key": "up"})
    assert answer.status_code == 202, answer.text
    shown = await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["task"].get("priority") == 7)
    assert (shown.json()["task"]["queue"], shown.json()["task"]["labels"]) == ("gpu", ["arm64", "gpu"])


async def test_of_two_devices_that_decide_an_approval_the_first_wins(
    scheduler: Scheduler, owner: httpx2.AsyncClient
) -> None:
    task = await submitted(owner, "approval")
    await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["sequence"])
    await scheduler.claim("owner", task)
    asked = Question(id="approval_2", text="May I?", kind=QuestionKind.APPROVAL, tool="bash", input="make")
    await scheduler.question("owner", task, asked)
    shown = await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["task"].get("question"))
    assert shown.json()["task"]["question"]["input"] == "make"
    question = {"question": "approval_2"}
    for path, body in (("answers", {"text": "yes"}), ("deny", {"reason": "use tox"}), ("approve", {})):
        answer = await owner.post(f"/api/tasks/{task}/{path}", json={**question, **body, "key": path})
        assert answer.status_code == 202, answer.text
    shown = await until(owner, f"/api/tasks/{task}", lambda answer: "approve" in receipts(answer))
    ends = {key: receipts(shown)[key]["status"] for key in ("answers", "deny", "approve")}
    assert ends == {"answers": "rejected", "deny": "consumed", "approve": "rejected"}
    assert shown.json()["state"] == "running"


async def test_a_user_has_rules_and_settings_and_the_owner_says_what_may_be_spent(
    scheduler: Scheduler, owner: httpx2.AsyncClient, user: httpx2.AsyncClient
) -> None:
    rules = {"rules": [{"action": "deny", "tool": "bash", "pattern": "git push*"}]}
    settings = {"model": "m", "budget": {"money_usd": None}, "time_zone": "Europe/Berlin", "daily_usd": 2.0}
    assert (await user.put("/api/rules", json=rules)).status_code == 200
    assert (await user.put("/api/settings", json=settings)).status_code == 200
    assert (await user.get("/api/rules")).json() == rules
    shown = (await user.get("/api/settings")).json()
    assert (shown["settings"], shown["spent_usd"], shown["limit_usd"]) == (settings, 1.0, None)
    assert (await owner.get("/api/rules")).json() == {"rules": []}, "each has rules of one's own"
    limit = "/api/users/u_rest/daily-limit"
    assert (await user.put(limit, json={"daily_usd": 99})).status_code == 403
    assert (await owner.put(limit, json={"daily_usd": 0})).status_code == 204
    decided = (await scheduler.bus.replay("evt.u_rest.user.daily_limit_set"))[-1]
    assert decode_user_decision(decided.data).events == (DailyLimitSet(daily_usd=0.0),)
    task = await submitted(owner, "budgeted")
    answer = await owner.post(f"/api/tasks/{task}/budget", json={"key": "b", "budget": {"money_usd": 3, "steps": None}})
    assert answer.status_code == 202
    shown = await until(owner, f"/api/tasks/{task}", lambda answer: "b" in receipts(answer))
    assert shown.json()["task"]["budget"] == {"money_usd": 3.0, "steps": None}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("rules", {"rules": [{"action": "ask", "tool": "shell"}]}, "rules"),
        ("rules", {"rules": [{"action": "maybe"}]}, "rules[0].action"),
        ("rules", {"rules": [{"action": "ask", "pattern": ""}]}, "rules"),
        ("rules", {"rules": [{"action": "ask"}] * 101}, "rules"),
        ("settings", {"time_zone": "Mars/Base"}, "time_zone"),
        ("settings", {"time_zone": "../../etc/passwd"}, "time_zone"),
        ("settings", {"daily_usd": -1}, "daily_usd"),
        ("settings", {"model": "a b"}, "model"),
        ("settings", {"budget": {"steps": -1}}, "budget.steps"),
        ("users/owner/daily-limit", {"daily_usd": -1}, "daily_usd"),
    ],
)
async def test_rules_and_settings_that_cannot_be_are_refused_with_the_field(
    owner: httpx2.AsyncClient, path: str, body: dict[str, Any], field: str
) -> None:
    refused = await owner.put(f"/api/{path}", json=body)
    assert (refused.status_code in (400, 422), refused.json().get("field")) == (True, field), refused.text


async def test_a_request_without_its_body_is_refused_in_a_sentence(owner: httpx2.AsyncClient) -> None:
    refused = await owner.post("/api/tasks")
    assert (refused.status_code, refused.json()["error"]) == (
        400,
        "The request's body is missing: it is a JSON object.",
    )


async def test_the_owner_sees_every_queue_and_says_how_it_is_served(
    scheduler: Scheduler, owner: httpx2.AsyncClient, user: httpx2.AsyncClient
) -> None:
    for client in (owner, user):
        assert (await client.get("/api/queues", params={"limit": 7})).json() == {"type": "queue_shown"}
    assert [(asked.user, asked.everything, asked.limit) for asked in scheduler.asked] == [
        ("owner", True, 7),
        ("u_rest", False, 7),
    ]
    for body, queue in (
        ({"paused": True}, {"paused": True}),
        ({"running_limit": 2}, {"paused": True, "running_limit": 2}),
    ):
        assert (await owner.post("/api/queues/gpu", json=body)).json() == queue
    assert (await owner.post("/api/queues/gpu", json={"paused": False, "running_limit": None})).json() == {}
    for limit in (0, 10**31):
        assert (await owner.post("/api/queues/gpu", json={"running_limit": limit})).status_code == 422
    nameless = await owner.post("/api/queues/", json={"paused": True})
    assert (nameless.status_code, "a name or an id may be missing" in nameless.json()["error"]) == (405, True)
    assert (await owner.post("/api/queues/GPU", json={"paused": True})).json()["field"] == "queue"
    assert (await user.post("/api/queues/gpu", json={"paused": True})).status_code == 403


SCHEDULE = {
    "name": "nightly",
    "cron": "0 3 * * *",
    "time_zone": "Europe/Berlin",
    "key": "nightly",
    "task": {"prompt": "Update the dependencies", "repository": "https://git.example/x"},
}


@pytest.mark.parametrize("limit", [-1, 0, 10**12, 10**30])
async def test_no_number_of_a_question_is_the_schedulers_failure(
    scheduler: Scheduler, owner: httpx2.AsyncClient, limit: int
) -> None:
    for path in ("queues", "tasks", "dead"):
        answer = await owner.get(f"/api/{path}", params={"limit": limit})
        assert answer.status_code in (200, 400), answer.text


async def test_a_schedule_is_added_once_shown_paused_resumed_and_removed(
    scheduler: Scheduler, owner: httpx2.AsyncClient, user: httpx2.AsyncClient
) -> None:
    added = await owner.post("/api/schedules", json=SCHEDULE)
    assert added.status_code == 201
    schedule = added.json()
    assert (schedule["name"], schedule["next_at"][-1]) == ("nightly", "Z")
    assert (await owner.post("/api/schedules", json=SCHEDULE)).json() == schedule, "the same key"
    place = f"/api/schedules/{schedule['id']}"
    assert (await owner.get(place)).json() == schedule
    paused = (await owner.post(f"{place}/pause")).json()
    assert (paused["paused"], paused.get("next_at")) == ("Paused by the user.", None)
    assert (await owner.post(f"{place}/pause")).status_code == 409
    assert (await owner.post(f"{place}/resume")).json() == schedule
    assert (await owner.get("/api/schedules")).json() == {"schedules": [schedule]}
    assert (await user.get("/api/schedules")).json() == {"schedules": []}
    assert (await user.delete(place)).status_code == 404
    assert (await owner.delete(place)).status_code == 204
    assert (await owner.get(place)).status_code == 404


@pytest.mark.parametrize(
    ("wrong", "field", "said"),
    [
        ({"cron": "0 3 * *"}, "cron", "five fields"),
        ({"time_zone": "Europe/Berln"}, "time_zone", "Europe/Berlin"),
        ({"task": {**SCHEDULE["task"], "prompt": " "}}, "prompt", "empty"),
        ({"task": {**SCHEDULE["task"], "start_at": "2030-01-01T00:00:00Z"}}, "task.start_at", "leave"),
        ({"name": ""}, "name", "1 to 64"),
    ],
)
async def test_a_schedule_that_cannot_be_is_refused_with_the_field(
    scheduler: Scheduler, owner: httpx2.AsyncClient, wrong: dict[str, Any], field: str, said: str
) -> None:
    answer = await owner.post("/api/schedules", json={**SCHEDULE, "key": field, **wrong})
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert said in answer.json()["error"]


async def test_the_same_key_gives_the_same_task_and_is_stored_once(owner: httpx2.AsyncClient) -> None:
    first = await owner.post("/api/tasks", json={**TASK, "key": "again"})
    second = await owner.post("/api/tasks", json=TASK, headers={"Idempotency-Key": "again"})
    assert first.json() == second.json()
    assert first.json()["task"] == task_id("owner", "again")


async def test_a_task_is_shown_before_any_scheduler_took_it(owner: httpx2.AsyncClient) -> None:
    task = await submitted(owner, "no-scheduler")
    answer = (await owner.get(f"/api/tasks/{task}")).json()
    assert (answer["sequence"], answer["state"], answer["task"]["prompt"]) == (0, "queued", "Do it")
    listing = await owner.get("/api/tasks")
    assert (listing.status_code, "scheduler" in listing.json()["error"]) == (503, True)


async def test_a_repository_is_checked_once_and_written_as_the_repos_service_says(
    gateway: GatewayHouse, owner: httpx2.AsyncClient
) -> None:
    body = {**TASK, "repository": "https://git.example/checked/"}
    async with repos(gateway.nats) as asked:
        for key in ("check-1", "check-2"):
            answer = await owner.post("/api/tasks", json={**body, "key": key})
            shown = await owner.get(f"/api/tasks/{answer.json()['task']}")
            assert shown.json()["task"]["repository"] == "https://git.example/checked"
        assert asked == ["https://git.example/checked/"]
        missing = await owner.post("/api/tasks", json={**TASK, "repository": "https://git.example/missing", "key": "m"})
    assert (missing.status_code, missing.json()["field"]) == (422, "repository")


async def test_a_token_in_a_url_is_kept_nowhere_while_the_repos_service_is_away(owner: httpx2.AsyncClient) -> None:
    body = {**TASK, "repository": "https://ghp_secret@git.example/x", "key": "token-in-url"}
    task = (await owner.post("/api/tasks", json=body)).json()["task"]
    assert "ghp_secret" not in (await owner.get(f"/api/tasks/{task}")).text


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({**TASK, "key": "k", "prompt": ""}, 422, "prompt"),
        ({**TASK, "key": "k", "prompt": 5}, 400, "prompt"),
        ({"repository": "https://git.example/a", "key": "k"}, 400, "prompt"),
        ({**TASK}, 422, "key"),
        ({**TASK, "key": "k", "repository": "--upload-pack=x"}, 422, "repository"),
        ({**TASK, "key": "k", "budget": {"money_usd": -1}}, 422, "budget.money_usd"),
        ({**TASK, "key": "k", "budget": {"money_usd": "much"}}, 400, "budget.money_usd"),
        (b"{", 400, ""),
        (b"[]", 400, ""),
        (b"\xff", 400, ""),
        (b'{"key": "k", "prompt": "\xfc", "repository": "/x"}', 400, ""),
        (b'{"key": "k", "prompt": ' + b"[" * 100_000, 400, ""),
        (b'{"key": "k", "unknown": ' + b'{"a":' * 100_000, 400, ""),
        ({**TASK, "key": "k", "prompt": "x" * 2_000_000}, 413, ""),
    ],
)
async def test_bad_bodies_are_refused_with_a_sentence(
    owner: httpx2.AsyncClient, body: dict[str, Any] | bytes, status: int, field: str
) -> None:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    answer = await owner.post("/api/tasks", content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json().get("field", "")) == (status, field), answer.text
    assert answer.json()["error"].endswith("."), answer.text


async def test_a_user_finds_nothing_of_anothers(owner: httpx2.AsyncClient, user: httpx2.AsyncClient) -> None:
    task = await submitted(owner, "mine")
    await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["sequence"])
    unknown = await user.get("/api/tasks/tnothing")
    for answer in (
        await user.get(f"/api/tasks/{task}"),
        await user.get(f"/api/tasks/{task}/diff"),
        await user.post(f"/api/tasks/{task}/messages", json={"text": "x", "key": "k"}),
        await user.post(f"/api/tasks/{task}/answers", json={"question": "q", "text": "x", "key": "k"}),
        await user.post(f"/api/tasks/{task}/approve", json={"question": "q", "key": "k"}),
        await user.post(f"/api/tasks/{task}/deny", json={"question": "q", "key": "k"}),
        await user.post(f"/api/tasks/{task}/budget", json={"budget": {}, "key": "k"}),
        await user.post(f"/api/tasks/{task}/cancel", json={"key": "k"}),
        await user.post(f"/api/tasks/{task}/priority", json={"priority": 1, "key": "k"}),
    ):
        assert (answer.status_code, answer.json()) == (404, unknown.json())
    assert (await user.get("/api/tasks")).json()["tasks"] == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/users"),
        ("GET", "/api/users"),
        ("GET", "/api/hosts"),
        ("POST", "/api/hosts"),
        ("DELETE", "/api/hosts"),
        ("POST", "/api/sql"),
        ("GET", "/api/doctor"),
    ],
)
async def test_what_is_the_owners_is_refused_to_others(
    gateway: GatewayHouse, user: httpx2.AsyncClient, method: str, path: str
) -> None:
    assert (await user.request(method, path, json={})).status_code in (400, 403)
    body = {"name": "x", "host": "x.y", "kind": "token", "secret": "s", "sql": "select 1"}
    assert (await user.request(method, path, json=body)).status_code == 403
    async with rest(gateway, "no-such-token") as stranger:
        refused = await stranger.request(method, path, json=body)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_link_signs_one_device_in_and_no_second_one(
    gateway: GatewayHouse, scheduler: Scheduler, owner: httpx2.AsyncClient
) -> None:
    added = await owner.post("/api/users", json={"name": "Ada"})
    assert added.status_code == 201, added.text
    assert (await owner.post("/api/users", json={"name": "Ada"})).status_code == 409
    code = added.json()["link"].partition("#code=")[2]
    async with rest(gateway) as stranger:
        signed_in = await stranger.post("/api/sign-in", json={"code": code, "device_name": "Ada's phone"})
        assert signed_in.status_code == 201, signed_in.text
        again = await stranger.post("/api/sign-in", json={"code": code, "device_name": "Eve's phone"})
        assert (again.status_code, "used already" in again.json()["error"]) == (401, True)
    async with rest(gateway, signed_in.json()["token"]) as ada:
        me = (await ada.get("/api/me")).json()
    assert (me["name"], me["role"], me["device"]) == ("Ada", "user", signed_in.json()["device"])
    assert [device["name"] for device in me["devices"]] == ["Ada's phone"]
    stored = await scheduler.bus.replay("evt.*.user.>")
    assert not any(
        signed_in.json()["token"].encode() in message.data or code.encode() in message.data for message in stored
    )


async def test_two_devices_with_one_code_at_the_same_time_get_one_token(
    gateway: GatewayHouse, scheduler: Scheduler, owner: httpx2.AsyncClient
) -> None:
    code = (await owner.post("/api/sign-in-codes", json={})).json()["link"].partition("#code=")[2]
    statuses: list[int] = []

    async def exchange(name: str) -> None:
        async with rest(gateway) as stranger:
            statuses.append((await stranger.post("/api/sign-in", json={"code": code, "device_name": name})).status_code)

    async with anyio.create_task_group() as group:
        for name in ("a", "b", "c"):
            group.start_soon(exchange, name)
    assert sorted(statuses) == [201, 401, 401]


async def test_an_expired_code_and_a_guess_are_refused(gateway: GatewayHouse, scheduler: Scheduler) -> None:
    await scheduler.make_code("owner", "owner.soon-over", datetime.now(UTC) + timedelta(milliseconds=1))
    async with rest(gateway) as stranger:
        for code in ("owner.soon-over", "owner.guess", ""):
            answer = await stranger.post("/api/sign-in", json={"code": code, "device_name": "x"})
            assert (answer.status_code, "ask for a new one" in answer.json()["error"]) == (401, True)


async def test_a_removed_device_is_out_at_once(gateway: GatewayHouse, scheduler: Scheduler) -> None:
    await scheduler.make_user("u_leaver", "leaver-token")
    async with rest(gateway, "leaver-token") as client:
        me = (await until(client, "/api/me", lambda answer: answer.status_code == 200)).json()
        async with phone(gateway, "leaver-token") as socket:
            assert (await client.delete(f"/api/devices/{me['device']}")).status_code == 204
            assert not (await socket.until(Closing)).come_back
            assert await socket.closed() == 4401
        assert (await client.get("/api/me")).status_code == 401


async def test_a_removed_user_is_out_at_once_and_the_open_tasks_are_stopped(
    gateway: GatewayHouse, scheduler: Scheduler, owner: httpx2.AsyncClient
) -> None:
    await scheduler.make_user("u_goner", "goner-token")
    async with rest(gateway, "goner-token") as client:
        await until(client, "/api/me", lambda answer: answer.status_code == 200)
        async with repos(gateway.nats):
            task = (await client.post("/api/tasks", json=TASK | {"key": "g"})).json()["task"]
        await until(client, f"/api/tasks/{task}", lambda answer: answer.json()["sequence"] > 0)
        async with phone(gateway, "goner-token") as socket:
            assert (await client.delete("/api/users/u_goner")).status_code == 403
            assert (await owner.delete("/api/users/u_goner")).status_code == 204
            assert not (await socket.until(Closing)).come_back
        assert (await client.get("/api/me")).status_code == 401
    (cancelled,) = await scheduler.bus.replay(f"cmd.u_goner.{task}.cancel_task")
    assert b"The owner removed this user." in cancelled.data
    assert (await owner.delete("/api/users/u_goner")).status_code == 204, "again does no harm"
    assert (await owner.delete("/api/users/owner")).status_code == 409
    assert (await owner.delete("/api/users/u_nobody")).status_code == 404


async def test_a_user_cannot_remove_anothers_device(owner: httpx2.AsyncClient, user: httpx2.AsyncClient) -> None:
    device = (await owner.get("/api/me")).json()["device"]
    assert (await user.delete(f"/api/devices/{device}")).status_code == 404


async def test_a_hosts_secret_is_sealed_before_it_is_stored(
    gateway: GatewayHouse, scheduler: Scheduler, owner: httpx2.AsyncClient
) -> None:
    secret = secrets.token_hex(16)
    body = {"host": "GitHub.com", "kind": "token", "secret": secret, "username": "me"}
    shared = {"host": "git.lan", "kind": "token", "secret": secret, "shared": True}
    async with repos(gateway.nats):
        added = await owner.post("/api/hosts", json=body)
        more = await owner.post("/api/hosts", json=shared)
    shown = {"host": "github.com", "kind": "token", "username": "me", "shared": False}
    assert (added.status_code, added.json()) == (201, shown)
    assert (more.status_code, more.json()["shared"]) == (201, True)
    assert (await owner.get("/api/hosts")).json() == {"hosts": [added.json(), more.json()]}
    state = User(id="owner")
    for message in await scheduler.bus.replay("evt.owner.user.>"):
        assert secret.encode() not in message.data
        state = evolve_user(state, decode_user_decision(message.data))
    assert state.hosts["github.com"].sealed
    assert {name: host.shared for name, host in state.hosts.items()} == {"github.com": False, "git.lan": True}
    assert secret not in gateway.log.read_text()
    for host in ("github.com", "git.lan"):
        assert (await owner.request("DELETE", "/api/hosts", json={"host": host})).status_code == 204
    assert (await owner.get("/api/hosts")).json() == {"hosts": []}


async def test_a_users_secret_is_sealed_and_shown_by_name_alone(
    gateway: GatewayHouse, scheduler: Scheduler, owner: httpx2.AsyncClient, user: httpx2.AsyncClient
) -> None:
    value = secrets.token_hex(16)
    app = {"name": "NPM_TOKEN", "value": value, "repository": "https://GIT.example/me/app"}
    async with repos(gateway.nats):
        first = await user.post("/api/secrets", json={"name": "NPM_TOKEN", "value": value})
        second = await user.post("/api/secrets", json=app)
        assert (first.status_code, second.status_code) == (201, 201), second.text
        assert (await user.get("/api/secrets")).json() == {"secrets": [first.json(), second.json()]}
        assert (await owner.get("/api/secrets")).json() == {"secrets": []}
        for wrong, field in (({"name": "NO-NAME"}, "name"), ({"value": "short"}, "value"), ({"repository": "x y"}, "")):
            refused = await user.post("/api/secrets", json=app | wrong)
            assert (refused.status_code, field in refused.text, value in refused.text) == (422, True, False)
        for query in ("", f"?repository={app['repository']}"):
            assert (await user.delete(f"/api/secrets/NPM_TOKEN{query}")).status_code == 204
            assert (await user.delete(f"/api/secrets/NPM_TOKEN{query}")).status_code == 404
    assert (await user.get("/api/secrets")).json() == {"secrets": []}
    for message in await scheduler.bus.replay("evt.*.user.>"):
        assert value.encode() not in message.data
    assert value not in gateway.log.read_text()


async def test_a_host_without_a_publisher_is_refused_for_now(owner: httpx2.AsyncClient) -> None:
    answer = await owner.post("/api/hosts", json={"host": "a.example", "kind": "token", "secret": "s3cret"})
    assert (answer.status_code, "s3cret" in answer.text) == (503, False)


async def test_sql_is_answered_by_the_history(gateway: GatewayHouse, owner: httpx2.AsyncClient) -> None:
    async with history(gateway.nats):
        answer = await owner.post("/api/sql", json={"sql": "select 1 as n", "at_least": 7})
        assert (answer.status_code, answer.json()["rows"], answer.json()["sequence"]) == (200, [[1]], 7)
        broken = await owner.post("/api/sql", json={"sql": "broken"})
        assert (broken.status_code, broken.json()["field"]) == (422, "sql")
    assert (await owner.post("/api/sql", json={"sql": "select 1"})).status_code == 503


async def test_the_doctor_names_what_does_not_run(gateway: GatewayHouse, owner: httpx2.AsyncClient) -> None:
    async with Runner.running(gateway.nats):
        answer = (await owner.get("/api/doctor")).json()
    checks = {check["name"]: check["status"] for check in answer["checks"]}
    assert checks.pop("github") == "ok", "nobody is meant to sign in with it"
    assert checks.pop("notifications") == "warn", "it was told of no folder for their keys"
    assert checks.pop("dead letters") == "ok"
    assert checks == {"gateway": "ok", "scheduler": "fail", "runner": "warn", "repos": "fail", "history": "fail"}
    assert not answer["healthy"]


async def test_notices_are_shown_to_everybody(gateway: GatewayHouse, user: httpx2.AsyncClient) -> None:
    async with Runner.running(gateway.nats):
        await until(user, "/api/me", lambda answer: answer.json()["notices"] == [NOTICE])


async def test_health_needs_no_token_and_every_answer_keeps_strangers_scripts_out(gateway: GatewayHouse) -> None:
    async with rest(gateway) as stranger:
        assert (await stranger.get("/api/health")).json()["healthy"]
        page = await stranger.get("/")
        nowhere = await stranger.get("/api/nowhere")
        wrong = await stranger.delete("/api/health")
    assert "errand login" in page.text, "for a browser without JavaScript"
    assert nowhere.headers["cache-control"] == "no-store"
    assert (nowhere.status_code, wrong.status_code) == (404, 405)
    for answer in (page, nowhere, wrong):
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    assert nowhere.json()["error"]


async def test_a_command_over_rest_has_its_receipt_on_the_phone(
    gateway: GatewayHouse, scheduler: Scheduler, owner: httpx2.AsyncClient
) -> None:
    async with phone(gateway, OWNER_TOKEN) as socket:
        task = await submitted(owner, "seen-on-the-phone")
        seen = await socket.until(ReceiptSeen)
        assert (seen.task, seen.receipt.key) == (task, "seen-on-the-phone")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "ERRAND_BIND, ERRAND_PORT: 127.0.0.1 port"),
        ({"ERRAND_PORT": "many"}, "ERRAND_PORT:"),
        ({"ERRAND_PUBLIC_URL": "errand.example"}, "ERRAND_PUBLIC_URL:"),
    ],
)
async def test_a_wrong_setting_ends_the_start_with_its_name(
    gateway: GatewayHouse, settings: dict[str, str], said: str
) -> None:
    """The first is the port that is taken already."""
    environment = {**gateway.environment, **settings}
    with anyio.fail_after(20):
        ended = await anyio.run_process([sys.executable, "-m", "gateway"], env=environment, check=False)
    last = ended.stderr.decode().strip().splitlines()[-1]
    assert (ended.returncode, said in last) == (1, True), ended.stderr.decode()


async def test_a_dead_letter_is_listed_put_back_once_and_forgotten(
    gateway: GatewayHouse, scheduler: Scheduler, owner: httpx2.AsyncClient, user: httpx2.AsyncClient
) -> None:
    task = await submitted(owner, "poisoned")
    await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["sequence"])
    command = SendMessage(key="said", text="go on")
    subject = f"cmd.owner.{task}.send_message"
    for number, data in ((1, encode(command)), (2, b"\xff")):
        stored = Stored(subject, number, data, datetime.now(UTC))
        await scheduler.bus.bury("TASKS", stored, "The command cannot be handled: boom")
    letters = (await owner.get("/api/dead")).json()["letters"]
    assert [(one["subject"], one["of"]) for one in letters] == [(subject, 1), (subject, 2)]
    good, bad = (one["sequence"] for one in letters)
    assert (await owner.get(f"/api/dead/{good}")).json()["reason"] == "The command cannot be handled: boom"
    answers = [await owner.post(f"/api/dead/{good}/put-back") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 404]
    await until(owner, f"/api/tasks/{task}", lambda answer: answer.json()["task"].get("messages") == 1)
    assert (await owner.post(f"/api/dead/{bad}/put-back")).status_code == 409
    assert (await user.get("/api/dead")).status_code == 403
    assert (await owner.delete(f"/api/dead/{bad}")).status_code == 204
    assert (await owner.get("/api/dead")).json()["letters"] == []
