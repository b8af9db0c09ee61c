"""What the page's modules decide, apart from any browser: tables, a reason a row."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.pages import WEB
from tests.web import node

ESC = "\x1b"


def calls(module: str, name: str, *given: list[Any]) -> list[Any]:
    """What the function answers to each list of arguments."""
    asked = json.dumps([[module, name, arguments] for arguments in given])
    done = node.run(node.HERE / "call.mjs", WEB, told=asked)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fold(*frames: dict[str, Any]) -> dict[str, Any]:
    done = node.run(node.HERE / "fold.mjs", WEB, told=json.dumps(frames))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("why", "text", "shown"),
    [
        ("plain", "a\tb", [["a\tb", []]]),
        ("a colour and its end", f"{ESC}[31mred{ESC}[0m no", [["red", ["c1"]], [" no", []]]),
        ("bold and bright together", f"{ESC}[1;92mok", [["ok", ["bold", "c10"]]]),
        ("of 256: a bright red", f"{ESC}[38;5;196mx", [["x", ["c9"]]]),
        ("by red, green and blue", f"{ESC}[38;2;0;0;130mx", [["x", ["c4"]]]),
        ("a ground", f"{ESC}[44mx{ESC}[49my", [["x", ["ground"]], ["y", []]]),
        ("a title is no text", f"{ESC}]0;title\x07x", [["x", []]]),
        ("the cursor stays where it is", f"{ESC}[2J{ESC}[Hx", [["x", []]]),
        ("a line that was written over", "10%\r100%\nnext", [["100%\nnext", []]]),
        ("Windows' line ends", "a\r\nb", [["a\nb", []]]),
        ("turned writing", "a\u202eb\u2066c", [["abc", []]]),
        ("a sequence that was cut off", f"x{ESC}[3", [["x", []]]),
        ("half a character", "x\ud800y", [["xy", []]]),
    ],
)
def test_a_terminals_output_is_pieces_of_text(why: str, text: str, shown: list[Any]) -> None:
    [pieces] = calls("text/ansi.js", "pieces", [text])
    assert [[piece["text"], piece["classes"]] for piece in pieces] == shown, why


DIFF = """\
diff --git a/one.py b/one.py
index 1..2 100644
--- a/one.py
+++ b/one.py
@@ -3,2 +3,3 @@ def f():
 same
