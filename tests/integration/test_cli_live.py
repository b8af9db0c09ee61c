"""The client against a small gateway that speaks the frames and breaks on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from click.testing import CliRunner, Result

from protocol import journal, live, task
from protocol.base import encode
from protocol.ids import task_id
from protocol.live import AnyClientFrame, AnyServerFrame, decode_client_frame
from services.cli import errand
from services.cli.account import Account, save, stored

TOKEN = "the-token"
TASK = task_id("owner", "key-1")
START = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
HELLO = live.SignedIn(user="owner", name="owner", role="owner", notices=("The model is scripted, not Claude.",))


class Hung(Exception):
    """The client has closed its end."""


class Phone:
    """The gateway's end of one socket."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        self._receive = receive
        self._send = send

    async def hear(self) -> AnyClientFrame:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise Hung
        return decode_client_frame(message["text"])

    async def say(self, *frames: AnyServerFrame) -> None:
        for frame in frames:
            await self._send({"type": "websocket.send", "text": encode(frame).decode()})

    async def say_raw(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})

    async def welcome(self) -> None:
        assert await self.hear() == live.SignIn(token=TOKEN)
        await self.say(HELLO)

    async def until_hung(self) -> None:
        while True:
            await self.hear()


Script = Callable[[Phone], Awaitable[None]]
"""What happens on one socket; when it returns, the socket is closed."""


