"""`ask_user`: a question to the user, who may take days to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from agents.tools.base import Hands, ToolError
from protocol.journal import ToolResult
from protocol.task import Question, QuestionKind

LONGEST_MINUTES = 1440


class AskInput(Struct, frozen=True):
    question: str
    choices: tuple[str, ...] = ()
    kind: Literal["answer", "plan"] = "answer"
    default_answer: str = ""
    minutes: float | None = None


class AskUser:
    name = "ask_user"
    definition: Mapping[str, Any] = {
        "name": "ask_user",
        "description": (
            "Ask the user and wait for the answer. Only where you cannot decide by yourself: "
            "the user is on a phone, perhaps asleep."
        ),
        "input_schema": {
            "type": "object",
            "properties": {
                "question": {"type": "string"},
                "choices": {"type": "array", "items": {"type": "string"}, "description": "Suggested answers."},
                "kind": {
                    "enum": ["answer", "plan"],
                    "description": "`plan`: `question` is a plan, which the user approves or not; no choices then.",
                },
                "default_answer": {
                    "type": "string",
                    "description": "With `minutes`: what you go on with when the user does not answer in time. Only "
                    "where it can be undone later.",
                },
                "minutes": {"type": "number", "description": "How long the user has, a day at most."},
            },
            "required": ["question"],
            "additionalProperties": False,
        },
    }
    input_type = AskInput
    survives = False
    resumable = True  # the step names the question, and the desk asks none twice

    def changes_workspace(self, raw: Mapping[str, Any]) -> bool:
        return False

    async def run(self, given: AskInput, hands: Hands) -> ToolResult:
        if not given.question.strip():
            raise ToolError("Not asked: `question` is empty.")
        default = given.default_answer.strip()
        if bool(default) != (given.minutes is not None):
            raise ToolError("Not asked: `default_answer` and `minutes` go together.")
        if given.minutes is not None and not 1 <= given.minutes <= LONGEST_MINUTES:
            raise ToolError(f"Not asked: `minutes` is 1 to {LONGEST_MINUTES}.")
        question = Question(
            id=f"question_{hands.step}",
            text=given.question,
            choices=given.choices,
            kind=QuestionKind(given.kind),
            default_answer=default,
            deadline_seconds=None if given.minutes is None else given.minutes * 60,
        )
        if question.kind is QuestionKind.ANSWER:
            return ToolResult(text=f"The user answered: {await hands.desk.ask(question)}")
        verdict = await hands.desk.approve(replace(question, choices=()))
        if verdict.approved:
            return ToolResult(text="The user approved the plan.")
        return ToolResult(text=f"The user did not approve the plan: {verdict.reason or 'without a reason'}")
