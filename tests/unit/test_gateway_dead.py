"""Which dead letters can be put back, and what is shown of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.dead import DeadLetters, again, shown
from gateway.errors import Problem
from protocol.base import encode
from protocol.ids import KEY_LIMIT_BYTES
from protocol.task import FinishAttempt, SendMessage, Usage
from services.bus import Buried

SAID = encode(SendMessage(key="k", text="go on"))


def letter(subject: str, data: bytes = SAID) -> Buried:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Buried(sequence=7, subject=subject, of=40, reason="why", at=at, data=data)


def test_what_a_user_said_is_put_back_under_one_key_however_often() -> None:
    found = letter("cmd.owner.t1.send_message")
    assert again(found) == again(found) == ("t1", SendMessage(key="k.dead7", text="go on"))


def test_the_new_key_is_never_longer_than_keys_may_be() -> None:
    long = encode(SendMessage(key="k" * KEY_LIMIT_BYTES, text="go on"))
    assert len(again(letter("cmd.owner.t1.send_message", long))[1].key) <= KEY_LIMIT_BYTES


@pytest.mark.parametrize(
    ("subject", "data", "reason"),
    [
        ("evt.owner.t1.task.queued", b"{}", "happen twice"),
        ("evt.owner.t1.journal.noticed", b"{}", "happen twice"),
        ("cmd.owner.t1.send_message", b"\xff", "cannot read it"),
        ("cmd.owner.t1.send_message", b'{"type": "of_a_later_release"}', "after an update"),
        ("cmd.owner.t1.send_message", b"rubbish", "errand dead rm 7"),
        (
            "cmd.owner.t1.finish_attempt",
            encode(FinishAttempt(key="finish 1", attempt=1, journal_sequence=0, summary="", usage=Usage())),
            "again by itself",
        ),
        ("cmd.owner.t1.fire_timer", b"{}", "timers follow"),
        ("cmd.owner.user.add_device", b"{}", "done anew"),
        ("cmd.owner.user.send_message", SAID, "done anew"),
        ("cmd.owner.t1.cancel_task", SAID, "a `send_message` on the subject of a `cancel_task`"),
        ("", b"", "Only what a user said"),
    ],
)
def test_the_rest_is_refused_with_the_reason(subject: str, data: bytes, reason: str) -> None:
    with pytest.raises(Problem, match=reason):
        again(letter(subject, data))


def test_it_is_shown_as_far_as_it_can_be_printed() -> None:
    said = "cmd.owner.t1.send_message"
    assert shown(letter(said, b"a\x1b[2Jb\xff"), 200).excerpt == "a·[2Jb\N{REPLACEMENT CHARACTER}"
    assert len(shown(letter(said, b"x" * 5_000), 200).excerpt) == 200


def test_nothing_is_shown_of_a_users_log() -> None:
    assert shown(letter("cmd.owner.user.add_host", b'{"sealed": "x"}'), 200).excerpt == ""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("letters", "status", "text"),
    [
        (0, "ok", "none"),
        (1, "warn", "1 message could not"),
        (2, "warn", "2 messages could not"),
        (250, "warn", "200 or more messages could not"),
    ],
)
async def test_the_doctor_counts_them(letters: int, status: str, text: str) -> None:
    class Kept:
        async def buried(self, limit: int) -> list[Buried]:
            return [letter("evt.owner.t1.task.queued")] * min(letters, limit)

    found = await DeadLetters(Kept()).check()  # type: ignore[arg-type]
    assert found.status == status
    assert found.text.startswith(text)
