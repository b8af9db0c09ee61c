"""The tools on a folder in memory: what they answer, and that no input makes them raise."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.contract import Verdict
from agents.tools import DEFINITIONS, TOOLS, Hands, changes_workspace, use
from agents.tools.base import shorten
from agents.tools.glob import list_command
from agents.tools.grep import GrepInput, search_command
from protocol.base import encode
from protocol.journal import ToolResult
from protocol.task import Question

pytestmark = pytest.mark.anyio

EDIT = "str_replace_based_edit_tool"


class Ran(msgspec.Struct, frozen=True):
    output: str = ""
    exit_code: int | None = 0
    dropped_bytes: int = 0
    ended_by: str = ""
    cwd: str = "/workspace"
    shell: str = ""


class Memory:
    """Files in a dict; a command is answered with what was laid out."""

    def __init__(self, files: dict[str, bytes] | None = None, ran: Ran | None = None) -> None:
        self.files = dict(files or {})
        self.ran = ran or Ran()
        self.commands: list[str] = []

    async def exec(self, command: str, **given: Any) -> Ran:
        self.commands.append(command)
        return self.ran

    async def shell(self, command: str, **given: Any) -> Ran:
        return await self.exec(command)

    async def resume(self, name: str, **given: Any) -> Ran | None:
        return None

    async def restart_shell(self) -> None:
        self.commands.append("a new shell")

    async def read(self, path: str, limit_bytes: int = 0) -> bytes:
        if path == "/workspace":
            raise IsADirectoryError(path)
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    async def write(self, path: str, data: bytes) -> None:
        if path.startswith("/etc"):
            raise PermissionError(13, "Permission denied", path)
        self.files[path] = data

    async def save(self, step: int) -> None: ...

    async def ask(self, question: Question) -> str:
        return "yes"

    async def approve(self, question: Question) -> Verdict:
        return Verdict(approved="good" in question.text, reason="too long")


async def call(memory: Memory, name: str, **given: Any) -> ToolResult:
    async def say(text: str) -> None: ...

    result = await use(TOOLS[name], given, Hands(sandbox=memory, desk=memory, step=7, say=say))
    encode(result)
    return result


def file(text: str) -> Memory:
    return Memory({"/workspace/a.txt": text.encode()})


async def test_a_replacement_must_match_once() -> None:
    memory = file("one\ntwo\none\n")
    twice = await call(memory, EDIT, command="str_replace", path="a.txt", old_str="one", new_str="1")
    assert twice.is_error
    assert "occurs 2 times" in twice.text
    assert "lines 1, 3" in twice.text
    never = await call(memory, EDIT, command="str_replace", path="a.txt", old_str="three", new_str="3")
    assert "does not occur" in never.text
    once = await call(memory, EDIT, command="str_replace", path="/workspace/a.txt", old_str="two", new_str="2")
    assert not once.is_error
    assert memory.files["/workspace/a.txt"] == b"one\n2\none\n"
    assert "     2\t2" in once.text


async def test_crlf_and_bytes_that_are_no_utf8_survive_an_edit() -> None:
    memory = Memory({"/workspace/a.txt": b"a\r\nb\xff\r\n"})
    hint = await call(memory, EDIT, command="str_replace", path="a.txt", old_str="a\nb", new_str="x")
    assert "CRLF" in hint.text
    await call(memory, EDIT, command="str_replace", path="a.txt", old_str="a\r\n", new_str="c\r\n")
    assert memory.files["/workspace/a.txt"] == b"c\r\nb\xff\r\n"


@pytest.mark.parametrize(
    ("at", "text", "after"),
    [(0, "x\n", "x\none\ntwo"), (1, "x", "one\nx\ntwo"), (2, "x\n", "one\ntwo\nx\n"), (2, "x", "one\ntwo\nx")],
)
async def test_insert_puts_whole_lines(at: int, text: str, after: str) -> None:
    memory = file("one\ntwo")
    await call(memory, EDIT, command="insert", path="a.txt", insert_line=at, insert_text=text)
    assert memory.files["/workspace/a.txt"].decode() == after


async def test_view_numbers_lines_and_takes_a_range() -> None:
    memory = file("one\ntwo\nthree\n")
    assert (await call(memory, EDIT, command="view", path="a.txt")).text == "     1\tone\n     2\ttwo\n     3\tthree"
    assert (await call(memory, EDIT, command="view", path="a.txt", view_range=[2, -1])).text.startswith("     2\ttwo")
    assert "outside" in (await call(memory, EDIT, command="view", path="a.txt", view_range=[9, 10])).text
    assert "is a folder" in (await call(memory, EDIT, command="view", path="/workspace")).text
    assert "no file /workspace/b.txt" in (await call(memory, EDIT, command="view", path="b.txt")).text
    memory.files["/workspace/b"] = b"\0\1"
    assert "binary" in (await call(memory, EDIT, command="view", path="b")).text


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("bash", {}),
        ("bash", {"command": 5}),
        ("bash", {"command": "a\0b"}),
        ("process", {"action": "start"}),
        ("process", {"action": "restart"}),
        (EDIT, {"command": "undo_edit", "path": "a"}),
        (EDIT, {"command": "create", "path": "a"}),
        (EDIT, {"command": "create", "path": "/etc/passwd", "file_text": ""}),
        (EDIT, {"command": "insert", "path": "a.txt", "insert_line": 9, "insert_text": "x"}),
        (EDIT, {"command": "view", "path": ""}),
        ("grep", {"pattern": ""}),
        ("glob", {"pattern": ""}),
        ("todo", {"items": [{"text": "a", "status": "maybe"}]}),
        ("ask_user", {"question": " "}),
        ("finish", {"summary": ""}),
    ],
)
async def test_wrong_input_is_an_answer_with_a_reason(name: str, given: dict[str, Any]) -> None:
    result = await call(file("x"), name, **given)
    assert result.is_error
    assert len(result.text) > 15


async def test_a_command_says_how_it_ended() -> None:
    failed = await call(Memory(ran=Ran("no\n", 2)), "bash", command="make")
    assert (failed.text, failed.exit_code, failed.is_error) == ("no\n[exit code 2]", 2, False)
    late = await call(Memory(ran=Ran("", None, 0, "deadline")), "bash", command="make")
    assert late.is_error
    assert "600 s" in late.text
    moved = await call(Memory(ran=Ran("", 0, cwd="/workspace/web", shell="kept")), "bash", command="cd web")
    assert moved.text == "[exit code 0, now in /workspace/web]"
    over = await call(Memory(ran=Ran("", 3, cwd="", shell="ended")), "bash", command="exit 3")
    assert over.text.startswith("[exit code 3]\n[the shell ended with this command")
    again = await call(Memory(ran=Ran("a\n", 0, shell="new")), "bash", command="echo a")
    assert again.text.splitlines()[0].startswith("[a new shell")
    assert again.text.endswith("a\n[exit code 0]")
    much = await call(Memory(ran=Ran("head tail", 0, 4096)), "bash", command="make")
    assert much.dropped_bytes == 4096
    assert "4096 bytes" in much.text


async def test_the_plan_is_shown_and_a_question_is_answered() -> None:
    shown = await call(Memory(), "todo", items=[{"text": "a", "status": "done"}, {"text": "b", "status": "pending"}])
    assert shown.text == "[x] a\n[ ] b"
    assert (await call(Memory(), "ask_user", question="Well?")).text == "The user answered: yes"
    plan = await call(Memory(), "ask_user", question="A good plan.", kind="plan")
    assert plan.text == "The user approved the plan."
    plan = await call(Memory(), "ask_user", question="Another plan.", kind="plan")
    assert plan.text == "The user did not approve the plan: too long"


@given(st.text(), st.integers(64, 4096))
def test_a_shortened_text_is_valid_and_counts_what_is_missing(text: str, limit: int) -> None:
    short, dropped = shorten(text * 20, limit)
    assert len(short.encode()) <= limit + 64
    assert (dropped == 0) == (len((text * 20).encode(errors="replace")) <= limit)


def run(command: str, folder: Path) -> str:
    return subprocess.run(["bash", "-c", command], cwd=folder, check=False, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "hostile", ["$(touch owned)", "`touch owned`", "'; touch owned; '", "-rf", "--output=owned", "a\nb"]
)
def test_nothing_of_the_models_is_run_by_a_shell_or_read_as_an_option(tmp_path: Path, hostile: str) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a.py").write_text("x = 1\n")
    for command in (
        search_command(GrepInput(hostile, hostile, hostile)),
        search_command(GrepInput(hostile)),
        list_command(hostile),
    ):
        run(command, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", "a.py"]


def test_grep_and_glob_find_files_in_and_outside_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.py").write_text("def f():\n    pass\n")
    (tmp_path / "b.txt").write_text("def g\n")
    for _ in range(2):
        assert (
            run(search_command(GrepInput("def [fg]", include="*.py")), tmp_path).removeprefix("./")
            == "lib/a.py:1:def f():\n"
        )
        assert "b.txt:1" in run(search_command(GrepInput("DEF G", ignore_case=True)), tmp_path)
        assert run(search_command(GrepInput("def", "/workspace/lib")), tmp_path) == "lib/a.py:1:def f():\n"
        assert run(list_command("**/*.py"), tmp_path) == "lib/a.py\n"
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)


def test_definitions_are_in_the_apis_shape() -> None:
    assert [one["name"] for one in DEFINITIONS] == list(TOOLS)
    for one in DEFINITIONS:
        assert one.get("type") in ("bash_20250124", "text_editor_20250728") or one["input_schema"]["type"] == "object"
        assert one.get("input_schema", {}).get("properties", {}).keys() <= set(
            TOOLS[one["name"]].input_type.__struct_fields__
        )


def test_only_commands_and_edits_change_the_workspace() -> None:
    assert [name for name in TOOLS if changes_workspace(name, {})] == ["bash", EDIT]
    assert not changes_workspace(EDIT, {"command": "view"})
    assert not changes_workspace("unknown", {})
