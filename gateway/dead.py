"""What could not be decoded or handled: shown to the owner, and put back where that can do good."""

from __future__ import annotations

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import Problem
from protocol.live import Accepted
from protocol.query import Check
from protocol.routes import ROUTES, Service, as_named
from protocol.task import TaskCommand, decode_task_command
from services.bus import Buried, Bus, Refused, Unavailable

EXCERPT_CHARS = 2_000
KEY_KEPT_CHARS = 150
LIST_LIMIT = 200
PUTS_BACK = frozenset(
    route.subject.rpartition(".")[2]
    for route in ROUTES
    if Service.GATEWAY in route.senders and route.subject.startswith("cmd.<user>.<task>.")
)
"""The commands of a user to a task, by the last token of their subjects."""


class Letter(Struct, frozen=True):
    """One of them."""

    sequence: int
    """Its number here."""
    subject: str
    """Where it was found."""
    of: int
    """The stream sequence it had there."""
    reason: str
    at: str
    size_bytes: int
    excerpt: str
    """The beginning of it, as far as it can be printed; nothing of users' own logs, where credentials pass sealed."""


class DeadLetters:
    """All of them. The methods raise Unavailable; those that name one raise Problem where there is none."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list(self, after: int, limit: int) -> tuple[Letter, ...]:
        found = await self._bus.buried(after=after, limit=max(1, min(limit, LIST_LIMIT)))
        return tuple(shown(each, 200) for each in found)

    async def check(self) -> Check:
        """For `errand doctor`: how many there are. Raises nothing."""
        try:
            count = len(await self._bus.buried(limit=LIST_LIMIT))
        except Unavailable as error:
            return Check("dead letters", "fail", str(error))
        if not count:
            return Check("dead letters", "ok", "none")
        many = f"{count} or more" if count == LIST_LIMIT else str(count)
        letters = f"{many} message{'' if count == 1 else 's'}"
        return Check("dead letters", "warn", f"{letters} could not be read or handled: `errand dead ls` says why.")

    async def show(self, sequence: int) -> Letter:
        return shown(await self._get(sequence), EXCERPT_CHARS)

    async def put_back(self, sequence: int) -> Accepted:
        """Send the command again, under a key made of its own: put back twice, it is the same command."""
        letter = await self._get(sequence)
        task, command = again(letter)
        stored = await self._bus.publish(letter.subject, command, key=f"{task}.{command.key}")
        await self._remove(sequence)
        return Accepted(key=command.key, task=task, sequence=stored)

    async def remove(self, sequence: int) -> None:
        await self._get(sequence)
        await self._remove(sequence)

    async def _remove(self, sequence: int) -> None:
        try:
            await self._bus.unbury(sequence)
        except Refused:
            return  # another one was faster

    async def _get(self, sequence: int) -> Buried:
        found = await self._bus.buried(after=sequence - 1, limit=1) if sequence > 0 else []
        if not found or found[0].sequence != sequence:
            raise Problem(404, f"There is no dead letter {sequence}: `errand dead ls` shows those there are.")
        return found[0]


def shown(letter: Buried, limit: int) -> Letter:
    is_users = letter.subject.split(".")[2:3] == ["user"]
    text = letter.data[: 4 * limit].decode(errors="replace")[:limit]
    return Letter(
        sequence=letter.sequence,
        subject=letter.subject,
        of=letter.of,
        reason=letter.reason,
        at=letter.at.isoformat(),
        size_bytes=len(letter.data),
        excerpt="" if is_users else "".join(char if char.isprintable() else "·" for char in text),
    )


def again(letter: Buried) -> tuple[str, TaskCommand]:
    """The task, and the command as it can be put back. Raises Problem with the reason why it cannot."""
    kind, _, task, verb, *_ = (*letter.subject.split("."), "", "", "")
    if kind == "evt":
        raise Problem(
            409,
            f"This is an event. It has its place in the log, at sequence {letter.of}, where a release that can read it "
            "will; written once more, it would happen twice. `errand dead rm` takes it off this list.",
        )
    if kind != "cmd" or task == "user" or verb not in PUTS_BACK:
        raise Problem(
            409,
            "Only what a user said to a task can be put back: a runner says its word again by itself, timers follow "
            "from the task's state, and what concerns a user's account is done anew.",
        )
    try:
        command = as_named(decode_task_command(letter.data), letter.subject)
    except msgspec.MsgspecError as error:
        advice = f"put it back after an update, or forget it by `errand dead rm {letter.sequence}`"
        raise Problem(409, f"This release cannot read it either ({error}): {advice}.") from None
    return task, replace(command, key=f"{command.key[:KEY_KEPT_CHARS]}.dead{letter.sequence}")
