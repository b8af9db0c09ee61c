"""Each screen of the page, light and dark: a picture to look at, and axe finds nothing that keeps somebody out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.journey.browser import Phone, chromium, look, new_link, phone
from tests.journey.house import House, errand_up
from tests.journey.project import make_project

pytestmark = pytest.mark.timeout(600)
REPAIR = (
    "The tests fail since the last change: find out why, and mend it.\n\n`python3 -B -m unittest`\n\n[scenario: repair]"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    secret = tmp_path / "github-secret"
    secret.write_text("never sent: nobody signs in with GitHub here")
    github = {"ERRAND_GITHUB_CLIENT_ID": "Iv1.picture", "ERRAND_GITHUB_CLIENT_SECRET_FILE": str(secret)}
    with errand_up(tmp_path / "house", ERRAND_SIGN_IN_ATTEMPTS="1000", **github) as house:
        yield house


def test_every_screen_can_be_read_by_everybody(browser: Browser, house: House, tmp_path: Path) -> None:
    repository = str(make_project(tmp_path / "you" / "basket"))
    with phone(browser, house) as me:
        signing_in(me)
        writing(me, repository)
        working(me, repository)
        asking(me, repository)
        repairing(me, repository)
        failing(me, repository)
        settings(me)
        offline(me, repository)


def signing_in(me: Phone) -> None:
    page, link = me.page, new_link(me.house)
    page.goto("/")
    page.get_by_label("Sign-in link or code").wait_for()
    expect(page.get_by_role("link", name="Sign in with GitHub")).to_have_attribute("href", re.compile("/start$"))
    look(me, "01-sign-in")
    page.get_by_label("Sign-in link or code").fill("owner.nonsense")
    page.get_by_role("button", name="Sign in").click()
    me.see("used already or has expired")
    look(me, "02-used-link")
    page.goto("about:blank")
    page.goto(link)
    me.see("Sign this device in")
    look(me, "03-sign-in-by-link")
    page.get_by_role("button", name="Sign in").click()
    me.see("Nothing to do yet")
    look(me, "04-nothing-yet")


def writing(me: Phone, repository: str) -> None:
    page = me.page
    page.get_by_role("link", name="New task").click()
    page.get_by_label("What is to be done?").fill(REPAIR.partition("\n")[0])
    page.get_by_label("Repository", exact=True).fill("https://example.org/you/basket.git")
    look(me, "05-new-task")
    page.get_by_text("Start, branch, model, approvals, limits").click()
    page.get_by_label("Repository", exact=True).fill("/nowhere/at/all")
    page.get_by_label("Dollars").fill("2")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#wrong-repository")).not_to_be_empty()
    look(me, "06-new-task-refused")


def working(me: Phone, repository: str) -> None:
    page = me.page
    me.submit("Wait for the build, then say how long it took.\n\n[scenario: slow] seconds=600", repository)
    expect(page.locator(".out.tail")).to_contain_text("waiting")
    look(me, "07-at-work")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").wait_for()
    look(me, "08-stop")
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator(".outcome")).to_contain_text("Cancelled")
    look(me, "09-cancelled")


def asking(me: Phone, repository: str) -> None:
    me.submit("Paint the front page.\n\n[scenario: ask]", repository)
    me.page.get_by_role("button", name="blue").wait_for()
    look(me, "10-question")


def repairing(me: Phone, repository: str) -> None:
    page = me.page
    me.submit(REPAIR, repository)
    page.locator(".step-what", has_text="unittest").first.wait_for()
    look(me, "11-repair-at-work")
    expect(page.locator(".outcome")).to_contain_text("Done", timeout=120_000)
    look(me, "12-done")
    page.locator(".step:visible summary", has_text="edit").last.click()
    look(me, "13-step-opened")
    page.get_by_role("link", name="changed").click()
    page.locator(".file").first.wait_for()
    look(me, "14-diff")
    page.go_back()
    page.get_by_text("Worked").wait_for()
    look(me, "15-folded")


def failing(me: Phone, repository: str) -> None:
    page = me.page
    page.goto("/#/new")
    page.get_by_label("What is to be done?").fill("Rename everything.\n\n[scenario: tour]")
    page.get_by_label("Repository", exact=True).fill(repository)
    page.get_by_text("Start, branch, model, approvals, limits").click()
    page.get_by_label("Steps").fill("3")
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".outcome")).to_contain_text("Failed", timeout=60_000)
    look(me, "16-limit")


def settings(me: Phone) -> None:
    page = me.page
    page.goto("/#/settings")
    page.get_by_text("This device").last.wait_for()
    look(me, "17-settings")
    page.get_by_role("button", name="Add another device").click()
    page.locator(".qr").wait_for()
    page.locator(".link-text").scroll_into_view_if_needed()
    look(me, "18-another-device")
    page.get_by_role("button", name="Add a secret").click()
    page.get_by_label("Name", exact=True).fill("NPM_TOKEN")
    page.get_by_label("Value", exact=True).fill("short")
    page.get_by_role("button", name="Save secret").click()
    me.see("at least 8 characters")
    look(me, "18-secret")
    page.get_by_label("Value", exact=True).fill("a-token-that-nobody-sees")
    page.get_by_role("button", name="Save secret").click()
    me.see("Every repository")
    expect(page.locator("body")).not_to_contain_text("a-token-that-nobody-sees")
    page.get_by_role("button", name="Forget NPM_TOKEN").click()
    page.get_by_role("button", name="Forget it").click()
    page.get_by_role("button", name="Forget NPM_TOKEN").wait_for(state="detached")


def offline(me: Phone, repository: str) -> None:
    page = me.page
    page.goto("/#/")
    page.get_by_role("link", name="Paint the front page").wait_for()
    look(me, "19-list")
    me.context.set_offline(True)
    page.get_by_role("link", name="New task").click()
    page.get_by_label("What is to be done?").fill("Write down how to release this.")
    page.get_by_label("Repository", exact=True).fill(repository)
    page.get_by_role("button", name="Start").click()
    me.see("Will be sent as soon as")
    page.locator(".toast").wait_for(state="detached")
    look(me, "20-not-sent-yet")
    me.context.set_offline(False)