class Gateway:
    """A server on a free port. Each socket plays the next of `scripts`; each request is answered from `answers`."""

    def __init__(self) -> None:
        self.url = ""
        self.reset()

    def reset(self) -> None:
        self.scripts: list[Script] = []
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        self.authorizations: list[str] = []
        self.failures: list[BaseException] = []

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.authorizations.append(dict(scope["headers"]).get(b"authorization", b"").decode())
        self.asked.append(
            (scope["method"], scope["path"], json.loads(body) if body else scope["query_string"].decode())
        )
        status, answer = self.answers.get((scope["method"], scope["path"]), (404, {"error": "There is no such task."}))
        data = answer if isinstance(answer, bytes) else encode(answer)
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(data))]}
        )
        await send({"type": "http.response.body", "body": data})

    async def _socket(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/api/live"
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await self.scripts.pop(0)(Phone(receive, send))
        except Hung:
            return
        except BaseException as error:
            self.failures.append(error)
        with contextlib.suppress(RuntimeError):
            await send({"type": "websocket.close", "code": 1012, "reason": "restarting"})


@pytest.fixture(scope="module")
def server() -> Iterator[Gateway]:
    gateway = Gateway()
    with serving(gateway):
        yield gateway


@pytest.fixture
def gateway(server: Gateway) -> Iterator[Gateway]:
    server.reset()
    yield server
    assert server.failures == []
    assert server.scripts == []


@contextlib.contextmanager
def serving(gateway: Gateway) -> Iterator[None]:
    config = uvicorn.Config(
        gateway.app, port=0, log_level="error", lifespan="off", interface="asgi3", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    started = threading.Event()
    ended: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        serve = asyncio.create_task(server.serve())
        while not server.started and not serve.done():
            await asyncio.sleep(0)
        gateway.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        ended.append(asyncio.get_running_loop())
        started.set()
        await serve

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    started.wait(10)
    try:
        yield
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)


@pytest.fixture
def data(tmp_path: Path, gateway: Gateway) -> Path:
    save(tmp_path, Account(server=gateway.url, token=TOKEN))
    return tmp_path


def run(data: Path, *arguments: str, typed: str | None = None, **environment: str) -> Result:
    settings = {"ERRAND_DATA": str(data), "ERRAND_SERVER": "", "ERRAND_TOKEN": "", **environment}
    return CliRunner().invoke(errand, list(arguments), input=typed, env=settings)


# A story: a task from its submission to its end, as a gateway would tell it.


def decided(
    sequence: int, previous: int, state: task.TaskState, *events: task.AnyTaskEvent, **rest: Any
) -> live.DecisionSeen:
    decision = task.Decision(at=START + timedelta(seconds=sequence), state=state, events=events, **rest)
    return live.DecisionSeen(task=TASK, sequence=sequence, previous=previous, decision=decision)


def wrote(sequence: int, previous: int, event: journal.AnyJournalEvent) -> live.JournalSeen:
    entry = journal.JournalEntry(attempt=1, at=START + timedelta(seconds=sequence), event=event)
    return live.JournalSeen(task=TASK, sequence=sequence, previous=previous, entry=entry)


def story() -> list[live.DecisionSeen | live.JournalSeen]:
    running, succeeded = task.TaskState.RUNNING, task.TaskState.SUCCEEDED
    usage = task.Usage(input_tokens=1200, output_tokens=80, cost_usd=0.0042)
    call = journal.ToolCall(id="c1", name="bash", input={"command": "python -m unittest"})
    reply = journal.ModelReply(
        content=(
            {"type": "text", "text": "I run the tests."},
            {"type": "tool_use", "id": "c1", "name": "bash", "input": {}},
        ),
        stop_reason="tool_use",
        usage=usage,
    )
    published = task.Published(
        branch="errand/x-hello", commit="c" * 40, base_commit="b" * 40, pushed_to="/srv/repo.git",
        files_changed=1, insertions=3, deletions=1,
    )  # fmt: skip
    return [
        decided(10, 0, task.TaskState.QUEUED,
                task.TaskSubmitted(prompt="Say hello", repository="/srv/repo.git", title="Hello"),
                receipt=task.Receipt(key="key-1", status=task.ReceiptStatus.CONSUMED), command_sequence=9),
        decided(11, 10, running, task.AttemptClaimed(attempt=1, turn=1, runner="r1", request="q1")),
        wrote(12, 11, journal.AttemptStarted(turn=1, base_commit="b" * 40, branch="errand/x-hello", model="scripted",
                                             sandbox="bubblewrap", scripted=True)),
        wrote(13, 12, journal.StepStarted(step=1, action=journal.ModelCall(messages_read=(0,)))),
        wrote(15, 13, journal.StepFinished(step=1, result=reply, duration_seconds=1.25)),
        wrote(16, 15, journal.StepStarted(step=2, action=call)),
        wrote(17, 16, journal.StepFinished(step=2, duration_seconds=0.5, result=journal.ToolResult(
            text="test_one ... FAIL\nRan 1 test in 0.001s\n[exit code 1]", exit_code=1))),
        decided(20, 11, succeeded, task.AttemptEnded(attempt=1, how="finished", usage=usage),
                task.TurnEnded(turn=1, outcome=succeeded, summary="I said hello.", published=published, usage=usage),
                journal_sequence=17),
    ]  # fmt: skip


def cursor_of(frame: AnyClientFrame) -> int:
    assert isinstance(frame, live.WatchTask)
    assert frame.task == TASK
    return frame.cursor


def tells(frames: Sequence[AnyServerFrame], *, expects: int, caught_up: bool = True) -> Script:
    """Sign in, be watched from the cursor `expects`, tell `frames`."""

    async def script(phone: Phone) -> None:
        await phone.welcome()
        assert cursor_of(await phone.hear()) == expects
        await phone.say(*frames)
        if caught_up:
            await phone.say(live.CaughtUp(task=TASK, cursor=20))
            await phone.until_hung()

    return script


STORY_LINES = """\
! The model is scripted, not Claude.
> Say hello
· /srv/repo.git
· taken by runner r1
· errand/x-hello from bbbbbbbbbb, bubblewrap
✓ model  ($0.0042 · 1.3k tokens · 1.2 s)
  I run the tests.
✗ $ python -m unittest  (exit 1 · 0.5 s)
    test_one ... FAIL
    Ran 1 test in 0.001s
✓ succeeded  (in 10.0 s)
  I said hello.
  branch:    errand/x-hello
  pushed to: /srv/repo.git
  changed:   1 file, +3 -1
  cost:      $0.0042 · 1.3k tokens · 2 steps
! The model is scripted, not Claude.
"""


def test_a_watch_shows_the_whole_task_as_plain_lines_in_a_pipe(gateway: Gateway, data: Path) -> None:
    gateway.scripts = [tells(story(), expects=0)]
    result = run(data, "watch", TASK)
    assert result.output == STORY_LINES
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("breaks", "reason"),
    [
        ([1], "after the first event"),
        ([3, 5], "twice, in the middle of a step"),
        ([8], "after the last event, before caught up"),
        ([0, 0, 4], "before any event, twice"),
    ],
)
def test_a_watch_comes_back_from_its_cursor_without_gap_or_duplicate(
    gateway: Gateway, data: Path, breaks: list[int], reason: str
) -> None:
    frames, told = story(), 0
    for end in breaks:
        gateway.scripts.append(
            tells(frames[told:end], expects=frames[told - 1].sequence if told else 0, caught_up=False)
        )
        told = max(told, end)
    gateway.scripts.append(tells(frames[told:], expects=frames[told - 1].sequence if told else 0))
    result = run(data, "watch", TASK)
    assert [line for line in result.output.splitlines() if "connection lost" not in line] == STORY_LINES.splitlines()
    assert "· connection lost (restarting), coming back" in result.output, reason
    assert result.exit_code == 0


def test_a_repeated_event_is_shown_once(gateway: Gateway, data: Path) -> None:
    frames = story()
    gateway.scripts = [tells([*frames[:4], *frames[1:6], *frames[5:]], expects=0)]
    assert run(data, "watch", TASK).output == STORY_LINES


