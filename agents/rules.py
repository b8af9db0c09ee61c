"""What a tool call is by the user's rules, and how it is put to the user for approval. Pure.

Rules are the user's brake and not the wall: a shell has many ways to say one thing, and what a command can reach is the
sandbox's to limit. So where a command cannot be told apart safely, it is never taken for an allowed one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from agents.tools.edit import WORKSPACE
from protocol.rules import EVERY_TOOL, Rule, RuleAction
from protocol.task import APPROVAL_LIMIT_CHARS, Question, QuestionKind

UNRULED = frozenset({"ask_user", "todo", "process"})
"""They act on nothing, or on what a command has started by the rules for `bash`."""
FINISH = "finish"
JOINTS = re.compile(r"&&|\|\||[;|&\n]")
"""Between two commands of one line."""
HIDING = re.compile(r"[`>]|\$\(|<\(")
"""What may run or write something else than the command's own words say."""
ASKED = {
    "bash": "May I run this command?",
    "edit": "May I change this file?",
    FINISH: "May I finish? What I changed is then committed and pushed.",
}


def action_on(rules: Sequence[Rule], name: str, given: Mapping[str, Any]) -> RuleAction:
    """The first rule that matches the call decides; where none does, it is allowed."""
    tool = tool_of(name, given)
    if tool in UNRULED:
        return RuleAction.ALLOW
    subject = _subject(tool, given)
    action = next((rule.action for rule in rules if _matches(rule, tool, subject)), RuleAction.ALLOW)
    return RuleAction.ASK if tool == FINISH and action is RuleAction.DENY else action


def tool_of(name: str, given: Mapping[str, Any]) -> str:
    """The tool as rules name it."""
    if name == "process":
        return "bash" if given.get("action") == "start" else name
    if name != "str_replace_based_edit_tool":
        return name
    return "view" if given.get("command") == "view" else "edit"


def approval(id_: str, name: str, given: Mapping[str, Any]) -> Question:
    """The question whether a call may be made."""
    tool = tool_of(name, given)
    text = ASKED.get(tool, "May I look at this?")
    return Question(id=id_, text=text, kind=QuestionKind.APPROVAL, tool=tool, input=_shown(_readable(tool, given)))


def _subject(tool: str, given: Mapping[str, Any]) -> str:
    match tool:
        case "bash":
            return str(given.get("command", "")).strip()
        case "glob":
            return str(given.get("pattern", ""))
        case _:
            return _path(str(given.get("path", ""))) if tool != FINISH else ""


def _path(path: str) -> str:
    """From the repository's root; what is outside stays absolute."""
    whole = posixpath.normpath(str(WORKSPACE / path))
    return posixpath.relpath(whole, WORKSPACE) if (whole + "/").startswith(f"{WORKSPACE}/") else whole


def _matches(rule: Rule, tool: str, subject: str) -> bool:
    if rule.tool not in (EVERY_TOOL, tool):
        return False
    if tool != "bash" or rule.pattern == "*":
        return fnmatchcase(subject, rule.pattern)
    found = [fnmatchcase(part, rule.pattern) for part in _parts(subject)]
    if rule.action is RuleAction.ALLOW:
        return all(found) and not HIDING.search(subject)
    return any(found) or fnmatchcase(subject, rule.pattern)


def _parts(command: str) -> Iterator[str]:
    yield from filter(None, (part.strip(" \t(){}") for part in JOINTS.split(command)))


def _readable(tool: str, given: Mapping[str, Any]) -> str:
    """The call as a person reads it: every value, the one that matters most without its name."""
    match tool:
        case "bash":
            return str(given.get("command", "")) or "restart the shell"
        case "finish":
            return "\n\n".join(str(given[name]) for name in ("commit_message", "summary") if given.get(name))
        case "edit":
            return _edit(given)
        case _:
            return "\n".join(f"{name}: {value}" for name, value in given.items() if name != "command")


def _edit(given: Mapping[str, Any]) -> str:
    lines = [_path(str(given.get("path", "")))]
    lines += [f"- {line}" for line in str(given.get("old_str") or "").splitlines()]
    if given.get("insert_line") is not None:
        lines.append(f"after line {given['insert_line']}:")
    added = given.get("file_text") or given.get("new_str") or given.get("insert_text") or ""
    return "\n".join([*lines, *(f"+ {line}" for line in str(added).splitlines())])


def _shown(text: str) -> str:
    """Nothing of it is invisible, or seems to stand where it does not (CVE-2021-42574), and it has an end."""
    return _capped("".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text))


def _capped(text: str) -> str:
    if len(text) <= APPROVAL_LIMIT_CHARS:
        return text
    half = APPROVAL_LIMIT_CHARS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters are not shown …]\n{text[-half:]}"