-old
+new
+more
\\ No newline at end of file
diff --git a/pic.png b/pic.png
new file mode 100644
Binary files /dev/null and b/pic.png differ
diff --git a/from.txt b/to.txt
similarity index 100%
rename from from.txt
rename to to.txt
diff --git "a/\\303\\244.txt" "b/\\303\\244.txt"
deleted file mode 100644
--- "a/\\303\\244.txt"
+++ /dev/null
@@ -1 +0,0 @@
--- not a header
diff --git a/run.sh b/run.sh
old mode 100644
new mode 100755
"""


def test_a_diff_is_files_with_numbered_lines() -> None:
    [files] = calls("text/diff.js", "parse", [DIFF])
    facts = [(file["path"], file["how"], file["added"], file["deleted"]) for file in files]
    assert facts == [
        ("one.py", "changed", 2, 1),
        ("pic.png", "new", 0, 0),
        ("to.txt", "renamed", 0, 0),
        ("ä.txt", "deleted", 0, 1),
        ("run.sh", "changed", 0, 0),
    ]
    assert [file["binary"] for file in files] == [False, True, False, False, False]
    assert (files[2]["from"], files[4]["mode"]) == ("from.txt", "mode 100644 → 100755")
    [hunk] = files[0]["hunks"]
    assert hunk["head"] == "def f():"
    numbered = [(line["kind"], line["old"], line["new"], line["text"]) for line in hunk["lines"]]
    assert numbered[:4] == [
        ("same", 3, 3, "same"),
        ("del", 4, 0, "old"),
        ("add", 0, 4, "new"),
        ("add", 0, 5, "more"),
    ]
    assert files[3]["hunks"][0]["lines"][0]["text"] == "-- not a header"


@pytest.mark.parametrize(
    ("why", "cursor", "frame", "verdict"),
    [
        ("the next one", 5, {"type": "journal_seen", "sequence": 9, "previous": 5}, "new"),
        ("seen before", 9, {"type": "journal_seen", "sequence": 9, "previous": 5}, "seen"),
        ("one between was not sent", 5, {"type": "journal_seen", "sequence": 9, "previous": 7}, "gap"),
        (
            "decisions alone before it",
            5,
            {"type": "decision_seen", "sequence": 9, "previous": 2, "decision": {}},
            "new",
        ),
        (
            "the journal before it was not seen whole",
            5,
            {"type": "decision_seen", "sequence": 9, "previous": 2, "decision": {"journal_sequence": 8}},
            "gap",
        ),
    ],
)
def test_an_event_is_new_seen_or_shows_a_gap(why: str, cursor: int, frame: dict[str, Any], verdict: str) -> None:
    assert calls("live/cursor.js", "judge", [cursor, frame]) == [verdict], why


def test_waits_grow_to_a_limit_and_chance_spreads_them() -> None:
    shortest = calls("live/backoff.js", "waitMs", *[[tries, 0] for tries in range(1, 30)])
    longest = calls("live/backoff.js", "waitMs", *[[tries, 1] for tries in range(1, 30)])
    assert shortest[0] < longest[0] <= 500
    assert longest == sorted(longest)
    assert longest[-1] == 15_000
    assert shortest[-1] == 7_500


def test_the_list_has_what_needs_the_user_first_and_the_newest_of_each_first() -> None:
    states = ["succeeded", "waiting", "running", "failed", "waiting", "delayed"]
    tasks = [{"id": str(at), "state": state, "updated_at": f"2026-01-0{at + 1}"} for at, state in enumerate(states)]
    [groups] = calls("live/tasks.js", "grouped", [tasks])
    assert {name: [task["id"] for task in group] for name, group in groups.items()} == {
        "needsYou": ["4", "1"],
        "atWork": ["5", "2"],
        "over": ["3", "0"],
    }


@pytest.mark.parametrize(
    ("repository", "short"),
    [
        ("https://github.com/you/project.git", "you/project"),
        ("git@github.com:you/project.git", "you/project"),
        ("ssh://git@host:2222/a/b/project", "b/project"),
        ("/srv/git/project.git", "git/project"),
    ],
)
def test_a_repository_is_called_by_its_last_two_names(repository: str, short: str) -> None:
    assert calls("text/units.js", "shortRepository", [repository]) == [short]


@pytest.mark.parametrize(
    ("pasted", "code"),
    [
        ("https://errand.example/#code=owner.abc", "owner.abc"),
        ("  owner.abc\n", "owner.abc"),
        ("Here: https://errand.example/#code=owner.abc thanks", "owner.abc"),
    ],
)
def test_a_code_is_found_in_what_was_pasted(pasted: str, code: str) -> None:
    assert calls("screens/code.js", "codeIn", [pasted]) == [code]


# The fold


def decided(sequence: int, *events: dict[str, Any], **more: Any) -> dict[str, Any]:
    decision = {"type": "decision", "at": "2026-01-01T00:00:00Z", "state": "running", "events": events, **more}
    return {"type": "decision_seen", "task": "t", "sequence": sequence, "previous": 0, "decision": decision}


def journalled(sequence: int, event: dict[str, Any], attempt: int = 1) -> dict[str, Any]:
    entry = {"attempt": attempt, "at": "2026-01-01T00:00:00Z", "event": event}
    return {"type": "journal_seen", "task": "t", "sequence": sequence, "previous": sequence - 1, "entry": entry}


def output(offset: int, text: str, channel: str = "text") -> dict[str, Any]:
    piece = {"attempt": 1, "step": 1, "offset": offset, "text": text, "channel": channel}
    return {"type": "output_seen", "task": "t", "output": piece}


SUBMITTED = decided(1, {"type": "task_submitted", "prompt": "Do it", "repository": "r", "title": "Do it"})
CALLS = journalled(2, {"type": "step_started", "step": 1, "action": {"type": "model_call"}})


def test_output_that_comes_twice_counts_once_and_a_hole_is_shown() -> None:
    shown = fold(SUBMITTED, CALLS, output(0, "Hel😀"), output(2, "l😀o"), output(9, "rld"))
    [_, reply] = shown["turns"][0]["items"]
    assert reply["text"] == "Hel😀o…rld", "the server counts characters"


def test_a_set_up_that_is_cut_off_says_so() -> None:
    begun = journalled(2, {"type": "setup_started", "script": ".errand/setup.sh"})
    parked = decided(
        3, {"type": "task_paused", "reason": "enough"}, {"type": "attempt_ended", "attempt": 1, "how": "parked"}
    )
    cancelled = decided(3, {"type": "turn_ended", "turn": 1, "outcome": "cancelled"})
    for end in (parked, cancelled):
        setup = fold(SUBMITTED, begun, end)["turns"][0]["items"][1]
        assert (setup["running"], setup["mark"], setup["note"].partition(" · ")[0]) == (False, "unknown", "cut off")


def test_what_comes_on_another_channel_is_no_hole() -> None:
    shown = fold(SUBMITTED, CALLS, output(0, "Hm.", "thinking"), output(3, "So"))
    [_, reply] = shown["turns"][0]["items"]
    assert (reply["thinking"], reply["text"]) == ("Hm.", "So")


def test_the_steps_end_takes_the_place_of_its_preview() -> None:
    content = [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Whole."}]
    result = {"type": "model_reply", "content": content, "stop_reason": "end_turn", "usage": {"output_tokens": 3}}
    ended = journalled(3, {"type": "step_finished", "step": 1, "result": result, "duration_seconds": 2.0})
    shown = fold(SUBMITTED, CALLS, output(0, "Who"), ended)
    [_, reply] = shown["turns"][0]["items"]
    assert (reply["text"], reply["thinking"], reply["running"]) == ("Whole.", "Hm.", False)
    assert shown["total"]["output_tokens"] == 3


def test_a_refused_host_is_a_warning_of_one_line() -> None:
    refused = {"type": "host_refused", "host": "a.example", "port": 443, "reason": "a.example is not\nallowed"}
    [_, _, note] = fold(SUBMITTED, CALLS, journalled(3, refused))["turns"][0]["items"]
    assert (note["level"], note["text"]) == ("warning", "Network: a.example is not …")


@pytest.mark.parametrize(
    ("attempt", "event", "said"),
    [
        (1, {}, []),
        (2, {}, ["in a new sandbox, from the start"]),
        (2, {"restored_step": 4}, ["in a new sandbox, restored as after step 4"]),
        (2, {"restored_step": 4, "sandbox_kept": True}, ["in the same sandbox, as it was"]),
        (
            1,
            {"type": "sandbox_restored", "reason": "its container ended", "restored_step": 4},
            ["The sandbox ended: its container ended. The work goes on in a new sandbox, restored as after step 4."],
        ),
    ],
)
def test_where_the_work_goes_on_is_said_as_in_a_terminal(attempt: int, event: dict[str, Any], said: list[str]) -> None:
    begun = {"type": "attempt_started", "turn": 1, "base_commit": "c", "branch": "b", "model": "m", "sandbox": "docker"}
    shown = fold(SUBMITTED, journalled(2, begun | event, attempt))
    assert [item["text"] for item in shown["turns"][0]["items"] if item["kind"] == "note"] == said


def test_a_message_after_the_end_stands_in_the_turn_that_it_opens() -> None:
    end = {"type": "turn_ended", "turn": 1, "outcome": "succeeded", "summary": "Done."}
    said = [{"type": "message_sent", "message": 1, "text": "More"}, {"type": "turn_opened", "turn": 2}]
    shown = fold(SUBMITTED, decided(2, end), decided(3, *said))
    first, second = shown["turns"]
    assert [item["text"] for item in first["items"]] == ["Do it"]
    assert [item["text"] for item in second["items"]] == ["More"]
    assert shown["state"] == "queued"


def test_a_paused_task_stays_so_whatever_happens_until_it_is_resumed() -> None:
    paused = decided(2, {"type": "task_paused", "reason": "Paused by the user."})
    asked = decided(3, {"type": "question_raised", "question": {"id": "q", "text": "Which?"}})
    assert fold(SUBMITTED, paused, asked)["state"] == "paused"
    assert fold(SUBMITTED, paused, asked, decided(4, {"type": "task_resumed"}))["state"] == "waiting"
    answered = decided(4, {"type": "question_answered", "question": "q", "text": "This"})
    assert fold(SUBMITTED, paused, asked, answered)["state"] == "paused"


def test_a_turn_that_is_tried_again_says_which() -> None:
    end = {"type": "turn_ended", "turn": 1, "outcome": "failed", "reason": "No key."}
    shown = fold(SUBMITTED, decided(2, end), decided(3, {"type": "turn_opened", "turn": 2, "retries": 1}))
    assert [item["text"] for item in shown["turns"][1]["items"]] == ["turn 1 again"]


def test_what_was_open_when_the_turn_ended_is_open_no_more() -> None:
    call = {"type": "tool_call", "id": "c", "name": "bash", "input": {"command": "sleep 9"}}
    started = journalled(3, {"type": "step_started", "step": 2, "action": call})
    asked = decided(4, {"type": "question_raised", "question": {"id": "q", "text": "Which?"}})
    end = decided(5, {"type": "turn_ended", "turn": 1, "outcome": "cancelled", "reason": "Cancelled by the user."})
    shown = fold(SUBMITTED, CALLS, started, asked, end)
    _, reply, used, question = shown["turns"][0]["items"]
    assert (reply["running"], used["running"], used["mark"], question["open"]) == (False, False, "unknown", False)
