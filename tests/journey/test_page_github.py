"""The button "Sign in with GitHub" in a real browser, through a GitHub and back, to the pull request's link."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.integration.github_house import GithubServer, github_server, settings
from tests.journey.browser import chromium, phone
from tests.journey.house import House, errand_up

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GithubServer]:
    with github_server(tmp_path_factory.mktemp("github")) as server:
        server.account("alice", 1)
        server.account("mallory", 2)
        yield server


@pytest.fixture(scope="module")
def house(github: GithubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    told = settings(github, tmp_path_factory.mktemp("app"), ERRAND_GITHUB_USERS="alice")
    with errand_up(tmp_path_factory.mktemp("house"), **told) as house:
        github.redirect_uris = {f"{house.ready.server}/api/sign-in/github/callback"}
        yield house


def test_a_phone_signs_in_with_github_and_sees_its_pull_request(
    browser: Browser, house: House, github: GithubServer
) -> None:
    url = github.repository("alice/app", private=True, writers={"alice"})
    github.browser = "alice"
    with phone(browser, house) as me:
        me.page.goto("/")
        me.page.get_by_role("link", name="Sign in with GitHub").click()
        me.page.get_by_role("button", name="Sign in").click()
        me.page.get_by_role("link", name="New task").wait_for()
        assert "code" not in me.page.url
        assert me.context.cookies() == []
        me.submit("[scenario: tour] Look around", url)
        expect(me.page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        link = me.page.locator(f'a[href="{url}/pull/1"]').first
        expect(link).to_be_visible()
        for secret in github.secrets():
            assert secret not in me.everything_kept()


def test_who_may_not_come_in_reads_why_and_can_choose_another_account(
    browser: Browser, house: House, github: GithubServer
) -> None:
    github.browser = "mallory"
    with phone(browser, house) as me:
        me.page.goto("/")
        me.page.get_by_role("link", name="Sign in with GitHub").click()
        me.see("The GitHub account mallory may not sign in here")
        github.browser = "alice"
        me.page.get_by_role("link", name="Start again").click()
        me.page.get_by_role("button", name="Sign in").click()
        me.page.get_by_role("link", name="New task").wait_for()
