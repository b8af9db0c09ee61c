"""Messages as a stream has them, read from what the server delivers."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from nats.aio.msg import Msg

from services.bus.headers import EXPECTED


class Stored(Struct, frozen=True):
    """A message as its stream has it."""

    subject: str
    sequence: int
    data: bytes
    at: datetime
    previous: int = 0
    """The sequence that the log had to end with when this was committed."""


class Buried(Struct, frozen=True):
    """What could not be decoded or handled, as it came."""

    sequence: int
    """In the stream of such."""
    subject: str
    """Where it was found."""
    of: int
    """Its sequence there."""
    reason: str
    at: datetime
    data: bytes


def status_of(message: Msg) -> str | None:
    return message.headers.get("Status") if message.headers else None


def expected_of(message: Msg) -> int:
    return int(message.headers.get(EXPECTED, 0)) if message.headers else 0


def delivery_of(reply: str) -> tuple[int, int, int, int]:
    """Stream sequence, delivery sequence, nanoseconds, pending; the subject has two tokens more where a domain is
    set."""
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 2]), int(tokens[first + 3])


def from_direct(message: Msg) -> Stored:
    headers = message.headers or {}
    at = datetime.fromisoformat(headers["Nats-Time-Stamp"][:26].rstrip("Z") + "+00:00")
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, at, expected_of(message))


def buried_of(message: Msg) -> Buried:
    headers, stored = message.headers or {}, from_direct(message)
    return Buried(
        sequence=stored.sequence,
        subject=headers.get("Errand-Subject", ""),
        of=int(headers.get("Errand-Sequence", 0)),
        reason=headers.get("Errand-Reason", ""),
        at=stored.at,
        data=stored.data,
    )
