"""What the agent asks the user. Pure."""

from __future__ import annotations

from protocol.evolve import Task
from protocol.task import (
    AnswerQuestion,
    AnyTaskEvent,
    QuestionAnswered,
    QuestionRaised,
    RaiseQuestion,
    TaskQueued,
)
from services.scheduler.decide.attempts import must_hold
from services.scheduler.decide.base import Rejected


def raise_question(task: Task, command: RaiseQuestion) -> tuple[AnyTaskEvent, ...]:
    must_hold(task, command.attempt)
    if task.question is not None:
        raise Rejected("Another question is open: one at a time.")
    return (QuestionRaised(question=command.question),)


def answer_question(task: Task, command: AnswerQuestion) -> tuple[AnyTaskEvent, ...]:
    if task.question is None or task.question.id != command.question:
        raise Rejected("This question is not open any more: somebody answered it, or the turn ended.")
    if not command.text.strip():
        raise Rejected("The answer is empty.")
    answered = QuestionAnswered(question=command.question, text=command.text)
    return (answered,) if task.holder else (answered, TaskQueued(reason="The question was answered."))
