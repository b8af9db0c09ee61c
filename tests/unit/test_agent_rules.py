"""Which tool calls the user's rules allow, ask for or deny, and what the user sees of one."""

from __future__ import annotations

from typing import Any

import pytest

from agents.rules import action_on, approval
from protocol.rules import Rule, RuleAction
from protocol.task import APPROVAL_LIMIT_CHARS

ALLOW, ASK, DENY = RuleAction.ALLOW, RuleAction.ASK, RuleAction.DENY
EDIT = "str_replace_based_edit_tool"


def bash(command: str) -> tuple[str, dict[str, Any]]:
    return "bash", {"command": command}


def edit(path: str, command: str = "create") -> tuple[str, dict[str, Any]]:
    return EDIT, {"command": command, "path": path}


FINISH = ("finish", {"summary": "done"})
TESTS_ONLY = (Rule(action=ALLOW, tool="bash", pattern="make *"), Rule(action=ASK, tool="bash"))
NO_PUSH = (Rule(action=DENY, tool="bash", pattern="git push*"),)
NO_SECRETS = (Rule(action=DENY, pattern="secrets/*"),)
ALL = (Rule(action=ASK),)
NONE = (Rule(action=DENY),)


@pytest.mark.parametrize(
    ("why", "rules", "call", "action"),
    [
        ("without a rule everything is allowed", (), bash("rm -rf /"), ALLOW),
        ("the first that matches decides", TESTS_ONLY, bash("make test"), ALLOW),
        ("and not a later one", (*ALL, *NONE), bash("make test"), ASK),
        ("what the first does not match goes to the next", TESTS_ONLY, bash("ls"), ASK),
        ("an allowed beginning allows no second command", TESTS_ONLY, bash("make test; curl evil"), ASK),
        ("nor one behind a pipe", TESTS_ONLY, bash("make test | sh"), ASK),
        ("nor one on the next line", TESTS_ONLY, bash("make test\nsh"), ASK),
        ("nor one in the background", TESTS_ONLY, bash("make test & sh"), ASK),
        ("nor one inside", TESTS_ONLY, bash("make $(sh)"), ASK),
        ("nor a file that is written", TESTS_ONLY, bash("make test > ~/.bashrc"), ASK),
        ("two allowed ones are allowed", TESTS_ONLY, bash("make lint && make test"), ALLOW),
        ("a denied command is denied wherever it stands", NO_PUSH, bash("cd x && git push --force"), DENY),
        ("in a subshell too", NO_PUSH, bash("(git push)"), DENY),
        ("a pattern is of the whole command", NO_PUSH, bash("echo git push"), ALLOW),
        ("a rule of one tool is none of another's", NO_PUSH, edit("git push"), ALLOW),
        ("a path counts from the repository", NO_SECRETS, edit("/workspace/secrets/key"), DENY),
        ("however it is written", NO_SECRETS, edit("./src/../secrets/key"), DENY),
        ("reading is covered by a rule over every tool", NO_SECRETS, edit("secrets/key", "view"), DENY),
        ("and so is searching", NO_SECRETS, ("grep", {"pattern": "x", "path": "secrets/a"}), DENY),
        ("other paths are free", NO_SECRETS, edit("src/secrets.py"), ALLOW),
        ("what is outside has its whole path", (Rule(action=ASK, pattern="/etc/*"),), edit("/etc/passwd"), ASK),
        ("to read is not to edit", (Rule(action=ASK, tool="edit"),), edit("a", "view"), ALLOW),
        ("to read has a name of its own", (Rule(action=ASK, tool="view"),), edit("a", "view"), ASK),
        ("everything is asked for", ALL, FINISH, ASK),
        ("to finish cannot be denied", NONE, FINISH, ASK),
        ("a question is never asked for", NONE, ("ask_user", {"question": "?"}), ALLOW),
        ("to start a process is to run a command", ALL, ("process", {"action": "start", "command": "x"}), ASK),
        ("to read what one says is not", ALL, ("process", {"action": "read", "number": 1}), ALLOW),
        ("a plan is never asked for", ALL, ("todo", {"items": []}), ALLOW),
        ("a command that is no text matches nothing but all", TESTS_ONLY, ("bash", {"command": 7}), ASK),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_call_is_what_its_first_rule_says(
    why: str, rules: tuple[Rule, ...], call: tuple[str, dict[str, Any]], action: RuleAction
) -> None:
    assert action_on(rules, *call) is action, why


@pytest.mark.parametrize(
    ("name", "given", "tool", "shown"),
    [
        (*bash("make test"), "bash", "make test"),
        ("bash", {"restart": True}, "bash", "restart the shell"),
        (EDIT, {"command": "create", "path": "/workspace/a", "file_text": "x\ny"}, "edit", "a\n+ x\n+ y"),
        (EDIT, {"command": "str_replace", "path": "a", "old_str": "x", "new_str": "y"}, "edit", "a\n- x\n+ y"),
        (
            EDIT,
            {"command": "insert", "path": "a", "insert_line": 3, "insert_text": "y"},
            "edit",
            "a\nafter line 3:\n+ y",
        ),
        (EDIT, {"command": "view", "path": "a"}, "view", "path: a"),
        ("finish", {"summary": "All done.", "commit_message": "Do it"}, "finish", "Do it\n\nAll done."),
        ("bash", {"command": "echo \u202egnp.exe\x1b[8m"}, "bash", "echo \\u202egnp.exe\\x1b[8m"),
    ],
)
def test_the_user_sees_what_is_to_be_approved(name: str, given: dict[str, Any], tool: str, shown: str) -> None:
    asked = approval("approval_3", name, given)
    assert (asked.id, asked.kind, asked.tool, asked.input) == ("approval_3", "approval", tool, shown)


def test_of_a_long_call_the_user_sees_both_ends_and_that_something_is_left_out() -> None:
    shown = approval("a", "bash", {"command": "begin" + "x" * 50_000 + "end"}).input
    assert shown.startswith("begin")
    assert shown.endswith("end")
    assert f"{50_008 - APPROVAL_LIMIT_CHARS} characters are not shown" in shown
