"""One task, and commands to it as the scheduler would give them."""

from __future__ import annotations

from datetime import UTC, datetime

from protocol.evolve import Task, evolve
from protocol.query import ClaimAttempt
from protocol.task import (
    Decision,
    SubmitTask,
    TaskCommand,
    Terms,
)
from services.scheduler.decide import Limits, answer, claim

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(attempts_per_turn=3)


class Desk:
    """Gives commands to one task as the scheduler would."""

    def __init__(self) -> None:
        self.task = Task(id="t1", user="owner")
        self.sequence = 0
        self.now = NOW
        self.decisions: list[Decision] = []

    def give(self, command: TaskCommand, sequence: int | None = None) -> Decision | None:
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        decision = answer(self.task, command, sequence, self.now, LIMITS)  # type: ignore[arg-type]
        if decision is not None:
            self.take(decision)
        return decision

    def take(self, decision: Decision) -> None:
        self.task = evolve(self.task, decision)
        assert self.task.state == decision.state, "the subject's last token is the state it led to"
        self.decisions.append(decision)

    def submit(self) -> Desk:
        self.give(SubmitTask(key="s", prompt="do it", repository="r"))
        return self

    def claim(self, terms: Terms | None = None) -> Desk:
        asked = ClaimAttempt(runner="r", request=f"q{self.task.attempt}")
        self.take(claim(self.task, asked, self.now, terms or Terms()))
        return self

    def receipt(self, key: str) -> tuple[str, str]:
        receipt = self.task.receipts[key]
        return receipt.status, receipt.reason
