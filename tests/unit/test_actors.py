"""Who may send a command is said by its subject alone."""

from __future__ import annotations

import msgspec
import pytest

from protocol.base import encode
from protocol.routes import command_subject, user_command_subject
from protocol.task import ApproveQuestion, CancelTask, SubmitTask, TaskCommand
from protocol.user import RemoveUser
from services.bus import Stored
from services.scheduler.actors import LogActor, TaskActor, UserActor
from services.scheduler.decide import Limits
from tests.unit.desk import NOW


def sent(subject: str, data: bytes) -> Stored:
    return Stored(subject, 1, data, NOW)


@pytest.mark.parametrize(
    "command",
    [CancelTask(key="k"), ApproveQuestion(key="k", question="q"), SubmitTask(key="k", prompt="p", repository="/r")],
    ids=lambda command: type(command).__name__,
)
def test_a_runner_says_no_users_word_on_a_subject_of_its_own(command: TaskCommand) -> None:
    actor: LogActor = TaskActor("owner", "t1")
    assert actor.answer(sent(command_subject("owner", "t1", command), encode(command)), NOW, Limits()) is not None
    with pytest.raises(msgspec.ValidationError, match="on the subject of a `finish_attempt`"):
        actor.answer(sent("cmd.owner.t1.finish_attempt", encode(command)), NOW, Limits())


def test_repos_says_no_owners_word_on_a_subject_of_its_own() -> None:
    actor, command = UserActor("owner"), RemoveUser(key="k")
    assert actor.answer(sent(user_command_subject("owner", command), encode(command)), NOW, Limits()) is not None
    with pytest.raises(msgspec.ValidationError, match="on the subject of a `rotate_github_tokens`"):
        actor.answer(sent("cmd.owner.user.rotate_github_tokens", encode(command)), NOW, Limits())
