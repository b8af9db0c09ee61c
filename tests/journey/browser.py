"""Debian's Chromium as a phone, over a house that is up. It fails on what a page must never do: break, or run against
its own content security policy."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.journey.house import House

PHONE = (
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 "
    "Mobile Safari/537.36"
)
PICTURES = Path("build") / "pictures"
WAIT_MS = 20_000
MISSING = "Chromium is missing: apt-get install chromium"
Scheme = Literal["light", "dark"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips where there is none; fails there with CI=true."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.fail(MISSING) if os.environ.get("CI") == "true" else pytest.skip(MISSING)
    with sync_playwright() as playwright:
        # The sandbox of Chromium needs namespaces of its own, which a CI machine's root may not have.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Phone:
    """A phone of its own, with its own storage."""

    def __init__(self, browser: Browser, house: House, scheme: Scheme = "light") -> None:
        self.house = house
        self.faults: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": 390, "height": 844},
            device_scale_factor=2,
            is_mobile=True,
            has_touch=True,
            color_scheme=scheme,
            user_agent=PHONE,
            base_url=house.ready.server,
        )
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.open()

    def open(self) -> Page:
        """One more tab."""
        page = self.context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "TrustedScript" in message.text:
            self.faults.append(message.text)

    def sign_in(self, link: str = "") -> None:
        self.page.goto(link or new_link(self.house))
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("link", name="New task").wait_for()

    def submit(self, prompt: str, repository: str) -> str:
        """Write a task as a person does; its id, once the server has accepted it."""
        self.page.goto("/#/new")
        self.page.get_by_label("What is to be done?").fill(prompt)
        self.page.get_by_label("Repository", exact=True).fill(repository)
        self.page.get_by_role("button", name="Start").click()
        self.page.wait_for_url("**/#/task/*")
        return self.page.url.rpartition("/")[2]

    def see(self, text: str) -> None:
        """Wait until it is to be seen."""
        self.page.get_by_text(text).first.wait_for()


@contextmanager
def phone(browser: Browser, house: House, scheme: Scheme = "light") -> Iterator[Phone]:
    phone = Phone(browser, house, scheme)
    try:
        yield phone
        assert phone.faults == []
    except Exception as error:
        error.add_note(f"The page said: {phone.faults}; it stands at {phone.page.url}.")
        PICTURES.mkdir(parents=True, exist_ok=True)
        phone.page.screenshot(path=PICTURES / "failure.png")
        raise
    finally:
        phone.context.close()


def new_link(house: House) -> str:
    """A sign-in link, as another device of the owner makes it."""
    request = urllib.request.Request(
        f"{house.ready.server}/api/sign-in-codes",
        data=b"{}",
        headers={"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["link"]


def look(me: Phone, name: str, scheme: Scheme) -> None:
    """Keep a picture of the screen, and let axe look for what somebody could not read or reach."""
    folder = PICTURES / scheme
    folder.mkdir(parents=True, exist_ok=True)
    me.page.screenshot(path=folder / f"{name}.png", animations="disabled")
    found = Axe().run(me.page).response["violations"]
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    told = [(one["id"], node["html"], node["failureSummary"]) for one in bad for node in one["nodes"]]
    assert told == [], f"{name}, {scheme}: {told}"
    wide = me.page.evaluate(
        "[...document.querySelectorAll('body, .body, .dock')].filter(e => e.scrollWidth > e.clientWidth).length"
    )
    assert wide == 0, f"{name}: the screen can be pushed sideways"
