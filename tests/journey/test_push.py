"""The whole house tells a browser that a task needs its user, and how it ended, over the death of its gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import anyio.to_thread
import httpx2
import pytest

from protocol.live import Answer
from tests.integration.push_service import Browser, PushService, push_service
from tests.journey.house import House, errand_up, phone
from tests.journey.test_kills import make_repository

pytestmark = pytest.mark.anyio


@pytest.fixture
def service() -> Iterator[PushService]:
    with push_service() as found:
        yield found


@pytest.fixture
def house(tmp_path: Path, service: PushService) -> Iterator[House]:
    with errand_up(tmp_path / "house", ERRAND_PUSH_HOSTS=service.url.removeprefix("http://")) as found:
        yield found


def turn_on(house: House, browser: Browser) -> None:
    """As the page does."""
    headers = {"Authorization": f"Bearer {house.token}"}
    with httpx2.Client(base_url=house.ready.server, headers=headers, trust_env=False) as client:
        assert client.get("/api/push").json()["available"]
        assert client.post("/api/push/subscriptions", json=browser.to_json()).status_code == 201


async def test_a_question_and_the_outcome_reach_a_browser(house: House, service: PushService, tmp_path: Path) -> None:
    browser = service.browser("journey")
    turn_on(house, browser)
    async with phone(house) as owner:
        repository = str(make_repository(tmp_path / "greeter"))
        task = await owner.submit("Paint it. [scenario: ask]", repository, key="push")
        question = await anyio.to_thread.run_sync(browser.notification)
        assert question["title"] == "Needs you: Paint it. [scenario: ask]"
        assert (question["body"], question["url"]) == ("Which colour?", f"/#/task/{task}")
        asked = owner.tasks[task].question
        assert asked is not None
        assert browser.asked.acquire(blocking=False)
        browser.hold.clear()
        await owner.command(Answer(key="blue", task=task, question=asked.id, text="blue"))
        assert await anyio.to_thread.run_sync(lambda: browser.asked.acquire(timeout=60))
        house.kill("gateway")
        browser.answers = [500]  # for the one that is dead
        browser.hold.set()
        outcome = await anyio.to_thread.run_sync(browser.notification)
        assert outcome["title"] == "Done: Paint it. [scenario: ask]"
        assert outcome["body"].startswith(f"Branch {(await owner.ended(task)).published.branch}. ")  # pyright: ignore[reportOptionalMemberAccess]
    log = (house.data / "logs" / "gateway.log").read_text()
    assert browser.endpoint not in log
    assert json.dumps(browser.to_json()["keys"]["auth"]) not in log
