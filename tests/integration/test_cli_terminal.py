"""The client at a real terminal (a pseudo-terminal): questions answered there, Ctrl-C, nothing but text."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import live, task
from protocol.history import SqlAnswer
from tests.integration.test_cli_live import (  # noqa: F401
    TASK,
    Gateway,
    Phone,
    data,
    decided,
    gateway,
    server,
    story,
)

SECONDS = 10.0
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A program with a terminal of its own."""

    def __init__(self, arguments: list[str], environment: dict[str, str], columns: int) -> None:
        self._end, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", *arguments],
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), **environment},
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(other)
        self.raw = ""

    @property
    def text(self) -> str:
        return CONTROL.sub("", self.raw)

    def until(self, text: str) -> None:
        """Return when `text` was shown."""
        deadline = time.monotonic() + SECONDS
        while text not in self.text:
            assert self._read(deadline), f"{text!r} was not shown in: {self.text}"

    def ended(self) -> int:
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        return self.process.wait(SECONDS)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)

    def _read(self, deadline: float) -> bool:
        if not select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            piece = os.read(self._end, 65536)
        except OSError:  # EIO: the program has closed its end
            return False
        self.raw += piece.decode(errors="replace")
        return bool(piece)


@contextlib.contextmanager
def terminal(data: Path, *arguments: str, columns: int = 80) -> Iterator[Terminal]:  # noqa: F811
    started = Terminal(list(arguments), {"ERRAND_DATA": str(data), "ERRAND_SERVER": "", "ERRAND_TOKEN": ""}, columns)
    try:
        yield started
    finally:
        started.close()


WAITING = decided(
    18, 11, task.TaskState.WAITING,
    task.QuestionRaised(question=task.Question(id="question_3", text="Which colour?", choices=("red", "blue"))),
    journal_sequence=17,
)  # fmt: skip
ANSWERED = decided(19, 18, task.TaskState.RUNNING, task.QuestionAnswered(question="question_3", text="blue"))
ENDED = decided(
    20, 19, task.TaskState.SUCCEEDED, task.TurnEnded(turn=1, outcome=task.TaskState.SUCCEEDED, summary="I said hello.")
)


@pytest.mark.parametrize("columns", [80, 45])
def test_a_question_is_answered_at_the_terminal(gateway: Gateway, data: Path, columns: int) -> None:  # noqa: F811
    async def script(phone: Phone) -> None:
        await phone.welcome()
        await phone.hear()
        await phone.say(*story()[:-1], WAITING, live.CaughtUp(task=TASK, cursor=18))
        answer = await phone.hear()
        assert isinstance(answer, live.Answer)
        assert (answer.question, answer.text) == ("question_3", "blue")
        await phone.say(live.Accepted(key=answer.key, task=TASK, sequence=18), ANSWERED, ENDED)
        await phone.until_hung()

    gateway.scripts = [script]
    with terminal(data, "watch", TASK, columns=columns) as screen:
        screen.until("Your answer: ")
        screen.type("2\n")
        assert screen.ended() == 0
    assert "Which colour?" in screen.text
    assert "answered: blue" in screen.text
    assert "I said hello." in screen.text


def test_an_answer_from_another_device_ends_the_question_here(gateway: Gateway, data: Path) -> None:  # noqa: F811
    typed = threading.Event()

    async def script(phone: Phone) -> None:
        await phone.welcome()
        await phone.hear()
        await phone.say(*story()[:-1], live.CaughtUp(task=TASK, cursor=17), WAITING)
        await asyncio.to_thread(typed.wait, SECONDS)
        await phone.say(ANSWERED, ENDED)
        await phone.until_hung()

    gateway.scripts = [script]
    with terminal(data, "watch", TASK) as screen:
        screen.until("Your answer: ")
        screen.type("half an ans")
        screen.until("half an ans")
        typed.set()
        assert screen.ended() == 0
    assert "half an ans\n· answered: blue" in screen.text


def test_ctrl_c_stops_the_watching_and_not_the_task(gateway: Gateway, data: Path) -> None:  # noqa: F811
    async def script(phone: Phone) -> None:
        await phone.welcome()
        await phone.hear()
        await phone.say(*story()[:4], live.CaughtUp(task=TASK, cursor=13))
        await phone.until_hung()  # and no Cancel was heard

    gateway.scripts = [script]
    with terminal(data, "watch", TASK) as screen:
        screen.until("Ctrl-C stops watching only")
        screen.type("\x03")
        assert screen.ended() == 130
    assert "the task goes on" in screen.text


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (80, "task               state      cost_usd\ntokkg7uwt4pxxlqos  succeeded    0.0042\n"),
        (30, "task      tokkg7uwt4pxxlqos\nstate     succeeded\ncost_usd  0.0042\n"),
    ],
)
def test_an_sql_answer_fits_the_terminal(gateway: Gateway, data: Path, columns: int, shown: str) -> None:  # noqa: F811
    answer = SqlAnswer(columns=("task", "state", "cost_usd"), rows=((TASK, "succeeded\x1b[2J", 0.0042),), sequence=7)
    gateway.answers = {("POST", "/api/sql"): (200, answer)}
    with terminal(data, "sql", "SELECT 1", columns=columns) as screen:
        assert screen.ended() == 0
    assert "\n".join(line.rstrip() for line in screen.text.split("\n")) == shown
    assert gateway.asked == [("POST", "/api/sql", {"sql": "SELECT 1", "at_least": 0, "limit": 1000})]
