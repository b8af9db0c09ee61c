"""A small world for the loop: a real git repository and real commands, a journal in memory that can kill an attempt."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import anyio
from msgspec import Struct

from agents.contract import UserMessage, Verdict
from agents.loop import Settings, run_turn
from protocol.base import encode
from protocol.journal import (
    AnyJournalEvent,
    AttemptStarted,
    CheckpointMade,
    JournalEntry,
    decode_entry,
)
from protocol.task import Budget, Question


class Killed(BaseException):
    """The process died here."""


class Clock:
    """Each look at it takes a millisecond; sleeping takes none."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slept: list[float] = []

    def now(self) -> datetime:
        self.seconds += 0.001
        return datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.slept.append(seconds)


class Ran(Struct, frozen=True, kw_only=True):
    exit_code: int | None
    output: str
    dropped_bytes: int = 0
    ended_by: str = ""
    cwd: str = ""
    shell: str = ""


class World:
    """One task over any number of attempts. Each journal message goes over the wire format and back."""

    def __init__(self, folder: Path, prompt: str) -> None:
        self.workspace = folder / "workspace"
        self.entries: list[JournalEntry] = []
        self.messages = [UserMessage(number=0, text=prompt, turn=1)]
        self.clock = Clock()
        self.turn = 1
        self.attempt = 0
        self.budget = Budget()
        self.kill_after: int | None = None
        """The attempt dies when the journal has so many entries."""
        self.on_append: Callable[[AnyJournalEvent], Awaitable[None]] | None = None
        self.answers: dict[str, str] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.on_approve: Callable[[Question], Awaitable[None]] | None = None
        self.asked: list[Question] = []
        self.previews: list[tuple[int, str, str]] = []
        self.trees: dict[int, str] = {}
        shutil.copytree(template(), self.workspace)
        self.trees[0] = "HEAD"

    # Journal

    async def append(self, event: AnyJournalEvent) -> None:
        await anyio.lowlevel.checkpoint()
        entry = JournalEntry(attempt=self.attempt, at=self.clock.now(), event=event)
        self.entries.append(decode_entry(encode(entry)))
        if self.kill_after is not None and len(self.entries) >= self.kill_after:
            self.kill_after = None
            raise Killed
        if self.on_append is not None:
            await self.on_append(event)

    async def preview(self, step: int, text: str, channel: str) -> None:
        self.previews.append((step, text, channel))

    # Desk

    async def ask(self, question: Question) -> str:
        if question not in self.asked:
            self.asked.append(question)
        return self.answers.get(question.id, "blue")

    async def approve(self, question: Question) -> Verdict:
        if question not in self.asked:
            self.asked.append(question)
        if self.on_approve is not None:
            await self.on_approve(question)
        return self.verdicts.get(question.id, Verdict(approved=True))

    # Sandbox

    async def ready(self) -> World:
        return self

    async def exec(
        self,
        command: str,
        *,
        cwd: str = "/workspace",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = 65536,
        on_output: Callable[[str], Awaitable[None]] | None = None,
    ) -> Ran:
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", command, cwd=self.path(cwd), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                with anyio.CancelScope(shield=True):
                    await process.communicate()
        if on_output is not None:
            await on_output(output.decode(errors="replace"))
        return Ran(exit_code=process.returncode, output=output.decode(errors="replace"))

    async def shell(
        self,
        command: str,
        *,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = 65536,
        on_output: Callable[[str], Awaitable[None]] | None = None,
        name: str = "",
    ) -> Ran:
        return await self.exec(command, on_output=on_output)

    async def resume(self, name: str, **given: object) -> Ran | None:
        return None

    async def restart_shell(self) -> None:
        pass

    async def read(self, path: str, limit_bytes: int = 1 << 24) -> bytes:
        return self.path(path).read_bytes()

    async def write(self, path: str, data: bytes) -> None:
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_bytes(data)

    async def save(self, step: int) -> None:
        tree = self.tree()
        self.trees[step] = tree
        await self.append(CheckpointMade(step=step, head="", commit="", tree=tree))

    # The runner's part

    def path(self, inside: str) -> Path:
        return self.workspace / inside.removeprefix("/workspace").lstrip("/")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.workspace,
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip()

    def tree(self) -> str:
        self.git("add", "-A")
        return self.git("write-tree")

    def restored(self) -> int:
        """The workspace as the last checkpoint has it; returns its step."""
        step = max((e.event.step for e in self.entries if isinstance(e.event, CheckpointMade)), default=0)
        if self.attempt > 1:
            self.git("add", "-A")
            self.git("read-tree", "-u", "--reset", self.trees[step])
        return step

    async def run(
        self, model, settings: Settings | None = None, *, name: str = "scripted", budget: Budget | None = None
    ):
        """One attempt, in a workspace restored from the last checkpoint."""
        self.attempt += 1
        self.budget = budget or Budget()
        started = AttemptStarted(
            turn=self.turn, base_commit="0" * 40, branch="errand/x", model=name, sandbox="test", scripted=True,
            restored_step=self.restored(), instructions="Be brief.",
        )  # fmt: skip
        self.entries.append(JournalEntry(attempt=self.attempt, at=self.clock.now(), event=started))
        try:
            return await run_turn(
                model=model,
                sandbox=self.ready,
                journal=self,
                desk=self,
                settings=settings or Settings(),
                clock=self.clock,
            )
        except* Killed:
            raise Killed from None

    def follow_up(self, text: str) -> None:
        self.turn += 1
        self.say(text)

    def say(self, text: str) -> None:
        self.messages.append(UserMessage(number=len(self.messages), text=text, turn=self.turn))


@cache
def template() -> Path:
    """A small repository, made once."""
    folder = Path(tempfile.mkdtemp(prefix="errand-test-repository-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "README.md").write_text("# A small project\n\nIt adds numbers.\n")
    (folder / "add.py").write_text("def add(a, b):\n    return a + b\n")
    author = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), (*author, "commit", "-qm", "Begin")):
        subprocess.run(["git", *arguments], cwd=folder, check=True, stdin=subprocess.DEVNULL)
    return folder