@pytest.mark.parametrize(("left_out", "cursor"), [(4, 13), (6, 16), (1, 10)])
def test_a_missing_event_is_asked_for_again(gateway: Gateway, data: Path, left_out: int, cursor: int) -> None:
    frames = story()
    without = frames[:left_out] + frames[left_out + 1 :]
    gateway.scripts = [tells(without, expects=0), tells(frames[left_out:], expects=cursor)]
    result = run(data, "watch", TASK)
    assert [line for line in result.output.splitlines() if "connection lost" not in line] == STORY_LINES.splitlines()


def test_events_that_the_server_never_sends_end_the_watch_with_a_reason(gateway: Gateway, data: Path) -> None:
    frames = story()
    gateway.scripts = [tells([*frames[:4], frames[5]], expects=0)] + [tells([frames[5]], expects=13)] * 3
    result = run(data, "watch", TASK)
    assert "leaves out events of this task between 13 and 16" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(task.TaskState.SUCCEEDED, 0), (task.TaskState.FAILED, 1), (task.TaskState.CANCELLED, 2)],
)
def test_the_exit_code_of_a_watch_is_the_outcome(
    gateway: Gateway, data: Path, outcome: task.TaskState, code: int
) -> None:
    end = decided(20, 11, outcome, task.TurnEnded(turn=1, outcome=outcome, reason="For a reason."))
    gateway.scripts = [tells([*story()[:-1], end], expects=0)]
    result = run(data, "watch", TASK)
    assert result.exit_code == code
    assert "reason:    For a reason." in result.output


def test_an_earlier_turn_does_not_end_the_watch(gateway: Gateway, data: Path) -> None:
    more = [
        decided(30, 20, task.TaskState.QUEUED, task.MessageSent(message=1, text="More"), task.TurnOpened(turn=2)),
        decided(
            31, 30, task.TaskState.FAILED, task.TurnEnded(turn=2, outcome=task.TaskState.FAILED, reason="Too hard.")
        ),
    ]
    gateway.scripts = [tells([*story(), *more], expects=0)]
    result = run(data, "watch", TASK)
    assert result.exit_code == 1
    assert "> More" in result.output


def test_json_is_the_frames_as_received(gateway: Gateway, data: Path) -> None:
    frames = story()
    gateway.scripts = [tells([*frames[:3], frames[2], *frames[3:]], expects=0)]
    result = run(data, "watch", TASK, "--json")
    caught_up = live.CaughtUp(task=TASK, cursor=20)
    assert result.stdout.splitlines() == [encode(frame).decode() for frame in (HELLO, *frames, caught_up)]


def test_hostile_text_steers_no_terminal_and_reads_no_markup(gateway: Gateway, data: Path) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m[bold red]red[/]\u202eabc\x00\x08\r"
    frames = [
        decided(10, 0, task.TaskState.QUEUED, task.TaskSubmitted(prompt=evil, repository=evil, title=evil)),
        decided(20, 10, task.TaskState.FAILED, task.TurnEnded(turn=1, outcome=task.TaskState.FAILED, reason=evil)),
    ]
    gateway.scripts = [tells(frames, expects=0)] * 2
    lines = run(data, "watch", TASK).output
    assert "> [bold red]red[/]abc\n" in lines
    assert not any((ord(char) < 32 and char != "\n") or 0x7F <= ord(char) < 0xA0 or char == "\u202e" for char in lines)
    raw = run(data, "watch", TASK, "--json").stdout
    assert json.loads(raw.splitlines()[1])["decision"]["events"][0]["prompt"] == evil
    assert not any((ord(char) < 32 and char != "\n") or 0x7F <= ord(char) < 0xA0 or char == "\u202e" for char in raw)


def accepts(frames: list[Any], *, break_after: str = "", receipt: task.Receipt | None = None) -> Script:
    """Take one command; the connection breaks after it was `heard` or `accepted`, or it has its receipt."""

    async def script(phone: Phone) -> None:
        await phone.welcome()
        command = await phone.hear()
        frames.append(command)
        assert isinstance(command, live.CommandFrame)
        if break_after == "heard":
            return
        await phone.say(live.Accepted(key=command.key, task=TASK, sequence=9))
        if break_after == "accepted":
            return
        ended = receipt or task.Receipt(key=command.key, status=task.ReceiptStatus.CONSUMED)
        await phone.say(live.ReceiptSeen(task=TASK, receipt=ended))
        with contextlib.suppress(Hung):
            frames.append(await phone.hear())
            await phone.say(*story(), live.CaughtUp(task=TASK, cursor=20))
            await phone.until_hung()

    return script


