"""The phone's page in a real browser of a phone's size, over the whole house."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from playwright.sync_api import Browser, Route, expect

from gateway.pages import WEB
from protocol.live import decode_server_frame
from services.cli.view import Kind, Line, begin, fold
from tests.journey.browser import Phone, broken_line, chromium, lasting_phone, phone, submit, tasks
from tests.journey.house import House, errand_up
from tests.journey.stream import Message, raw_stream
from tests.journey.test_kills import make_repository
from tests.web import node

pytestmark = pytest.mark.timeout(300)
QUIET = ("todo", "finish", "ask_user")
"""Tool calls that the plan, the outcome and the question's card tell."""


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


def test_what_one_says_steers_the_turn_and_then_opens_the_next(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.submit("[scenario: slow] seconds=4", repository)
        expect(me.page.locator(".out.tail")).to_contain_text("waiting")
        me.say("Be brief.")
        expect(me.page.locator(".said", has_text="Be brief.")).to_have_count(1)
        expect(me.page.locator(".pending li")).to_have_count(0)
        expect(me.page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        me.say("And now once more.")
        expect(me.page.locator(".turn-title")).to_have_text("Turn 2")
        expect(me.page.locator(".outcome")).to_have_count(2, timeout=60_000)
        expect(me.page.locator(".said")).to_have_count(3)


def test_stop_stops_and_says_so(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.submit("[scenario: slow] seconds=600", repository)
        expect(me.page.locator(".out.tail")).to_contain_text("waiting")
        me.page.get_by_role("button", name="Stop").click()
        me.page.get_by_role("button", name="Keep going").click()
        expect(me.page.get_by_role("button", name="Stop")).to_be_enabled()
        me.page.get_by_role("button", name="Stop").click()
        me.page.get_by_role("button", name="Stop it").click()
        expect(me.page.locator(".outcome")).to_contain_text("Cancelled")
        expect(me.page.get_by_role("button", name="Stop")).to_be_hidden()


def test_a_task_that_no_runner_takes_says_so(browser: Browser, house: House, repository: str) -> None:
    submit(house, "Train it. [scenario: noop]", repository, queue="gpu")
    with phone(browser, house) as me:
        nobody = "no runner serves the queue gpu"
        me.wait_for(lambda: nobody in [task.get("waits") for task in tasks(house)])
        me.sign_in()
        row = me.page.get_by_role("link", name="Train it.")
        expect(row).to_contain_text(nobody)
        row.click()
        expect(me.page.locator(".held")).to_contain_text(nobody)
        me.page.get_by_role("button", name="Stop").click()
        me.page.get_by_role("button", name="Stop it").click()
        expect(me.page.locator(".outcome")).to_contain_text("Cancelled")


def test_a_task_is_paused_and_goes_on_by_a_tap(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        page = me.page
        me.submit("[scenario: slow] seconds=2", repository)
        expect(page.locator(".out.tail")).to_contain_text("waiting")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("status").filter(has_text="Paused")).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        page.get_by_role("button", name="Let it go on").click()
        expect(page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_stopped_turn_is_tried_again_and_its_work_forked_by_a_tap(
    browser: Browser, house: House, repository: str
) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        page = me.page
        me.submit("[scenario: slow] seconds=5", repository)
        expect(page.locator(".out.tail")).to_contain_text("waiting")
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Stop it").click()
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".turn-title").last).to_have_text("Turn 2")
        expect(page.locator(".outcome")).to_have_count(2, timeout=60_000)
        page.get_by_role("link", name="Fork").click()
        page.get_by_label("What is to be done?").fill("[scenario: noop] Another way")
        page.get_by_role("button", name="Start").click()
        expect(page.locator(".said")).to_contain_text("Another way")
        expect(page.locator(".outcome")).to_contain_text("Done", timeout=60_000)


def test_a_question_waits_on_top_of_the_list_and_is_answered_by_a_tap(
    browser: Browser, house: House, repository: str
) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.submit("Paint it. [scenario: ask]", repository)
        me.page.get_by_role("button", name="blue").wait_for()
        me.page.get_by_role("link", name="Back").click()
        first = me.page.locator(".group:visible").first
        expect(first).to_contain_text("Which colour?")
        first.get_by_role("link", name="Paint it.").click()
        me.page.get_by_role("button", name="blue").click()
        expect(me.page.locator(".card")).to_have_count(0)
        expect(me.page.locator(".outcome")).to_contain_text("You answered: blue", timeout=60_000)
        expect(me.page.locator(".answer")).to_have_text("blue")


def test_what_the_settings_ask_for_is_approved_by_a_tap_and_denied_with_a_reason(
    browser: Browser, house: House, repository: str
) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        ask_before(me, "Before commands and changes, and the finish")
        me.submit("Step by step. [scenario: steps] steps=2", repository)
        expect(me.page.locator(".asked-input")).to_have_text("echo 1 >> steps.txt; echo step 1")
        me.page.get_by_role("button", name="Approve").click()
        expect(me.page.locator(".asked-input")).to_have_text("echo 2 >> steps.txt; echo step 2")
        me.page.get_by_label("Message").fill("Not this one")
        me.page.get_by_role("button", name="Send").click()
        expect(me.page.locator(".card")).to_contain_text("May I finish?")
        me.page.get_by_role("button", name="Approve").click()
        expect(me.page.locator(".outcome")).to_contain_text("1 file changed", timeout=60_000)
        told = [answer.inner_text() for answer in me.page.locator(".answer").all()]
        assert told == ["Approved", "Denied: Not this one", "Approved"]
        ask_before(me, "Never")


def ask_before(me: Phone, choice: str) -> None:
    me.page.goto("/#/settings")
    with me.page.expect_response("**/api/rules") as answered:
        me.page.get_by_label("Ask me").select_option(choice)
    assert answered.value.ok


def test_a_turn_that_came_to_its_limit_goes_on_with_twice_as_much(
    browser: Browser, house: House, repository: str
) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.page.goto("/#/new")
        me.page.get_by_label("What is to be done?").fill("Too little. [scenario: steps] steps=3")
        me.page.get_by_label("Repository", exact=True).fill(repository)
        me.page.get_by_text("Start, branch, model, approvals, limits").click()
        me.page.get_by_label("Steps").fill("5")
        me.page.get_by_role("button", name="Start").click()
        me.page.get_by_role("button", name="Go on with 10 steps a turn").click(timeout=60_000)
        expect(me.page.locator(".outcome").last).to_contain_text("I made 3 steps", timeout=60_000)


def test_a_question_is_answered_in_own_words_and_by_one_phone(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me, phone(browser, house) as other:
        me.sign_in()
        other.sign_in()
        task = me.submit("Paint it too. [scenario: ask]", repository)
        other.page.goto(f"/#/task/{task}")
        other.page.get_by_role("button", name="red").wait_for()
        me.page.get_by_role("button", name="blue").wait_for()
        me.say("a warm grey")
        expect(other.page.locator(".card")).to_have_count(0)
        expect(other.page.locator(".outcome")).to_contain_text("You answered: a warm grey", timeout=60_000)


def test_of_two_answers_at_once_the_later_phone_alone_reads_that_it_came_too_late(
    browser: Browser, house: House, repository: str
) -> None:
    with phone(browser, house) as me, phone(browser, house) as late:
        me.sign_in()
        late.sign_in()
        task = me.submit("Paint it twice. [scenario: ask]", repository)
        late.page.goto(f"/#/task/{task}")
        late.page.get_by_role("button", name="red").wait_for()
        late.context.set_offline(True)
        late.page.get_by_role("button", name="red").click()
        me.page.get_by_role("button", name="blue").click()
        expect(me.page.locator(".outcome")).to_contain_text("You answered: blue", timeout=60_000)
        late.context.set_offline(False)
        told = late.page.get_by_text("Not done: This question is not open any more")
        expect(told).to_have_count(1, timeout=60_000)
        expect(late.page.locator(".outcome")).to_contain_text("You answered: blue")
        me.page.reload()
        expect(me.page.locator(".outcome")).to_contain_text("You answered: blue")
        expect(me.page.get_by_text("Not done")).to_have_count(0)


def test_a_line_that_breaks_leaves_no_gap_and_no_duplicate(browser: Browser, house: House, repository: str) -> None:
    with broken_line(house) as (line, server), phone(browser, house, server=server) as me:
        me.sign_in()
        task = me.submit("[scenario: steps] steps=60", repository)
        for count in range(10, 51, 10):
            expect(me.page.locator(".step-what", has_text=f"echo {count} ")).to_have_count(1, timeout=60_000)
            line.cut()
        expect(me.page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        expect(me.page.locator(".step-what", has_text="$ echo")).to_have_count(60)
        assert line.connections > 5
        assert me.kept(task) == sequences(house, task)


def test_a_page_that_opens_late_or_again_shows_what_a_running_command_printed(
    browser: Browser, house: House, repository: str
) -> None:
    task = submit(house, "Wait. [scenario: slow] seconds=600", repository)
    with phone(browser, house) as me:
        me.sign_in()
        me.wait_for(lambda: "running" in [each["state"] for each in tasks(house) if each["id"] == task])
        for _ in range(2):
            me.page.goto("about:blank")
            me.page.goto(f"/#/task/{task}")
            expect(me.page.locator(".out.tail")).to_have_text("waiting")
        me.page.get_by_role("button", name="Stop").click()
        me.page.get_by_role("button", name="Stop it").click()
        expect(me.page.locator(".outcome")).to_contain_text("Cancelled")


def test_a_phone_that_slept_is_live_again(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        task = me.submit("[scenario: steps] steps=40", repository)
        expect(me.page.locator(".step-what", has_text="echo 3 ")).to_have_count(1, timeout=60_000)
        me.context.set_offline(True)
        me.see("No network")
        me.context.set_offline(False)
        expect(me.page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        expect(me.page.locator(".net")).to_be_empty()
        assert me.kept(task) == sequences(house, task)


def test_a_line_that_died_in_silence_is_noticed_when_the_phone_wakes(
    browser: Browser, house: House, repository: str
) -> None:
    with broken_line(house) as (line, server), phone(browser, house, server=server) as me:
        me.sign_in()
        task = me.submit("[scenario: steps] steps=30", repository)
        expect(me.page.locator(".step-what", has_text="echo 3 ")).to_have_count(1, timeout=60_000)
        line.freeze()
        me.page.evaluate("dispatchEvent(new Event('focus'))")
        expect(me.page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        assert me.kept(task) == sequences(house, task)


def test_what_was_written_without_a_network_outlives_the_browser_and_goes_out_once(
    browser: Browser, house: House, repository: str, tmp_path: Path
) -> None:
    prompt = "Written in the underground. [scenario: noop]"
    with lasting_phone(browser, house, tmp_path) as me:
        me.sign_in()
        me.installed()
        me.context.set_offline(True)
        me.write(prompt, repository)
        me.see("Will be sent as soon as")
        me.page.reload()
        me.see("Will be sent as soon as")
        me.crash()
    with lasting_phone(browser, house, tmp_path, offline=True) as me:
        me.page.goto("/")
        me.see("Will be sent as soon as")
        me.context.set_offline(False)
        expect(me.page.get_by_role("link", name="Written in the underground.")).to_contain_text("Done", timeout=60_000)
        expect(me.page.locator(".group:visible", has_text="Not sent yet")).to_have_count(0)
        me.page.reload()
        me.page.get_by_role("link", name="Written in the underground.").wait_for()
        assert len([task for task in tasks(house) if task["title"].startswith("Written in the underground.")]) == 1


def test_what_was_written_without_a_network_goes_out_though_the_page_is_closed(
    browser: Browser, house: House, repository: str
) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.installed()
        me.context.set_offline(True)
        me.write("Written, then pocketed. [scenario: noop]", repository)
        me.see("Will be sent as soon as")
        me.page.goto("about:blank")
        me.context.set_offline(False)
        me.sync()
        me.wait_for(lambda: any(task["title"].startswith("Written, then pocketed.") for task in tasks(house)))
        me.page.goto("/")
        me.page.get_by_role("link", name="Written, then pocketed.").wait_for()
        expect(me.page.locator(".group:visible", has_text="Not sent yet")).to_have_count(0)
        assert len([task for task in tasks(house) if task["title"].startswith("Written, then pocketed.")]) == 1


def test_what_is_refused_later_is_told_and_can_be_mended(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.context.set_offline(True)
        me.write("Mend me. [scenario: noop]", "/nowhere/at/all")
        me.see("Will be sent as soon as")
        me.context.set_offline(False)
        me.see("Not taken: There is no git repository")
        me.page.get_by_role("link", name="Edit").click()
        expect(me.page.locator("#wrong-repository")).to_contain_text("no git repository")
        me.page.get_by_label("Repository", exact=True).fill(repository)
        me.page.get_by_role("button", name="Start").click()
        expect(me.page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        me.page.get_by_role("link", name="Back").click()
        expect(me.page.get_by_text("Not taken")).to_have_count(0)


def test_what_is_too_long_is_said_at_once_and_not_lost(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.write("x" * 100_001, repository)
        expect(me.page.locator("#wrong-prompt")).to_contain_text("100001 characters and the limit is 100000")
        assert len(me.page.get_by_label("What is to be done?").input_value()) == 100_001
        me.page.goto("/#/")
        expect(me.page.locator(".group:visible", has_text="Not sent yet")).to_have_count(0)


def test_a_double_tap_makes_one_task(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.fill_in("Tapped twice. [scenario: noop]", repository)
        me.page.get_by_role("button", name="Start").evaluate("button => { button.click(); button.click(); }")
        expect(me.page.locator(".outcome")).to_contain_text("Done", timeout=60_000)
        me.page.goto("/#/")
        expect(me.page.get_by_role("link", name="Tapped twice.")).to_contain_text("Done")
        expect(me.page.locator(".group:visible", has_text="Not sent yet")).to_have_count(0)
        assert len([task for task in tasks(house) if task["title"].startswith("Tapped twice.")]) == 1


def test_nothing_that_a_model_says_acts_on_the_page(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        asked: list[str] = []
        me.page.on("request", lambda request: asked.append(request.url))
        me.page.on("dialog", lambda dialog: me.faults.append(f"dialog: {dialog.message}"))
        me.sign_in()
        me.submit("<b onclick='window.hacked=1'>Hostile</b> [scenario: hostile]", repository)
        me.page.locator(".choice").first.click(timeout=60_000)
        expect(me.page.locator(".outcome")).to_contain_text("onerror", timeout=60_000)
        for step in me.page.locator(".step:visible > summary").all():
            step.click()
        me.page.get_by_role("button", name="Show all").first.click()
        expect(me.page.locator(".step-body .c2")).to_have_text("green")
        links = me.page.locator(".prose a").evaluate_all("links => links.map(link => link.href)")
        assert links
        assert all(link.startswith("https://") and "@" not in link for link in links)
        expect(me.page.locator(".leads").first).to_contain_text("evil.example")
        assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", me.page.locator("#app").inner_text())
        assert me.page.evaluate("document.body.scrollWidth <= innerWidth")
        me.page.get_by_role("link", name="changed").click()
        expect(me.page.locator(".file")).to_contain_text("onerror")
        me.page.goto("/#/")
        expect(me.page.get_by_role("link", name="Hostile")).to_contain_text("<b onclick")
        assert me.page.evaluate("window.hacked") is None
        assert [url for url in asked if not url.startswith((house.ready.server, "data:"))] == []


def test_signing_out_leaves_nothing_behind(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.submit("Private. [scenario: noop]", repository)
        expect(me.page.locator(".outcome")).to_be_visible(timeout=60_000)
        me.page.goto("/#/settings")
        me.page.get_by_role("button", name="Sign this device out").click()
        me.page.get_by_role("button", name="Sign out", exact=True).last.click()
        me.page.get_by_label("Sign-in link or code").wait_for()
        assert me.everything_kept() == "{}"


def test_a_device_that_was_signed_out_says_so_and_forgets(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me, phone(browser, house) as other:
        me.sign_in()
        other.sign_in()
        other.page.goto("/#/settings")
        other.page.get_by_role("button", name="Sign out Android phone, Chrome").last.click()
        other.page.get_by_role("button", name="Sign it out").click()
        me.see("This device was signed out")
        assert me.everything_kept() == "{}"


def test_a_push_is_shown_and_its_tap_leads_to_the_task(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        task = me.submit("Tell me. [scenario: noop]", repository)
        me.page.goto("/#/")
        me.installed()
        me.push({"title": "Done: Tell me.", "body": "branch", "tag": task, "url": f"/#/task/{task}"})
        shown = me.notifications()
        assert shown == [{"title": "Done: Tell me.", "body": "branch", "tag": task, "url": f"/#/task/{task}"}]
        me.push({"title": "Again", "body": "", "tag": task, "url": f"/#/task/{task}"})
        assert [one["title"] for one in me.notifications()] == ["Again"], "the newest replaces the one before"


def sequences(house: House, task: str) -> list[int]:
    """Of all the task's events, by the stream itself."""
    return [message.sequence for message in stored(house, task)]


def stored(house: House, task: str) -> list[Message]:
    with start_blocking_portal() as portal:
        return portal.call(raw_stream, house.data, task)


def test_older_tasks_come_by_scrolling(browser: Browser, house: House, repository: str) -> None:
    for number in range(40):
        submit(house, f"Older {number}. [scenario: noop]", repository)
    with phone(browser, house) as me:
        me.wait_for(lambda: len([task for task in tasks(house) if task["title"].startswith("Older ")]) == 40)
        known = len(tasks(house))
        me.sign_in()
        rows = me.page.locator("a.row")
        assert rows.count() < known
        me.wait_for(
            lambda: me.page.locator(".body").evaluate("e => e.scrollTop = e.scrollHeight") and rows.count() == known
        )
        expect(me.page.locator(".end .ring")).to_have_count(0)


def test_the_page_and_the_terminal_tell_the_same_of_every_task(browser: Browser, house: House, repository: str) -> None:
    with phone(browser, house) as me:
        me.sign_in()
        me.submit("[scenario: tour] For both", repository)
        expect(me.page.locator(".outcome")).to_be_visible(timeout=60_000)
    known = [task["id"] for task in tasks(house)]
    assert known
    for task in known:
        frames = [as_frame(task, message) for message in stored(house, task)]
        assert steps_on_the_page(frames) == steps_in_the_terminal(task, frames), task


def as_frame(task: str, message: Message) -> dict[str, Any]:
    """As the gateway sends it."""
    name, body = ("journal_seen", "entry") if message.source == "journal" else ("decision_seen", "decision")
    return {"type": name, "task": task, "sequence": message.sequence, "previous": 0, body: message.body}


def steps_in_the_terminal(task: str, frames: list[dict[str, Any]]) -> tuple[str, list[tuple[str, str, str]]]:
    """The state it ends in; each tool call that ended, how, and its note."""
    view, told = begin(task), list[Line]()
    for frame in frames:
        view, lines = fold(view, decode_server_frame(json.dumps(frame)))
        told.extend(lines)
    steps = [line for line in told if line.kind is Kind.STEP and line.text != "model"]
    return view.task.state.value, sorted((line.text, line.mark, line.note) for line in steps)


def steps_on_the_page(frames: list[dict[str, Any]]) -> tuple[str, list[tuple[str, str, str]]]:
    done = node.run(node.HERE / "fold.mjs", WEB, told=json.dumps(frames))
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    items = [item for turn in shown["turns"] for item in turn["items"] if item["kind"] == "used"]
    ended = [item for item in items if item["note"] and (item["name"] not in QUIET or item["mark"] == "failed")]
    return shown["state"], sorted((item["what"], item["mark"], item["note"]) for item in ended)


def test_a_network_that_changes_while_the_page_loads_leaves_no_blank_page(browser: Browser, house: House) -> None:
    with phone(browser, house) as me:
        broken = ["start.js", "fold.js", "units.js"]

        def once(route: Route) -> None:
            if broken and route.request.url.endswith(broken[0]):
                broken.pop(0)
                route.abort("connectionreset")
            else:
                route.continue_()

        me.page.route("**/web/**", once)
        me.sign_in()
        assert broken == []
