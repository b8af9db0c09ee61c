"""The archive: the logs of tasks that ended long ago, one object a task in the object store's bucket `archive`.

An object has the task's events as they were, with the sequences they had: JSON lines in gzip, so that `zcat` shows
them. The stream keeps one message of an archived task, `task_archived`, which says where the object is. When the task
goes on, its log goes on behind that message; whoever wants the whole of it reads it by `whole_log`.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime

import msgspec
from msgspec import Raw, Struct

from protocol.base import reader
from protocol.task import Decision, TaskArchived, decode_decision
from services.bus import ARCHIVE, Bus, Refused, Stored, Unavailable

GZIP_LEVEL = 6


class Line(Struct, frozen=True, omit_defaults=True):
    """One event in the archive."""

    subject: str
    sequence: int
    at: datetime
    previous: int = 0
    data: Raw = Raw(b"null")
    """As it was, byte for byte."""
    unreadable: bytes = b""
    """In place of `data`, what was no JSON (in base64)."""


_decode_line = msgspec.json.Decoder(Line).decode
_is_json = reader(msgspec.json.Decoder(Raw).decode)


def pack(log: Iterable[Stored]) -> bytes:
    """The same log gives the same bytes."""
    return gzip.compress(b"\n".join(msgspec.json.encode(_line(stored)) for stored in log), GZIP_LEVEL, mtime=0)


def unpack(data: bytes) -> list[Stored]:
    """Raises msgspec.MsgspecError or OSError for what is no archive."""
    lines = (_decode_line(text) for text in gzip.decompress(data).split(b"\n"))
    return [
        Stored(line.subject, line.sequence, line.unreadable or bytes(line.data), line.at, line.previous)
        for line in lines
    ]


def _line(stored: Stored) -> Line:
    head = {"subject": stored.subject, "sequence": stored.sequence, "at": stored.at, "previous": stored.previous}
    try:
        _is_json(stored.data)
    except msgspec.MsgspecError:
        return Line(**head, unreadable=stored.data)
    # A line's end within JSON is a blank between two tokens.
    return Line(**head, data=Raw(stored.data.replace(b"\n", b" ")))


class Gone(Refused):
    """The archive that the stream names cannot be read."""


def archived(decision: Decision) -> TaskArchived | None:
    """The event that put the task away, where the decision is that one."""
    return next((event for event in decision.events if isinstance(event, TaskArchived)), None)


async def whole_log(bus: Bus, log: str, *, after: int = 0) -> Sequence[Stored]:
    """The events on `log` (`evt.<user>.<task>.>`) with a sequence over `after`, the archived ones too. Raises
    Unavailable, also when the task is archived anew meanwhile; Gone when its archive is not there."""
    return await with_archived(bus, log, await bus.replay(log, after=after), after)


async def with_archived(bus: Bus, log: str, stored: Sequence[Stored], after: int) -> Sequence[Stored]:
    """`stored`, which was read from `log` behind `after`, with what the archive has in place of what had left the
    stream by then."""
    index, where = _last_archived(stored)
    if where is None or where.until <= (stored[index - 1].sequence if index else after):
        return stored
    kept = await _fetch(bus, log, where, stored[index].sequence)
    return [*(each for each in kept if after < each.sequence < stored[index].sequence), *stored[index:]]


def _last_archived(stored: Sequence[Stored]) -> tuple[int, TaskArchived | None]:
    for index in range(len(stored) - 1, -1, -1):
        # Nearly every event is another one, and is spared the decoding.
        if b'"task_archived"' in stored[index].data:
            with suppress(msgspec.MsgspecError):
                if (found := archived(decode_decision(stored[index].data))) is not None:
                    return index, found
    return 0, None


async def _fetch(bus: Bus, log: str, where: TaskArchived, sequence: int) -> list[Stored]:
    try:
        return unpack(await bus.get_blob(where.archive, ARCHIVE))
    except KeyError:
        still_there = await bus.replay(log, after=sequence - 1, limit=1)
        if not still_there or still_there[0].sequence != sequence:
            raise Unavailable("The task is being archived: read it again.") from None
        raise Gone(f"The archive of this task is gone: the object {where.archive} is missing.", "not_found") from None
    except (OSError, EOFError, msgspec.MsgspecError) as error:
        raise Gone(f"The archive of this task cannot be read: {error}", "internal") from None
