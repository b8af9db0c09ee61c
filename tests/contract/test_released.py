"""What a release has sent, every later one understands: it lies in streams, and in a rolling restart it still comes.

`released/<version>.jsonl` has every message of a release with every field filled (`samples.py`), and lives that it
folded. A field may be added, with a default; none may go, change its name or come to mean something else.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.evolve import Task, User, evolve, evolve_user
from protocol.task import decode_decision
from protocol.user import decode_user_decision
from tests.contract import samples
from tests.contract.samples import Life, Line, Sample, Values, classes

RELEASES = sorted((Path(__file__).parent / "released").glob("*.jsonl"))
_decode_line = msgspec.json.Decoder(Line).decode


def lines(kind: type) -> list[Any]:
    found = [(file.stem, _decode_line(text)) for file in RELEASES for text in file.read_bytes().splitlines()]
    return [
        pytest.param(line, id=f"{release}-{line.name}-{number}")
        for number, (release, line) in enumerate(found)
        if isinstance(line, kind)
    ]


@pytest.mark.parametrize("sample", lines(Sample))
def test_a_released_message_says_what_it_said(sample: Sample) -> None:
    message = msgspec.json.decode(sample.message, type=classes()[sample.name])
    assert_within(msgspec.json.decode(sample.message), _plain(message), sample.name)


@pytest.mark.parametrize("enumeration", lines(Values))
def test_a_released_word_is_still_one(enumeration: Values) -> None:
    known = classes()[enumeration.name]
    assert issubclass(known, StrEnum)
    assert set(enumeration.values) <= {member.value for member in known}


@pytest.mark.parametrize("life", lines(Life))
def test_a_released_log_is_folded_to_the_state_it_was(life: Life) -> None:
    if life.name == "Task":
        task = Task(id="t1", user="owner")
        for decision in life.decisions:
            task = evolve(task, decode_decision(decision))
        state = _plain(task)
    else:
        user = User(id="owner")
        for decision in life.decisions:
            user = evolve_user(user, decode_user_decision(decision))
        state = _plain(user)
    assert_within(msgspec.json.decode(life.state), state, life.name)


@pytest.mark.parametrize("sample", lines(Sample))
def test_a_field_of_a_later_release_is_ignored(sample: Sample) -> None:
    later = msgspec.json.decode(sample.message) | {"of_a_later_release": [{"what": "ever"}]}
    here = msgspec.json.decode(msgspec.json.encode(later), type=classes()[sample.name])
    assert here == msgspec.json.decode(sample.message, type=classes()[sample.name])


def assert_within(said: Any, understood: Any, where: str) -> None:
    """Everything that was said is in what was understood; there may be more."""
    if isinstance(said, dict):
        for key, value in said.items():
            assert key in understood, f"{where}.{key} is not read any more"
            assert_within(value, understood[key], f"{where}.{key}")
    elif isinstance(said, list):
        assert len(said) == len(understood), where
        for number, (value, other) in enumerate(zip(said, understood, strict=True)):
            assert_within(value, other, f"{where}[{number}]")
    else:
        assert said == understood, where


def _plain(message: Any) -> Any:
    """As JSON has it, with what is left out as a default."""
    match message:
        case msgspec.Struct():
            tag = {"type": message.__struct_config__.tag} if message.__struct_config__.tag else {}
            return tag | {key: _plain(getattr(message, key)) for key in message.__struct_fields__}
        case dict():
            return {key: _plain(value) for key, value in message.items()}
        case tuple() | list():
            return [_plain(value) for value in message]
        case _:
            return msgspec.to_builtins(message) if message is not msgspec.UNSET else None


def test_this_release_can_be_written_down() -> None:
    written = [_decode_line(msgspec.json.encode(line)) for line in samples.lines()]
    assert {type(line) for line in written} == {Sample, Values, Life}