@pytest.mark.parametrize("breaks", [[], ["heard"], ["accepted"], ["heard", "accepted", "heard"]])
def test_a_submit_is_sent_again_with_its_key_until_its_receipt_came(
    gateway: Gateway, data: Path, breaks: list[str]
) -> None:
    sent: list[Any] = []
    gateway.scripts = [accepts(sent, break_after=end) for end in breaks] + [accepts(sent)]
    result = run(
        data, "submit", "Say hello", "--repo", "https://example.org/x.git", "--budget-usd", "unlimited", "--json"
    )
    assert result.exit_code == 0, result.output
    assert len(sent) == len(breaks) + 1
    assert {encode(frame) for frame in sent} == {encode(sent[0])}
    assert json.loads(result.stdout) == {"task": TASK, "key": sent[0].key, "sequence": 9}
    assert sent[0].budget == task.Budget(money_usd=None)


def test_a_submit_follows_the_task_when_asked_to(gateway: Gateway, data: Path) -> None:
    sent: list[Any] = []
    gateway.scripts = [accepts(sent)]
    gateway.answers = {("GET", f"/api/tasks/{TASK}"): (200, {"task": {"id": TASK, "prompt": "Say hello\n"}})}
    result = run(data, "submit", "-", "--repo", "/srv/repo.git", "--watch", "--key", "key-1", typed="Say hello\n")
    assert result.output == f"task {TASK}\n{STORY_LINES}"
    assert sent == [
        live.Submit(key="key-1", prompt="Say hello\n", repository="/srv/repo.git"),
        live.WatchTask(task=TASK),
    ]
    known = stored(data)
    assert known is not None
    assert known.seen == 20


@pytest.mark.parametrize("flag", ["--pull-request", "--no-pull-request"])
def test_a_task_says_whether_it_wants_a_pull_request(gateway: Gateway, data: Path, flag: str) -> None:
    sent: list[Any] = []
    gateway.scripts = [accepts(sent)]
    result = run(data, "submit", "Say hello", "--repo", "https://example.org/x.git", flag, "--json")
    assert (result.exit_code, sent[0].pull_request) == (0, flag == "--pull-request"), result.output


@pytest.mark.parametrize(
    ("arguments", "frame"),
    [
        (["message", TASK, "Use tabs"], live.Say(key="k", task=TASK, text="Use tabs")),
        (["cancel", TASK, "--reason", "Wrong"], live.Cancel(key="k", task=TASK, reason="Wrong")),
        (["pause", TASK, "--reason", "Later"], live.Pause(key="k", task=TASK, reason="Later")),
        (["resume", TASK[:6]], live.Resume(key="k", task=TASK)),
        (
            ["tag", TASK, "bug", "ui", "--remove", "wip", "--meta", "for=Ann", "--unset", "ticket"],
            live.Tag(key="k", task=TASK, add=("bug", "ui"), remove=("wip",), metadata={"for": "Ann", "ticket": None}),
        ),
        (["fork", TASK, "Go another way"], live.Submit(key="k", prompt="Go another way", fork_of=TASK)),
        (["retry", TASK], live.Retry(key="k", task=TASK)),
        (["answer", TASK, "2"], live.Answer(key="k", task=TASK, question="question_3", text="blue")),
        (["answer", "green"], live.Answer(key="k", task=TASK, question="question_3", text="green")),
        (["answer", TASK[:6], "red"], live.Answer(key="k", task=TASK, question="question_3", text="red")),
        (["approve"], live.Approve(key="k", task=TASK, question="question_3")),
        (["deny", TASK, "use make"], live.Deny(key="k", task=TASK, question="question_3", reason="use make")),
        (
            ["budget", TASK[:6], "--usd", "5", "--steps", "unlimited"],
            live.ChangeBudget(key="k", task=TASK, budget=task.Budget(money_usd=5.0, steps=None)),
        ),
    ],
)
def test_a_command_waits_for_its_receipt(
    gateway: Gateway, data: Path, arguments: list[str], frame: live.Answer
) -> None:
    line = {"id": TASK, "title": "x", "state": "waiting", "repository": "r", "created_at": "", "updated_at": ""}
    question = {"id": "question_3", "text": "Which colour?", "choices": ["red", "blue"]}
    gateway.answers = {
        ("GET", "/api/tasks"): (200, {"type": "task_list", "tasks": [line]}),
        ("GET", f"/api/tasks/{TASK}"): (200, {"task": {"id": TASK, "user": "owner", "question": question}}),
    }
    sent: list[Any] = []
    rejected = task.Receipt(key="k", status=task.ReceiptStatus.REJECTED, reason="The turn is over.")
    gateway.scripts = [accepts(sent), accepts(sent, receipt=rejected)]
    result = run(data, *arguments, "--key", "k", "--json")
    assert (result.exit_code, sent) == (0, [frame]), result.output
    result = run(data, *arguments, "--key", "k")
    assert (result.exit_code, result.output) == (1, "errand: The turn is over.\n")


