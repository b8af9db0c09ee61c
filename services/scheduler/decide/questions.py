"""What the agent asks the user. Pure."""

from __future__ import annotations

from protocol.evolve import Task
from protocol.task import (
    WAIT_LIMIT_SECONDS,
    AnswerQuestion,
    AnyTaskEvent,
    ApproveQuestion,
    DenyQuestion,
    Question,
    QuestionAnswered,
    QuestionKind,
    QuestionRaised,
    RaiseQuestion,
    TaskQueued,
    TaskState,
)
from services.scheduler.decide.attempts import must_hold
from services.scheduler.decide.base import Rejected, must_be_text, so_long
from services.scheduler.decide.turns import over_time

NOBODY = "Nobody answered in time."


def raise_question(task: Task, command: RaiseQuestion) -> tuple[AnyTaskEvent, ...]:
    must_hold(task, command.attempt)
    if task.question is not None:
        raise Rejected("Another question is open: one at a time.")
    seconds = command.question.deadline_seconds
    if seconds is not None and not 0 < seconds <= WAIT_LIMIT_SECONDS:
        raise Rejected("A question's deadline is more than 0 seconds away, and at most a year.")
    return (QuestionRaised(question=command.question),)


def answer_question(task: Task, command: AnswerQuestion) -> tuple[AnyTaskEvent, ...]:
    if _open(task, command.question).kind is not QuestionKind.ANSWER:
        raise Rejected("This asks for a yes or a no: approve it or deny it.")
    must_be_text(command.text, "answer")
    return _answered(task, QuestionAnswered(question=command.question, text=command.text))


def approve_question(task: Task, command: ApproveQuestion) -> tuple[AnyTaskEvent, ...]:
    _must_be_decided(task, command.question)
    answered = QuestionAnswered(question=command.question, text="", approved=True, device=command.device)
    return _answered(task, answered)


def deny_question(task: Task, command: DenyQuestion) -> tuple[AnyTaskEvent, ...]:
    _must_be_decided(task, command.question)
    answered = QuestionAnswered(
        question=command.question, text=command.reason.strip(), approved=False, device=command.device
    )
    return _answered(task, answered)


def _must_be_decided(task: Task, question: str) -> None:
    if _open(task, question).kind is QuestionKind.ANSWER:
        raise Rejected("This question needs words: answer it.")


def _open(task: Task, question: str) -> Question:
    if task.question is None or task.question.id != question:
        raise Rejected("This question is not open any more: somebody answered it, or the turn ended.")
    return task.question


def answer_by_deadline(task: Task) -> tuple[AnyTaskEvent, ...]:
    """Nobody answered in time: it is not approved, or the default is the answer; where there is none, the turn
    fails."""
    question = task.question
    assert question is not None
    assert question.deadline_seconds is not None
    if question.kind is not QuestionKind.ANSWER:
        answered = QuestionAnswered(question=question.id, text=NOBODY, approved=False, by_deadline=True)
        return _answered(task, answered)
    if question.default_answer:
        return _answered(task, QuestionAnswered(question=question.id, text=question.default_answer, by_deadline=True))
    reason = f"The question was not answered within {so_long(question.deadline_seconds)}: {question.text}"
    return over_time(task, reason)


def _answered(task: Task, answered: QuestionAnswered) -> tuple[AnyTaskEvent, ...]:
    goes_on = task.holder is not None or task.state is TaskState.PAUSED
    return (answered,) if goes_on else (answered, TaskQueued(reason="The question was answered."))
