"""Follow a task until its turn ends, and let whoever sits at the terminal answer its questions."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Callable, Sequence

import anyio
import anyio.abc

from protocol.live import Answer, Approve, Deny, Refused, SignedIn
from protocol.task import Question, QuestionKind, TaskState
from services.cli.failure import Failure
from services.cli.receipts import new_key
from services.cli.screen import Screen
from services.cli.session import Lost, Session
from services.cli.text import one_line
from services.cli.view import Kind, Line, begin, fold

EXIT_CODES = {TaskState.SUCCEEDED: 0, TaskState.FAILED: 1, TaskState.CANCELLED: 2}
TICK_SECONDS = 0.25
YES = ("yes", "y")
NO = ("no", "n")
LINE_LIMIT_BYTES = 64 * 1024


async def follow(session: Session, task: str, screen: Screen, *, interactive: bool) -> TaskState:
    """Show the task from its beginning; return how its last turn ended."""
    await session.watch(task)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_tick, screen)
            outcome = await _show(session, task, screen, Prompt(group, session, screen, task) if interactive else None)
            group.cancel_scope.cancel()
            return outcome
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    finally:
        screen.close()
    raise AssertionError("the group above swallows nothing")


async def _show(session: Session, task: str, screen: Screen, prompt: Prompt | None) -> TaskState:
    view = begin(task)
    broken = False
    if session.greeting is not None:
        view, lines = fold(view, session.greeting.frame)
        screen.update(session.greeting.raw, lines, view)
    while True:
        received = await session.receive()
        if isinstance(received, Lost):
            if not broken:
                screen.tell(Line(kind=Kind.INFO, text=f"connection lost ({one_line(received.reason)}), coming back"))
            broken = True
            continue
        frame = received.frame
        if isinstance(frame, Refused) and frame.task == task and not view.caught_up:
            raise Failure(frame.reason)
        view, lines = fold(view, frame)
        if prompt is not None:
            prompt.make_way(view.task.question, lines)
        screen.update(received.raw, lines, view)
        if view.outcome is not None:
            return view.outcome
        broken = broken and isinstance(frame, SignedIn)
        if prompt is not None and isinstance(frame, Refused) and frame.key:
            prompt.ask_again()
        if view.caught_up and prompt is not None:
            prompt.ask(view.task.question)


async def _tick(screen: Screen) -> None:
    while True:
        await anyio.sleep(TICK_SECONDS)
        screen.tick()


class Prompt:
    """Reads an answer from the terminal while frames go on coming: another device may answer first."""

    def __init__(
        self,
        group: anyio.abc.TaskGroup,
        session: Session,
        screen: Screen,
        task: str,
        *,
        descriptor: int = 0,
        key: Callable[[], str] = new_key,
    ) -> None:
        self._group = group
        self._session = session
        self._screen = screen
        self._task = task
        self._descriptor = descriptor
        self._key = key
        self._question: Question | None = None
        self._invited = False
        """Whether the line that is typed on begins with our invitation."""
        self._answered = ""
        """The question that this terminal has answered."""

    def make_way(self, question: Question | None, lines: Sequence[Line]) -> None:
        """Before `lines` are shown: leave the line that is typed on, and stop asking what is not asked any more."""
        if self._question is None:
            return
        if lines:
            self._invited = False
            self._write("\n")
        if question is None or question.id != self._question.id:
            self.close()

    def ask(self, question: Question | None) -> None:
        """Ask `question`, unless it is asked already or was answered here."""
        if question is None or question.id == self._answered or not _in_foreground(self._descriptor):
            return
        if self._question is None:
            self._question = question
            self._screen.hold(True)
            _forget_typed(self._descriptor)
            asyncio.get_running_loop().add_reader(self._descriptor, self._read)
        if not self._invited:
            self._invite()

    def ask_again(self) -> None:
        """The answer from here was not taken."""
        self._answered = ""

    def close(self) -> None:
        if self._question is not None:
            self._question = None
            self._invited = False
            asyncio.get_running_loop().remove_reader(self._descriptor)
            _forget_typed(self._descriptor)
            self._screen.hold(False)

    def _invite(self) -> None:
        self._invited = True
        assert self._question is not None
        self._write(invitation(self._question))

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _read(self) -> None:
        question = self._question
        if question is None:
            return
        line = os.read(self._descriptor, LINE_LIMIT_BYTES)
        if not line:  # the terminal's end of input: no answer from here
            self._answered = question.id
            self.close()
            self._screen.tell(Line(kind=Kind.INFO, text=f"not answered here: `errand answer {self._task} TEXT`"))
            return
        text = line.decode(errors="replace").strip()
        if not text:
            self._invite()
            return
        self._answered = question.id
        self.close()
        self._group.start_soon(self._session.send, reply(self._task, question, text, self._key()))


def invitation(question: Question) -> str:
    return "Your answer: " if question.kind is QuestionKind.ANSWER else "Approve? yes, no, or what to do instead: "


def reply(task: str, question: Question, text: str, key: str) -> Answer | Approve | Deny:
    """What `text` says to `question`. Where a yes or a no is asked for, whatever is no plain yes is a no with its
    reason."""
    if question.kind is QuestionKind.ANSWER:
        return Answer(key=key, task=task, question=question.id, text=chosen(question, text))
    if text.lower() in YES:
        return Approve(key=key, task=task, question=question.id)
    return Deny(key=key, task=task, question=question.id, reason="" if text.lower() in NO else text)


def chosen(question: Question, text: str) -> str:
    """The answer that `text` means: a choice by its number, else the text itself."""
    if text in question.choices or not (text.isascii() and text.isdigit()):
        return text
    number = int(text)
    return question.choices[number - 1] if 1 <= number <= len(question.choices) else text


def _in_foreground(descriptor: int) -> bool:
    """A job in the background would be stopped by the terminal when it reads."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False


def _forget_typed(descriptor: int) -> None:
    """What was typed before the question, or after somebody else's answer, answers nothing."""
    try:
        termios.tcflush(descriptor, termios.TCIFLUSH)
    except (OSError, termios.error):
        return


def _first(errors: BaseExceptionGroup) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
