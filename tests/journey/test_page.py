"""The phone's page in a real browser of a phone's size, over the whole house."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.journey.browser import chromium, phone
from tests.journey.house import House, errand_up
from tests.journey.test_kills import make_repository

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with errand_up(tmp_path_factory.mktemp("house"), ERRAND_SIGN_IN_ATTEMPTS="1000") as house:
        yield house


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_repository(tmp_path_factory.mktemp("repository") / "greeter"))


def test_a_task_goes_from_the_link_to_a_diff(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        page = me.page
        me.sign_in(house.ready.link)
        assert "code" not in page.url
        me.submit("[scenario: tour] Look around", repository)
        expect(page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        expect(page.locator(".outcome")).to_contain_text("errand/")
        expect(page.locator(".notices")).to_contain_text("not Claude")
        page.get_by_role("link", name="1 file changed").click()
        expect(page.locator(".file")).to_contain_text("ERRAND.md")
        expect(page.locator(".line.add").first).to_contain_text("# A tour of this repository")
        page.get_by_role("link", name="Back").click()
        page.get_by_role("link", name="Back").click()
        expect(page.get_by_role("link", name="Look around")).to_contain_text("Done")
