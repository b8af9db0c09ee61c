"""A machine that throws everything at the scheduler's core."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from protocol.evolve import Task, evolve
from protocol.task import (
    AnswerQuestion,
    ApproveQuestion,
    AttemptClaimed,
    AttemptEnded,
    CancelTask,
    DenyQuestion,
    FailAttempt,
    FinishAttempt,
    FireTimer,
    ParkAttempt,
    Question,
    QuestionAnswered,
    QuestionKind,
    QuestionRaised,
    RaiseQuestion,
    SendMessage,
    SetPriority,
    SubmitTask,
    TaskCommand,
    TaskState,
    TaskSubmitted,
    TurnEnded,
    TurnOpened,
    Usage,
)
from services.scheduler.decide import lose_lease
from tests.unit.desk import LIMITS, NOW, Desk


class TaskMachine(RuleBasedStateMachine):
    """Any commands in any order, repeated and late ones too, with claims and lost leases between them."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.sent: list[tuple[TaskCommand, int]] = []
        self.count = 0

    def send(self, command: TaskCommand) -> None:
        self.desk.give(command)
        self.sent.append((command, self.desk.sequence))

    def key(self) -> str:
        self.count += 1
        return f"k{self.count}"

    @rule()
    def submit(self) -> None:
        self.send(SubmitTask(key=self.key(), prompt="p", repository="r"))

    @rule(text=st.sampled_from(["", "go on"]))
    def say(self, text: str) -> None:
        self.send(SendMessage(key=self.key(), text=text))

    @rule(priority=st.integers(-11, 11))
    def prioritize(self, priority: int) -> None:
        self.send(SetPriority(key=self.key(), priority=priority))

    @rule()
    def cancel(self) -> None:
        self.send(CancelTask(key=self.key()))

    @rule(back=st.integers(0, 2), read=st.integers(0, 2))
    def finish(self, back: int, read: int) -> None:
        attempt = self.desk.task.attempt - back
        self.send(
            FinishAttempt(
                key=self.key(), attempt=attempt, journal_sequence=0, summary="", usage=Usage(), messages_read=read
            )
        )

    @rule(back=st.integers(0, 1), retry=st.none() | st.floats(0, 100))
    def fail(self, back: int, retry: float | None) -> None:
        attempt = self.desk.task.attempt - back
        self.send(
            FailAttempt(key=self.key(), attempt=attempt, journal_sequence=0, reason="x", retry_after_seconds=retry)
        )

    @rule(back=st.integers(0, 1))
    def park(self, back: int) -> None:
        self.send(ParkAttempt(key=self.key(), attempt=self.desk.task.attempt - back, journal_sequence=0))

    @rule(question=st.sampled_from("ab"), kind=st.sampled_from(QuestionKind))
    def ask(self, question: str, kind: QuestionKind) -> None:
        asked = Question(id=question, text="?", kind=kind)
        self.send(RaiseQuestion(key=self.key(), attempt=self.desk.task.attempt, question=asked))

    @rule(question=st.sampled_from("ab"))
    def reply(self, question: str) -> None:
        self.send(AnswerQuestion(key=self.key(), question=question, text="yes"))

    @rule(question=st.sampled_from("ab"))
    def approve(self, question: str) -> None:
        self.send(ApproveQuestion(key=self.key(), question=question))

    @rule(question=st.sampled_from("ab"))
    def deny(self, question: str) -> None:
        self.send(DenyQuestion(key=self.key(), question=question, reason="not so"))

    @rule(early=st.integers(-10, 200))
    def timer(self, early: int) -> None:
        self.send(FireTimer(key=self.key(), name="delay", due=NOW + timedelta(seconds=early)))

    @precondition(lambda self: self.desk.task.state is TaskState.QUEUED and self.desk.task.turn > 0)
    @rule()
    def runner_claims(self) -> None:
        self.desk.claim()

    @precondition(lambda self: self.desk.task.holder is not None)
    @rule()
    def runner_dies(self) -> None:
        self.desk.take(lose_lease(self.desk.task, NOW, LIMITS))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def an_old_command_comes_again(self, data: st.DataObject) -> None:
        command, sequence = data.draw(st.sampled_from(self.sent))
        assert self.desk.give(command, sequence) is None, "the same message of the stream"
        self.desk.sequence += 1
        assert self.desk.give(command, self.desk.sequence) is None, "the same key, stored a second time"

    @invariant()
    def every_command_has_exactly_one_receipt(self) -> None:
        keys = [d.receipt.key for d in self.desk.decisions if d.receipt]
        assert sorted(keys) == sorted(command.key for command, _ in self.sent)

    @invariant()
    def turns_and_attempts_end_exactly_once(self) -> None:
        events = [event for decision in self.desk.decisions for event in decision.events]
        opened = [1 for e in events if isinstance(e, TaskSubmitted)] + [
            e.turn for e in events if isinstance(e, TurnOpened)
        ]
        ended = [event.turn for event in events if isinstance(event, TurnEnded)]
        assert opened == list(range(1, len(opened) + 1))
        assert ended == opened[: len(ended)]
        assert len(opened) - len(ended) == int(self.desk.task.is_open)
        claimed = [event.attempt for event in events if isinstance(event, AttemptClaimed)]
        over = [event.attempt for event in events if isinstance(event, AttemptEnded)]
        assert claimed == list(range(1, len(claimed) + 1))
        assert over == claimed[: len(over)]
        assert len(claimed) - len(over) == int(self.desk.task.holder is not None)

    @invariant()
    def the_state_fits_what_it_says(self) -> None:
        task = self.desk.task
        assert (task.state is TaskState.RUNNING) <= (task.holder is not None)
        assert (task.holder is not None) <= (task.state in (TaskState.RUNNING, TaskState.WAITING))
        assert (task.state is TaskState.WAITING) == (task.question is not None)
        assert (task.state is TaskState.DELAYED) == (task.delayed_until is not None)

    @invariant()
    def a_question_is_answered_once_and_in_its_kind(self) -> None:
        asked: Question | None = None
        for event in (event for decision in self.desk.decisions for event in decision.events):
            if isinstance(event, QuestionRaised):
                asked = event.question
            elif isinstance(event, QuestionAnswered):
                assert asked is not None
                assert asked.id == event.question
                assert (event.approved is None) == (asked.kind is QuestionKind.ANSWER)
                asked = None

    @invariant()
    def the_fold_of_the_log_is_the_state(self) -> None:
        folded = Task(id="t1", user="owner")
        for decision in self.desk.decisions:
            folded = evolve(folded, decision)
        assert folded == self.desk.task


TestTaskMachine = TaskMachine.TestCase
TestTaskMachine.settings = settings(max_examples=300, stateful_step_count=30, deadline=None, print_blob=True)