def test_many_tasks_are_steered_by_a_filter_and_told_how_each_took_it(gateway: Gateway, data: Path) -> None:
    done = [{"task": TASK, "status": "consumed", "reason": ""}, {"task": "t2", "status": "rejected", "reason": "Why."}]
    answer = {"key": "k", "action": "cancel", "tasks": done, "more": False}
    gateway.answers = {("POST", "/api/tasks/bulk"): (202, answer)}
    result = run(data, "cancel", "--tag", "ui", "--meta", "for=Ann", "--key", "k", "--yes")
    assert (result.exit_code, result.stdout) == (1, "cancel: 1 done, 1 refused\n")
    assert "t2: Why." in result.stderr
    result = run(data, "cancel", "--tag", "ui")
    assert (result.exit_code, "add --yes" in result.output) == (1, True)
    result = run(data, "cancel")
    assert (result.exit_code, "Say which task" in result.output) == (1, True)
    result = run(data, "cancel", TASK, "--tag", "ui")
    assert (result.exit_code, "not both" in result.output) == (1, True)


def refuses(*frames: AnyServerFrame) -> Script:
    async def script(phone: Phone) -> None:
        await phone.hear()
        await phone.say(*frames)

    return script


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (refuses(live.Refused(reason="This token is not known.")), "refused the sign-in (This token is not known.)"),
        (refuses(live.Closing(reason="Go away.", come_back=False)), "refused the sign-in (Go away.)"),
        (refuses(live.Tasks(tasks=())), "does not speak Errand's protocol"),
        (tells([live.Refused(reason="There is no such task.", task=TASK)], expects=0), "There is no such task."),
        (tells([live.Closing(reason="You signed out.", come_back=False)], expects=0), "You signed out."),
    ],
)
def test_a_watch_that_cannot_be_ends_with_a_sentence(gateway: Gateway, data: Path, script: Script, says: str) -> None:
    gateway.scripts = [script]
    result = run(data, "watch", TASK, "--json")
    assert says in json.loads(result.stdout.splitlines()[-1])["error"]
    assert result.exit_code == 1


def test_a_newer_servers_frame_is_named_and_not_a_traceback(gateway: Gateway, data: Path) -> None:
    async def script(phone: Phone) -> None:
        await phone.welcome()
        await phone.say_raw('{"type":"hologram_seen"}')

    gateway.scripts = [script]
    result = run(data, "watch", TASK)
    assert "update the older of the two" in result.output
    assert result.exit_code == 1


# Devices


def test_devices_are_listed_and_signed_out(gateway: Gateway, data: Path) -> None:
    devices = [{"id": "d1", "name": "phone", "added_at": "2026-11-22T10:00:00Z"}, {"id": "d2", "name": "laptop"}]
    me = {"user": "owner", "name": "owner", "role": "owner", "device": "d2", "devices": devices, "notices": []}
    gateway.answers = {("GET", "/api/me"): (200, me), ("DELETE", "/api/devices/d1"): (204, b"")}
    _, phone, laptop = run(data, "device", "ls").output.splitlines()
    assert phone.split("\t") == ["d1", "phone", "2026-11-22T10:00:00Z", ""]
    assert laptop.split("\t") == ["d2", "laptop", "", "this one"]
    assert run(data, "device", "rm", "d1").output == "Signed out.\n"
    assert gateway.asked[-1][:2] == ("DELETE", "/api/devices/d1")
    gateway.answers = {("DELETE", "/api/devices/d3"): (404, {"error": "There is no such device."})}
    result = run(data, "device", "rm", "d3")
    assert (result.exit_code, result.output) == (1, "errand: There is no such device.\n")


@pytest.mark.parametrize(
    ("typed", "frame"),
    [
        ("yes", live.Approve(key="k", task=TASK, question="approval_3")),
        ("Y", live.Approve(key="k", task=TASK, question="approval_3")),
        ("no", live.Deny(key="k", task=TASK, question="approval_3")),
        ("yes, but use make", live.Deny(key="k", task=TASK, question="approval_3", reason="yes, but use make")),
    ],
)
def test_an_approval_is_answered_by_a_plain_yes_alone(
    gateway: Gateway, data: Path, typed: str, frame: live.Approve | live.Deny
) -> None:
    question = {"id": "approval_3", "text": "May I?", "kind": "approval", "tool": "bash", "input": "rm -rf\nbuild"}
    shown = {"id": TASK, "user": "owner", "state": "waiting", "question": question}
    gateway.answers = {("GET", f"/api/tasks/{TASK}"): (200, {"task": shown})}
    sent: list[Any] = []
    gateway.scripts = [accepts(sent)]
    assert run(data, "answer", TASK, typed, "--key", "k", "--json").exit_code == 0
    assert sent == [frame]
    told = run(data, "show", TASK).output
    assert "bash        rm -rf\n            build\n" in told
    assert f"`errand approve {TASK}`, `errand deny {TASK} WHY`" in told


