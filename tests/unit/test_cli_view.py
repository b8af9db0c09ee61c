"""The fold of frames to lines, as tables."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from protocol import journal, live, task
from services.cli.calls import describe
from services.cli.screen import TerminalScreen, plain, region
from services.cli.view import Kind, Running, View, begin, fold

TASK = "taaaaaaaaaaaaaaaa"
AT = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
RUNNING, FAILED = task.TaskState.RUNNING, task.TaskState.FAILED
QUESTION = task.Question(id="question_3", text="Which\ncolour?", choices=("red", "blue"))


def decided(*events: task.AnyTaskEvent, receipt: task.Receipt | None = None) -> live.DecisionSeen:
    decision = task.Decision(at=AT, state=RUNNING, events=events, receipt=receipt)
    return live.DecisionSeen(task=TASK, sequence=1, previous=0, decision=decision)


BEGUN = journal.AttemptStarted(turn=1, base_commit="c" * 40, branch="b", model="m", sandbox="bubblewrap")


def wrote(event: journal.AnyJournalEvent, attempt: int = 1) -> live.JournalSeen:
    return live.JournalSeen(
        task=TASK, sequence=1, previous=0, entry=journal.JournalEntry(attempt=attempt, at=AT, event=event)
    )


def started(step: int, name: str, **given: Any) -> live.JournalSeen:
    call = journal.ToolCall(id="c", name=name, input=given)
    return wrote(journal.StepStarted(step=step, action=call))


def finished(step: int, text: str = "", **rest: Any) -> live.JournalSeen:
    return wrote(journal.StepFinished(step=step, result=journal.ToolResult(text=text, **rest), duration_seconds=0.25))


def said(step: int, offset: int, text: str, channel: str = "tool") -> live.OutputSeen:
    return live.OutputSeen(
        task=TASK, output=journal.Output(attempt=1, step=step, offset=offset, text=text, channel=channel)
    )


def shown(*frames: live.AnyServerFrame) -> tuple[View, list[str]]:
    view, lines = begin(TASK), []
    for frame in frames:
        view, more = fold(view, frame)
        lines.extend(plain(line) for line in more)
    return view, lines


EDIT = "str_replace_based_edit_tool"
ASKED = decided(task.QuestionRaised(question=QUESTION))
MODEL = wrote(journal.StepStarted(step=1, action=journal.ModelCall()))


@pytest.mark.parametrize(
    ("frames", "lines", "reason"),
    [
        ([live.SignedIn(user="u", name="n", role="user", notices=("Be warned.",))], ["! Be warned."], "notices first"),
        ([live.SignedIn(user="u", name="n", role="user", notices=("A",))] * 2, ["! A"], "a notice is told once"),
        ([decided(task.TaskSubmitted(prompt="Do\nit", repository="r", title="t", base="main"))],
         ["> Do", "> it", "· r at main"], "the prompt, whole"),
        ([decided(task.AttemptClaimed(attempt=1, turn=1, runner="r1", request="q"))], ["· taken by runner r1"], ""),
        ([decided(task.AttemptClaimed(attempt=2, turn=1, runner="r2", request="q"))],
         ["· attempt 2, taken by runner r2"], "a second attempt is named"),
        ([decided(task.AttemptEnded(attempt=1, how="lease_lost"), task.TaskQueued(reason="its runner died"))],
         ["! the runner of attempt 1 is gone", "· queued again: its runner died"], "a dead runner"),
        ([decided(task.AttemptEnded(attempt=1, how="failed", reason="529"),
                  task.TaskDelayed(until=AT + timedelta(minutes=1), reason="overloaded"))],
         ["! attempt 1 failed: 529",
          f"! waits until {AT + timedelta(minutes=1):%Y-%m-%d %H:%M:%S} UTC: overloaded"], "a delay"),
        ([ASKED], ["? Which", "? colour?", "  1) red", "  2) blue"], "a question"),
        ([ASKED, decided(task.QuestionAnswered(question="question_3", text="red"))],
         ["? Which", "? colour?", "  1) red", "  2) blue", "· answered: red"], "its answer, whoever gave it"),
        ([decided(receipt=task.Receipt(key="k", status=task.ReceiptStatus.REJECTED, reason="Too late."))],
         ["! Not done: Too late."], "a rejection"),
        ([wrote(journal.AttemptStarted(turn=1, base_commit="c" * 40, branch="b", model="m", sandbox="unsandboxed",
                                       scripted=True, restored_step=4))],
         ["! The model is scripted, not Claude.",
          "! UNSANDBOXED: commands run on the server itself, without a sandbox.",
          "· b from cccccccccc, unsandboxed, in a new sandbox, restored as after step 4"], "what must be seen"),
        ([wrote(BEGUN, attempt=1)], ["· b from cccccccccc, bubblewrap"], "of a first sandbox there is nothing to say"),
        ([wrote(BEGUN, attempt=2)], ["· b from cccccccccc, bubblewrap, in a new sandbox, from the start"],
         "a second one without a checkpoint"),
        ([wrote(replace(BEGUN, sandbox_kept=True, restored_step=4), attempt=2)],
         ["· b from cccccccccc, bubblewrap, in the same sandbox, as it was"], "one that was kept"),
        ([wrote(journal.SandboxRestored(reason="its container ended", restored_step=4))],
         ["! The sandbox ended: its container ended. The work goes on in a new sandbox, restored as after step 4."],
         "one that died"),
        ([wrote(journal.Noticed(text="Retrying.", level="warning")), wrote(journal.Noticed(text="Fine."))],
         ["! Retrying.", "· Fine."], "the runner's notices"),
        ([wrote(journal.HostRefused(host="a.example", port=443, reason="a.example is not\nallowed \x1b[2J"))],
         ["! Network: a.example is not …"], "a refused host, on one line"),
        ([started(2, "bash", command="make\nmake test"), finished(2, "a\nb\n[exit code 0]", exit_code=0)],
         ["✓ $ make …  (0.2 s)", "    a", "    b"], "a command with the end of its output"),
        ([started(2, "bash", command="false"), finished(2, "\n".join("abcdefgh") + "\n[exit code 1]", exit_code=1)],
         ["✗ $ false  (exit 1 · 0.2 s)", "    d", "    e", "    f", "    g", "    h"], "a failed one"),
        ([started(2, "grep", pattern="foo"), finished(2, "a:1:foo", exit_code=0)],
         ['✓ grep "foo"  (0.2 s)'], "a search without what it found"),
        ([started(2, "glob", pattern="*"), finished(2, "It broke.", is_error=True)],
         ["✗ list *  (0.2 s)", "    It broke."], "what went wrong is shown"),
        ([started(2, "todo", items=[{"text": "Look", "status": "done"}, {"text": "Do", "status": "in_progress"}]),
          finished(2)],
         ["- plan 1/2: Do"], "the plan"),
        ([started(2, "todo", items="nonsense"), finished(2, "wrong", is_error=True)],
         ["✗ plan  (0.2 s)", "    wrong"], "a plan that is none"),
        ([started(2, "finish", summary="s"), finished(2)], [], "the outcome says it"),
        ([started(2, "bash", command="x"), wrote(journal.StepFinished(step=2, result=journal.StepLost(reason="died")))],
         ["? $ x  (0 ms)", "! died"], "an unknown outcome"),
        ([MODEL, wrote(journal.StepFinished(step=1, duration_seconds=2, result=journal.ModelReply(
            content=({"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hi\nyou"},
                     {"type": "text", "text": 3}),
            stop_reason="end_turn", usage=task.Usage(input_tokens=900, output_tokens=100, cost_usd=0.01))))],
         ["✓ model  ($0.0100 · 1.0k tokens · 2.0 s)", "  Hi", "  you"], "what the model says, not what it thinks"),
        ([decided(task.TurnEnded(turn=1, outcome=FAILED, reason="The budget is spent."))],
         ["✗ failed", "  reason:    The budget is spent.", "  changed:   nothing",
          "  cost:      $0.00 · 0 tokens · 0 steps"],
         "a failure"),
        ([decided(task.TurnEnded(turn=1, outcome=task.TaskState.SUCCEEDED, published=task.Published(
            branch="errand/t-x", commit="c", base_commit="b", pushed_to="https://github.com/o/n", files_changed=1,
            pull_request=task.PullRequest(number=7, url="https://github.com/o/n/pull/7", draft=True))))],
         ["✓ succeeded", "  branch:    errand/t-x", "  pushed to: https://github.com/o/n", "  changed:   1 file, +0 -0",
          "  pull request: https://github.com/o/n/pull/7 (draft)", "  cost:      $0.00 · 0 tokens · 0 steps"],
         "a pull request"),
        ([live.DecisionSeen(task="tother", sequence=1, previous=0, decision=task.Decision(at=AT, state=RUNNING,
          events=(task.TaskQueued(reason="x"),)))], [], "another task's event"),
        ([wrote(journal.SetupStarted(script=".errand/setup.sh")),
          decided(task.AttemptEnded(attempt=1, how="parked"), task.TaskPaused(reason="enough"))],
         ["? set-up: .errand/setup.sh  (cut off · 0 ms)", "· the sandbox is given back until the task goes on",
          "· held back: enough"], "a set-up that is paused has its line"),
        ([wrote(journal.SetupStarted(script=".errand/setup.sh")),
          decided(task.AttemptEnded(attempt=1, how="failed", reason="It broke. It said last:\none\ntwo"),
                  task.TurnEnded(turn=1, outcome=FAILED, reason="It broke. It said last:\none\n\ntwo"))],
         ["? set-up: .errand/setup.sh  (cut off · 0 ms)", "✗ failed", "  reason:    It broke. It said last:", "    one",
          "    two", "  changed:   nothing", "  cost:      $0.00 · 0 tokens · 0 steps"],
         "what was said last is not cut, and the reason is told once"),
        ([live.TaskLine(task=live.TaskSummary(id="t", title="", state=RUNNING, repository="", created_at="",
                                              updated_at=""))], [], "a line of the list"),
    ],
)  # fmt: skip
def test_frames_become_lines(frames: list[live.AnyServerFrame], lines: list[str], reason: str) -> None:
    assert shown(*frames)[1] == lines, reason


@pytest.mark.parametrize(
    ("pieces", "preview"),
    [
        ([(0, "ab"), (2, "cd")], "abcd"),
        ([(0, "ab"), (0, "ab"), (2, "cd")], "abcd"),
        ([(0, "ab"), (1, "bcd")], "abcd"),
        ([(0, "ab"), (9, "xy")], "abxy"),
        ([(2, "cd"), (0, "ab")], "cd"),
        ([(0, "\x1b[3"), (3, "1mred")], "\x1b[31mred"),
    ],
)
def test_a_preview_takes_each_piece_once(pieces: list[tuple[int, str]], preview: str) -> None:
    frames = [started(2, "bash", command="x"), *(said(2, offset, text) for offset, text in pieces)]
    view, _ = shown(*frames)
    assert view.running[0].preview == preview


def test_a_finished_step_supersedes_its_preview() -> None:
    view, _ = shown(
        started(2, "bash", command="x"), said(2, 0, "part"), finished(2, "whole", exit_code=0), said(2, 4, "late")
    )
    assert view.running == ()


def test_a_step_open_in_a_dead_attempt_is_settled_by_the_next() -> None:
    lost = wrote(journal.StepFinished(step=2, result=journal.StepLost(reason="unknown")))
    _, lines = shown(started(2, "bash", command="x"), decided(task.AttemptEnded(attempt=1, how="lease_lost")), lost)
    assert "? $ x  (0 ms)" in lines


@pytest.mark.parametrize(
    ("name", "given", "line"),
    [
        ("bash", {"command": "python -m unittest"}, "$ python -m unittest"),
        ("bash", {"restart": True}, "restart the shell"),
        ("bash", {"command": 7}, "$ 7"),
        ("process", {"action": "start", "command": "npm start"}, "in the background: $ npm start"),
        ("process", {"action": "stop", "number": 2}, "stop background process 2"),
        (
            "str_replace_based_edit_tool",
            {"command": "view", "path": "/workspace/a.py", "view_range": [1, 20]},
            "read a.py:1-20",
        ),
        (EDIT, {"command": "create", "path": "a.py"}, "write a.py"),
        (EDIT, {"command": "str_replace", "path": "/workspace/src/a.py"}, "edit src/a.py"),
        (EDIT, {}, "edit ?"),
        ("grep", {"pattern": "foo", "path": "src", "include": "*.py"}, 'grep "foo" in src *.py'),
        ("glob", {"pattern": "**/*.py"}, "list **/*.py"),
        ("teleport", {"to": "moon"}, 'teleport {"to":"moon"}'),
        ("bash", {"command": "\x1b[31mevil"}, "$ evil"),
    ],
)
def test_a_tool_call_is_one_readable_line(name: str, given: dict[str, Any], line: str) -> None:
    assert describe(name, given) == line


@pytest.mark.parametrize("width", [20, 45, 80])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None, file=io.StringIO(), record=True)
    long = "word " * 50
    screen, view = TerminalScreen(console), begin(TASK)
    for frame in (
        decided(task.TaskSubmitted(prompt=long, repository=long, title="t")),
        started(2, "bash", command=long),
        finished(2, long, exit_code=1),
        decided(task.QuestionRaised(question=QUESTION)),
    ):
        view, lines = fold(view, frame)
        screen.update("", lines, view)
    running = Running(step=3, what=long, at=AT, is_model=True, preview=long)
    console.print(region(View(task=view.task, notices=(long,), running=(running,)), width, AT))
    assert max(len(line.rstrip()) for line in console.export_text().splitlines()) <= width


def test_a_choice_keeps_its_number() -> None:
    _, lines = fold(begin(TASK), decided(task.QuestionRaised(question=QUESTION)))
    assert [(line.kind, line.mark) for line in lines[2:]] == [(Kind.CHOICE, "1"), (Kind.CHOICE, "2")]
