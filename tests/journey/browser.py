"""Debian's Chromium as a phone, over a house that is up. It fails on what a page must never do: break, or run against
its own content security policy."""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from anyio.from_thread import BlockingPortal, start_blocking_portal
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, sync_playwright

from tests.journey.cut_line import CutLine, cut_line
from tests.journey.house import House
from tests.missing import missing

PHONE = (
    "Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 "
    "Mobile Safari/537.36"
)
PICTURES = Path("build") / "pictures"
FOR_DOCS = {("19-list", "light"), ("11-repair-at-work", "light"), ("10-question", "dark"), ("15-folded", "dark")}
"""`PICTURES=docs` makes these anew for the documentation."""
WAIT_MS = 20_000
POLL_MS = 50
MISSING = "Chromium is missing: apt-get install chromium"
FLAGS = ("--no-sandbox",)
"""The sandbox of Chromium needs namespaces of its own, which a CI machine's root may not have."""
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("dark", "light")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Skips where there is none; fails there with CI=true."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def program() -> str:
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        missing(MISSING)
    return found


class Phone:
    """A phone of its own, with its own storage."""

    def __init__(self, context: BrowserContext, house: House) -> None:
        self.house = house
        self.faults: list[str] = []
        self.lost: list[str] = []
        """Requests without an answer: no fault by themselves, for a test may cut the network."""
        self.context = context
        self.context.set_default_timeout(WAIT_MS)
        self.page = context.pages[0] if context.pages else context.new_page()
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("requestfailed", lambda asked: self.lost.append(f"{asked.url}: {asked.failure}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text or "TrustedScript" in message.text:
            self.faults.append(message.text)

    # As a person does it

    def sign_in(self, link: str = "") -> None:
        code = (link or new_link(self.house)).partition("#")[2]
        self.page.goto(f"/#{code}")
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("link", name="New task").wait_for()

    def fill_in(self, prompt: str, repository: str) -> None:
        """A task, ready to be sent."""
        self.page.goto("/#/new")
        self.page.get_by_label("What is to be done?").fill(prompt)
        self.page.get_by_label("Repository", exact=True).fill(repository)

    def write(self, prompt: str, repository: str) -> None:
        """A task, and send it off."""
        self.fill_in(prompt, repository)
        self.page.get_by_role("button", name="Start").click()

    def submit(self, prompt: str, repository: str) -> str:
        """Its id, once the server has accepted it."""
        self.write(prompt, repository)
        self.page.wait_for_url("**/#/task/*")
        return self.page.url.rpartition("/")[2]

    def say(self, text: str) -> None:
        self.page.get_by_label("Message").fill(text)
        self.page.get_by_role("button", name="Send").click()

    def see(self, text: str) -> None:
        """Wait until it is to be seen."""
        self.page.get_by_text(text).first.wait_for()

    # What a person cannot see

    def installed(self) -> None:
        """Wait until the page works without a network."""
        self.page.evaluate("navigator.serviceWorker.ready")
        self.until("() => navigator.serviceWorker.controller !== null")

    def until(self, script: str, *given: Any) -> None:
        """Wait until a function of the page says true. Playwright's own way would need `eval` there."""
        self.wait_for(lambda: self.page.evaluate(script, *given))

    def wait_for(self, holds: Callable[[], bool]) -> None:
        for _ in range(WAIT_MS // POLL_MS):
            if holds():
                return
            self.page.wait_for_timeout(POLL_MS)
        raise AssertionError("it never came to hold")

    def kept(self, task: str) -> list[int]:
        """The sequences of a task's events as they are on the device, once the page has left the task."""
        self.page.goto("/#/")
        self.page.get_by_role("link", name="New task").wait_for()
        return self.page.evaluate(KEPT, task)

    def everything_kept(self) -> str:
        return self.page.evaluate(EVERYTHING)

    def push(self, message: dict[str, str]) -> None:
        """As if it came from the browser maker's push service."""
        self.context.grant_permissions(["notifications"])
        self._to_worker("deliverPushMessage", data=json.dumps(message))
        self.until(SHOWN, message["title"])

    def sync(self) -> None:
        """As the browser does once the network is back, whether the page is open or not."""
        self._to_worker("dispatchSyncEvent", tag="outbox", lastChance=False)

    def _to_worker(self, command: str, **given: Any) -> None:
        devtools = self.context.new_cdp_session(self.page)
        found: list[str] = []
        devtools.on("ServiceWorker.workerRegistrationUpdated", lambda told: found.extend(ids(told)))
        devtools.send("ServiceWorker.enable")
        while not found:
            self.page.wait_for_timeout(POLL_MS)
        given |= {"origin": self.house.ready.server, "registrationId": found[-1]}
        devtools.send(f"ServiceWorker.{command}", given)

    def notifications(self) -> list[dict[str, str]]:
        return self.page.evaluate(NOTIFICATIONS)

    def crash(self) -> None:
        """The browser dies in the middle of everything."""
        with suppress(Error):
            self.context.new_cdp_session(self.page).send("Browser.crash")


def ids(told: dict[str, Any]) -> list[str]:
    return [registration["registrationId"] for registration in told["registrations"]]


KEPT = """task => new Promise((resolve, reject) => {
  const asked = indexedDB.open("errand");
  asked.onerror = () => reject(asked.error);
  asked.onsuccess = () => {
    const range = IDBKeyRange.bound([task, 0], [task, Infinity]);
    const keys = asked.result.transaction("events").objectStore("events").getAllKeys(range);
    keys.onsuccess = () => { asked.result.close(); resolve(keys.result.map(key => key[1])); };
  };
})"""
EVERYTHING = """() => new Promise((resolve, reject) => {
  const asked = indexedDB.open("errand");
  asked.onsuccess = () => {
    const found = {...localStorage, ...sessionStorage};
    const names = [...asked.result.objectStoreNames];
    const reading = asked.result.transaction(names);
    for (const name of names) {
      const all = reading.objectStore(name).getAll();
      all.onsuccess = () => { if (all.result.length) found[name] = all.result; };
    }
    reading.oncomplete = () => { asked.result.close(); resolve(JSON.stringify(found)); };
  };
})"""
NOTIFICATIONS = """async () => {
  const shown = await (await navigator.serviceWorker.ready).getNotifications();
  return shown.map(({title, body, tag, data}) => ({title, body, tag, url: data.url}));
}"""
SHOWN = """async title => {
  const shown = await (await navigator.serviceWorker.ready).getNotifications();
  return shown.some(one => one.title === title);
}"""


def settings(server: str) -> dict[str, Any]:
    """Of a context that is a phone."""
    return {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
        "color_scheme": "light",
        "user_agent": PHONE,
        "base_url": server,
    }


@contextmanager
def phone(browser: Browser, house: House, server: str = "") -> Iterator[Phone]:
    """A phone that comes by `server`, if not by the house's own address."""
    with _phone(browser.new_context(**settings(server or house.ready.server)), house) as me:
        yield me


@contextmanager
def lasting_phone(browser: Browser, house: House, folder: Path, *, offline: bool = False) -> Iterator[Phone]:
    """A browser of its own that keeps what it has in a folder, as a phone does."""
    given = settings(house.ready.server) | {"offline": offline}
    launch = browser.browser_type.launch_persistent_context
    context = launch(folder / "profile", executable_path=program(), args=FLAGS, **given)
    context.add_init_script("delete ServiceWorkerRegistration.prototype.sync")  # Safari and Firefox have none
    with _phone(context, house) as me:
        yield me


@contextmanager
def _phone(context: BrowserContext, house: House) -> Iterator[Phone]:
    me = Phone(context, house)
    try:
        yield me
        assert me.faults == []
    except Exception as error:
        error.add_note(f"The page said: {me.faults}; it stands at {me.page.url}; requests lost: {me.lost}.")
        with suppress(Error):
            error.add_note(f"It shows:\n{me.page.locator('body').inner_text(timeout=POLL_MS * 20)[-2000:]}")
        PICTURES.mkdir(parents=True, exist_ok=True)
        with suppress(Error):
            me.page.screenshot(path=PICTURES / "failure.png")
        raise
    finally:
        with suppress(Error):
            context.close()


@contextmanager
def broken_line(house: House) -> Iterator[tuple[BrokenLine, str]]:
    """A line to the house that breaks when told to, and the address through it."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(cut_line(house.ready.server)) as (line, server),
    ):
        yield BrokenLine(portal, line), server


class BrokenLine:
    """A `CutLine` in a thread of its own: the browser is driven without a loop."""

    def __init__(self, portal: BlockingPortal, line: CutLine) -> None:
        self._portal = portal
        self._line = line

    @property
    def connections(self) -> int:
        return self._line.connections

    def cut(self) -> None:
        self._portal.call(self._line.cut)

    def freeze(self) -> None:
        self._portal.call(self._line.freeze)


def submit(house: House, prompt: str, repository: str, **settings: object) -> str:
    """From another device of the owner's; the task's id."""
    body = {"prompt": prompt, "repository": repository, "key": prompt.replace(" ", "-"), **settings}
    request = urllib.request.Request(
        f"{house.ready.server}/api/tasks/",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return str(json.load(answer)["task"])


def tasks(house: House) -> list[dict[str, Any]]:
    """All of the owner's."""
    request = urllib.request.Request(
        f"{house.ready.server}/api/tasks/?limit=200", headers={"Authorization": f"Bearer {house.token}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["tasks"]


def new_link(house: House) -> str:
    """A sign-in link, as another device of the owner makes it."""
    request = urllib.request.Request(
        f"{house.ready.server}/api/sign-in-codes",
        data=b"{}",
        headers={"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["link"]


def look(me: Phone, name: str) -> None:
    """Keep a picture of the screen, light and dark, and let axe look for what somebody could not read or reach."""
    for scheme in SCHEMES:
        me.page.emulate_media(color_scheme=scheme)
        look_at(me, name, scheme)


def look_at(me: Phone, name: str, scheme: Scheme) -> None:
    folder = PICTURES / scheme
    folder.mkdir(parents=True, exist_ok=True)
    me.page.screenshot(path=folder / f"{name}.png", animations="disabled")
    if (name, scheme) in FOR_DOCS and os.environ.get("PICTURES") == "docs":
        me.page.screenshot(path=f"docs/pictures/page-{name[3:]}.png", animations="disabled", scale="css")
    found = Axe().run(me.page).response["violations"]
    bad = [one for one in found if one["impact"] in ("serious", "critical")]
    told = [(one["id"], node["html"], node["failureSummary"]) for one in bad for node in one["nodes"]]
    assert told == [], f"{name}, {scheme}: {told}"
    wide = me.page.evaluate(
        "[...document.querySelectorAll('body, .body, .dock, .sub')].filter(e => e.scrollWidth > e.clientWidth).length"
    )
    assert wide == 0, f"{name}: the screen can be pushed sideways"