def test_rules_are_listed_added_and_removed(gateway: Gateway, data: Path) -> None:
    first = {"action": "ask", "tool": "bash"}
    gateway.answers = {("GET", "/api/rules"): (200, {"rules": [first]}), ("PUT", "/api/rules"): (200, {"rules": []})}
    assert run(data, "rules", "ls").output == "rule\taction\ttool\tpattern\n1\task\tbash\t*\n"
    second = {"action": "deny", "tool": "edit", "pattern": "secrets/*"}
    for arguments, rules in (
        (["add", "deny", "edit", "secrets/*"], [first, second]),
        (["add", "deny", "edit", "secrets/*", "--at", "1"], [second, first]),
        (["rm", "1"], []),
        (["set", json.dumps({"rules": [second]})], [second]),
    ):
        assert run(data, "rules", *arguments).exit_code == 0
        assert gateway.asked[-1] == ("PUT", "/api/rules", {"rules": rules})
    assert "There are 1 rules" in run(data, "rules", "rm", "2").output
    assert "These are no rules" in run(data, "rules", "set", "[]").output


def test_settings_are_shown_with_what_was_spent_and_changed_one_by_one(gateway: Gateway, data: Path) -> None:
    before = {"model": "m", "budget": {"steps": 9}, "daily_usd": 4.0}
    shown = {
        "settings": before,
        "spent_usd": 1.5,
        "reserved_usd": 2.0,
        "limit_usd": 4.0,
        "day_ends": "2026-01-02T00:00:00Z",
    }
    gateway.answers = {("GET", "/api/settings"): (200, shown), ("PUT", "/api/settings"): (200, before)}
    assert [line.split("\t") for line in run(data, "settings").output.splitlines()[1:]] == [
        ["model", "m"],
        ["budget of a turn", "9 steps"],
        ["time zone", "UTC"],
        ["limit a day", "$4.00"],
        ["spent today", "$1.50, $2.00 set aside for what runs"],
        ["day ends", "2026-01-02 00:00 UTC"],
    ]
    assert run(data, "settings", "--budget-usd", "2", "--daily-usd", "unlimited", "--json").exit_code == 0
    changed = {"model": "m", "budget": {"money_usd": 2.0, "steps": 9}}
    assert gateway.asked[-2:] == [("PUT", "/api/settings", changed), ("GET", "/api/settings", "")]


def test_the_owner_limits_a_users_day(gateway: Gateway, data: Path) -> None:
    gateway.answers = {("PUT", "/api/users/u1/daily-limit"): (204, b"")}
    for given, body, told in (
        ("2.5", {"daily_usd": 2.5}, "$2.50 a day"),
        ("unlimited", {"daily_usd": None}, "unlimited"),
        ("default", {}, "the installation's"),
    ):
        assert run(data, "user", "limit", "u1", given).output == f"The limit of u1 is {told}.\n"
        assert gateway.asked[-1] == ("PUT", "/api/users/u1/daily-limit", body)
    assert run(data, "user", "limit", "u1", "--", "-1").exit_code == 2


def test_what_is_queued_says_why_it_waits(gateway: Gateway, data: Path) -> None:
    mine = {"id": TASK, "user": "owner", "queue": "gpu", "place": 1, "why": "paused", "reason": "the queue is paused"}
    gateway.answers = {
        ("GET", f"/api/tasks/{TASK}"): (200, {"task": {"id": TASK, "user": "owner", "state": "queued"}}),
        ("GET", "/api/queues"): (200, {"type": "queue_shown", "waiting": [mine]}),
    }
    assert "why         the queue is paused\n" in run(data, "show", TASK).output


def test_a_task_is_shown_with_the_terms_it_was_sent_on(gateway: Gateway, data: Path) -> None:
    told = {"queue": "gpu", "labels": ["cuda"], "priority": 3, "queue_seconds": 60, "turn_seconds": 90}
    told |= {"budget": {"money_usd": 2.0, "steps": 9}, "updated_at": "2026-01-01T00:00:01Z"}
    sent = {"id": TASK, "user": "owner", "state": "failed", "archived_at": "2026-01-01T00:00:00Z", **told}
    gateway.answers = {("GET", f"/api/tasks/{TASK}"): (200, {"task": sent})}
    assert run(data, "show", TASK).output.splitlines()[2:] == [
        "updated     2026-01-01 00:00:01 UTC",
        "queue       gpu",
        "labels      cuda",
        "priority    3",
        "budget      $2.00, 9 steps a turn",
        "queue limit 1 min 0 s",
        "deadline    1 min 30 s a turn",
        "archived    2026-01-01 00:00:00 UTC",
        "cost        $0.00 · 0 tokens",
    ]


