"""What the agent asks of people, carried to them and back."""

from __future__ import annotations

import anyio

from agents.contract import Verdict
from protocol.routes import command_subject
from protocol.task import Question, QuestionAnswered, RaiseQuestion
from services.bus import Bus
from services.runner.log import TaskLog


class Parked(Exception):
    """The user takes longer than the sandbox is kept: the attempt is given back, the question stays."""


class UserDesk:
    """Implements the agent's `Desk` over the task's commands and decisions."""

    def __init__(self, bus: Bus, log: TaskLog, hold_seconds: float) -> None:
        self._bus = bus
        self._log = log
        self._hold_seconds = hold_seconds

    async def ask(self, question: Question) -> str:
        """Raises Parked, or Fenced when the turn ends first."""
        answered = await self._answer(question)
        return (
            f"{answered.text} (nobody answered in time: this is the default)" if answered.by_deadline else answered.text
        )

    async def approve(self, question: Question) -> Verdict:
        """Raises Parked, or Fenced when the turn ends first."""
        answered = await self._answer(question)
        # Whatever is no plain yes, is a no.
        return Verdict(approved=answered.approved is True, reason=answered.text)

    async def _answer(self, question: Question) -> QuestionAnswered:
        log = self._log
        if question.id not in log.answers:
            # An attempt that was over when it asked was refused: the next one asks by a key of its own.
            key = f"ask {question.id} {log.attempt}"
            command = RaiseQuestion(key=key, attempt=log.attempt, question=question)
            if log.task.question is None or log.task.question.id != question.id:
                subject = command_subject(log.task.user, log.task.id, command)
                await self._bus.publish(subject, command, key=f"{log.task.id}.{command.key}")
            with log.movement.waits(self._hold_seconds), anyio.move_on_after(self._hold_seconds):
                await log.until(lambda: question.id in log.answers)
        if question.id not in log.answers:
            raise Parked
        return log.answers[question.id]
