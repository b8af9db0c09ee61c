"""Samples of every message of a release, and of lives that it folded: what `test_released.py` holds later ones to.

When a release is made: `python -m tests.contract.samples > tests/contract/released/<version>.jsonl`, and never again.
"""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import msgspec.inspect as shapes
from msgspec import Struct

import protocol
from protocol.evolve import User, evolve_user
from protocol.task import (
    AnswerQuestion,
    CancelTask,
    FailAttempt,
    FinishAttempt,
    FireTimer,
    ParkAttempt,
    Published,
    PullRequest,
    Question,
    RaiseQuestion,
    SendMessage,
    SubmitTask,
    Usage,
)
from protocol.user import (
    AddHost,
    AddPushSubscription,
    AddUser,
    CreateSignInCode,
    RedeemSignInCode,
    Role,
    SignInByGithub,
)
from services.scheduler.decide import answer_user, lose_lease
from tests.unit.desk import LIMITS, Desk

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Sample(Struct, frozen=True, tag=True):
    """A message of one class, every field of which says something."""

    name: str
    message: msgspec.Raw


class Values(Struct, frozen=True, tag=True):
    """All members of an enumeration."""

    name: str
    values: tuple[str, ...]


class Life(Struct, frozen=True, tag=True):
    """Decisions, and the state (a `Task` or a `User`) that they were folded to."""

    name: str
    decisions: tuple[msgspec.Raw, ...]
    state: msgspec.Raw


Line = Sample | Values | Life


def classes() -> dict[str, type]:
    """Every message, part of one and enumeration of the protocol, by name."""
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(protocol.__path__):
        names = vars(importlib.import_module(f"protocol.{module.name}")).values()
        found |= {each.__name__: each for each in names if _is_of_protocol(each)}
    return dict(sorted(found.items()))


def _is_of_protocol(each: object) -> bool:
    return isinstance(each, type) and each.__module__.startswith("protocol.") and issubclass(each, Struct | enum.Enum)


def lines() -> Iterator[Line]:
    for name, each in classes().items():
        if issubclass(each, enum.Enum):
            yield Values(name, tuple(member.value for member in each))
        elif not each.__subclasses__() and name != "Route":
            yield from (Sample(name, msgspec.Raw(msgspec.json.encode(one))) for one in filled(each))
    yield task_life()
    yield user_life()


def filled(each: type) -> list[Any]:
    """Messages of one class with every field filled: as many as it takes for each kind of part to be in one."""
    return _of(shapes.type_info(each), each.__name__)


def _telling(field: shapes.Field) -> list[Any]:
    """Values that are not left out as the field's default."""
    values = _of(field.type, field.name)
    return [value for value in values if value != field.default] or values


def _of(shape: shapes.Type, name: str) -> list[Any]:
    match shape:
        case shapes.StructType(cls=cls, fields=fields):
            kinds = {field.encode_name: _telling(field) for field in fields}
            count = max((len(kind) for kind in kinds.values()), default=1)
            return [cls(**{key: kind[index % len(kind)] for key, kind in kinds.items()}) for index in range(count)]
        case shapes.UnionType(types=types):
            wanted = [each for each in types if not isinstance(each, shapes.NoneType | shapes.CustomType)]
            return [one for each in wanted for one in _of(each, name)]
        case shapes.VarTupleType(item_type=item) | shapes.ListType(item_type=item):
            return [tuple(_of(item, name))]
        case shapes.DictType(value_type=value):
            return [{"a": _of(value, name)[0]}]
        case shapes.EnumType(cls=cls):
            return [*cls][-2:]
        case shapes.BoolType():
            return [True, False]
        case shapes.IntType():
            return [len(name)]
        case shapes.FloatType():
            return [len(name) + 0.5]
        case shapes.DateTimeType():
            return [AT]
        case shapes.LiteralType(values=values):
            return list(values[-1:])
        case shapes.StrType() | shapes.AnyType():
            return [f"a-{name}"]
    raise TypeError(f"{name}: how is {shape} filled?")


def task_life() -> Life:
    """A task that went through everything, every field filled where it can be."""
    desk = Desk()
    submit = next(one for one in filled(SubmitTask))
    usage, published = filled(Usage)[0], Published("b", "c", "d", "to", 1, 2, 3, PullRequest(number=4, url="u"))
    desk.give(submit)
    desk.now = AT
    desk.give(FireTimer(key="start", name="delay", due=AT))
    desk.claim().give(RaiseQuestion(key="ask", attempt=1, question=Question(id="q", text="?", choices=("a", "b"))))
    desk.give(AnswerQuestion(key="answer", question="q", text="a"))
    desk.give(SendMessage(key="say", text="and this"))
    desk.give(FailAttempt(key="fail", attempt=1, journal_sequence=5, reason="busy", retry_after_seconds=3.0))
    desk.now = again = desk.task.delayed_until or AT
    desk.give(FireTimer(key="retry", name="delay", due=again))
    desk.claim().take(lose_lease(desk.task, AT, LIMITS))
    desk.claim().give(ParkAttempt(key="park", attempt=3, journal_sequence=7, usage=usage))
    desk.claim().give(
        FinishAttempt(
            key="finish", attempt=4, journal_sequence=9, summary="s", usage=usage, messages_read=1, published=published
        )
    )
    desk.give(CancelTask(key="late"))
    desk.give(SendMessage(key="next", text="next turn"))
    desk.claim().give(CancelTask(key="cancel", reason="enough", device="phone"))
    desk.give(SendMessage(key="third", text="once more"))
    desk.claim().give(RaiseQuestion(key="ask again", attempt=6, question=Question(id="r", text="??")))
    return Life("Task", tuple(_raw(decision) for decision in desk.decisions), _raw(desk.task))


def user_life() -> Life:
    user, decisions, later = User(id="owner"), [], AT + timedelta(days=1)
    for number, command in enumerate(
        (
            AddUser(key="add", name="Owner", role=Role.OWNER),
            CreateSignInCode(key="code", code_hash="h", expires_at=later),
            CreateSignInCode(key="unused", code_hash="i", expires_at=later),
            RedeemSignInCode(key="redeem", code_hash="h", device="d", device_name="Phone", token_hash="t"),
            RedeemSignInCode(key="twice", code_hash="h", device="d", device_name="Phone", token_hash="t"),
            filled(AddHost)[0],
            AddPushSubscription(key="push", device="d", subscription="s", sealed="x"),
            SignInByGithub(
                key="github",
                host="github.com",
                account=7,
                login="octocat",
                listed="l",
                sealed="x",
                code_hash="j",
                expires_at=later,
            ),
        )
    ):
        decision = answer_user(user, command, number + 1, AT)
        assert decision is not None
        user = evolve_user(user, decision)
        decisions.append(_raw(decision))
    return Life("User", tuple(decisions), _raw(user))


def _raw(message: Struct) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(message))


if __name__ == "__main__":
    for line in lines():
        print(msgspec.json.encode(line).decode())