def test_the_list_says_until_when_a_task_waits_and_why_one_failed(gateway: Gateway, data: Path) -> None:
    line = {"id": TASK, "title": "x", "repository": "/r", "created_at": "", "updated_at": ""}
    later = {**line, "state": "delayed", "reason": "It has a start date.", "until": "2026-12-01T08:00:00+00:00"}
    failed = {**line, "state": "failed", "reason": "The tests fail."}
    gateway.answers = {("GET", "/api/tasks"): (200, {"type": "task_list", "tasks": [later, failed]})}
    told = [row.split("\t")[5] for row in run(data, "ls").output.splitlines()]
    until = datetime(2026, 12, 1, 8, tzinfo=UTC).astimezone()
    assert told == [f"until {until:%Y-%m-%d %H:%M %Z}: It has a start date.", "The tests fail."]


def test_no_page_is_behind_a_task_that_there_is_not(gateway: Gateway, data: Path) -> None:
    gateway.answers = {("GET", f"/api/tasks/{TASK}"): (404, {"error": "There is no such task."})}
    result = run(data, "ls", "--before", TASK)
    assert (result.exit_code, result.output) == (1, "errand: There is no such task.\n")


def test_a_start_that_has_passed_is_said(gateway: Gateway, data: Path) -> None:
    gateway.scripts = [accepts([])]
    result = run(data, "submit", "x", "--repo", "https://example.org/x.git", "--at", "2020-01-01 09:00+00:00")
    assert result.exit_code == 0
    assert "has passed: the task begins at once." in result.stderr


def test_a_schedule_is_refused_before_it_is_sent(gateway: Gateway, data: Path) -> None:
    for prompt, option, given, told in (
        ("x", "--budget-usd", "nan", "neither a number"),
        ("x", "--deadline", "9" * 20 + "d", "more than a year"),
        (" ", "--budget-usd", "1", "The prompt is empty"),
    ):
        result = run(data, "schedule", "add", prompt, "--cron", "0 9 * * *", "--repo", "r", option, given)
        assert (told in result.output, gateway.asked) == (True, [])


def test_the_queues_are_shown_and_set(gateway: Gateway, data: Path) -> None:
    mine = {
        "id": TASK,
        "user": "owner",
        "queue": "gpu",
        "place": 1,
        "why": "paused",
        "reason": "the queue gpu is paused",
    }
    shown = {
        "type": "queue_shown",
        "queues": [{"queue": "gpu", "waiting": 2, "running": 1, "running_limit": 5, "paused": True, "served": True}],
        "waiting": [
            mine | {"title": "fix\nit", "priority": 2, "effective_priority": 2.5},
            mine | {"user": "u1", "place": 2},
        ],
        "running": [
            {"id": "t1", "user": "owner", "queue": "gpu", "runner": "r", "title": "go"},
            {"id": "t2", "user": "owner", "queue": "gpu", "runner": "r", "title": "push"},
        ],
        "stopped": [{"user": "owner", "task": "t3", "commands": 1, "reason": "update Errand", "title": "old"}],
        "runners": [{"queue": "gpu", "runner": "r", "labels": ["arm64"], "slots": 2, "busy": 1}],
        "more": True,
    }
    asks = {"id": "t2", "title": "", "state": "waiting", "repository": "", "created_at": "", "updated_at": ""}
    gateway.answers = {
        ("GET", "/api/queues"): (200, shown),
        ("GET", "/api/tasks"): (200, {"type": "task_list", "tasks": [asks]}),
        ("POST", "/api/queues/gpu"): (200, {"running_limit": 2}),
        ("POST", "/api/queues/gqu"): (200, {"running_limit": 2}),
    }
    result = run(data, "queue", "--limit", "2")
    assert [line.split("\t") for line in result.stdout.splitlines() if line] == [
        ["queue", "waiting", "running", "limit", "slots"],
        ["gpu", "2", "1", "5", "paused, 1 of 2 at r arm64"],
        ["runs", "queue", "runner", "for", "title"],
        ["t1", "gpu", "r", "", "go"],
        ["t2", "gpu", "r", "", "waits for your answer: push"],
        ["waits", "queue", "place", "priority", "for", "why", "title"],
        [TASK, "gpu", "1", "2 (2.5)", "", "the queue gpu is paused", "fix …"],
        [TASK, "gpu", "2", "0 (0.0)", "", "the queue gpu is paused", "of u1"],
        ["stopped", "of", "commands", "why", "title"],
        ["t3", "owner", "1", "update Errand", "old"],
    ]
    assert result.stderr == "More wait than are shown here.\n"
    assert json.loads(run(data, "queue", "--json").stdout) == shown
    for arguments, body in ((["limit", "gpu", "2"], {"running_limit": 2}), (["pause", "gpu"], {"paused": True})):
        told = "The queue gpu is not paused; at most 2 tasks of it at one time.\n"
        assert run(data, "queue", *arguments).output == told
        assert gateway.asked[-1] == ("POST", "/api/queues/gpu", body)
    assert "Nobody serves the queue gqu" in run(data, "queue", "pause", "gqu").stderr
    assert json.loads(run(data, "queue", "resume", "gpu", "--json").stdout) == {"running_limit": 2}


def test_a_user_is_removed_for_good(gateway: Gateway, data: Path) -> None:
    gateway.answers = {("DELETE", "/api/users/u1"): (204, b"")}
    assert run(data, "user", "rm", "u1").output == "Removed.\n"
    gateway.answers = {("DELETE", "/api/users/owner"): (409, {"error": "The owner cannot be removed."})}
    result = run(data, "user", "rm", "owner", "--yes", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, {"error": "The owner cannot be removed."})


@pytest.mark.parametrize(("prompt", "code"), [("Say\r\nhello", 0), ("Say goodbye", 1)])
def test_a_key_that_stands_for_another_prompt_is_said(gateway: Gateway, data: Path, prompt: str, code: int) -> None:
    gateway.answers = {("GET", f"/api/tasks/{TASK}"): (200, {"task": {"id": TASK, "prompt": "Say\nhello"}})}
    gateway.scripts = [accepts([])]
    result = run(data, "submit", prompt, "--repo", "https://git.example/a", "--key", "k", "--no-watch")
    assert result.exit_code == code
    assert ("use another key" in result.output) == bool(code)


# Credentials


@pytest.mark.parametrize(
    ("flags", "shared", "says"),
    [((), False, "for your tasks only; --shared"), (("--shared",), True, "for every user's tasks")],
)
def test_whose_tasks_a_credential_serves_is_said(
    gateway: Gateway, data: Path, flags: tuple[str, ...], shared: bool, says: str
) -> None:
    host = {"host": "git.lan", "kind": "token", "username": "me", "shared": shared}
    gateway.answers = {("POST", "/api/hosts"): (201, host), ("GET", "/api/hosts"): (200, {"hosts": [host]})}
    result = run(data, "host", "add", "git.lan", "--username", "me", *flags, typed="s3cret\n")
    assert says in result.output
    assert "s3cret" not in result.output
    method, path, body = gateway.asked[-1]
    assert (method, path, body) == ("POST", "/api/hosts", {**host, "secret": "s3cret"})
    as_json = run(data, "host", "add", "git.lan", *flags, "--json", typed="s3cret\n")
    assert json.loads(as_json.stdout) == {"host": "git.lan", "kind": "token", "shared": shared}
    assert ("every user" in run(data, "host", "ls").output) == shared


def test_a_secret_comes_from_stdin_as_it_is_and_is_shown_nowhere(gateway: Gateway, data: Path) -> None:
    repository = "https://git.lan/me/app"
    shown = {"name": "NPM_TOKEN", "repository": repository, "set_at": "2026-11-01T00:00:00Z"}
    gateway.answers = {
        ("POST", "/api/secrets"): (201, shown),
        ("GET", "/api/secrets"): (200, {"secrets": [shown, {**shown, "repository": ""}]}),
        ("DELETE", "/api/secrets/NPM_TOKEN"): (204, None),
    }
    given = run(data, "secret", "set", "NPM_TOKEN", "--repo", repository, typed=" s3cret\nof two lines\n")
    assert (given.exit_code, "$NPM_TOKEN" in given.output, "s3cret" in given.output) == (0, True, False)
    body = {"name": "NPM_TOKEN", "value": " s3cret\nof two lines", "repository": repository}
    assert gateway.asked[-1] == ("POST", "/api/secrets", body)
    empty = run(data, "secret", "set", "NPM_TOKEN", typed="\n")
    assert (empty.exit_code, "is empty" in empty.output) == (1, True)
    listed = run(data, "secret", "ls").output
    assert (repository in listed, "every repository" in listed) == (True, True)
    assert run(data, "secret", "rm", "NPM_TOKEN", "--repo", repository).exit_code == 0
    assert gateway.asked[-1][:2] == ("DELETE", "/api/secrets/NPM_TOKEN")
