"""What the scheduler owes to other actors, where the bus takes a part of it alone."""

from __future__ import annotations

import anyio
import pytest
from msgspec import Struct
from msgspec.structs import replace

from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.task import TaskState
from protocol.user import EndRun
from services.bus import Refused
from services.scheduler.actors import TaskActor, UserActor
from services.scheduler.outbox import Outbox
from tests.unit.test_decide_schedules import Log

pytestmark = pytest.mark.anyio


class Wire:
    """Takes what is within the limit of a message."""

    def __init__(self) -> None:
        self.sent: list[Struct] = []
        self.came = anyio.Event()

    async def publish(self, subject: str, message: Struct, *, key: str = "") -> int:
        if len(encode(message)) > MESSAGE_LIMIT_BYTES:
            raise Refused("It is over the limit.")
        self.sent.append(message)
        self.came.set()
        return len(self.sent)


async def test_a_run_whose_task_is_over_the_limit_of_a_message_ends_as_failed_and_is_not_sent_for_ever() -> None:
    log = Log()
    log.fire()
    long = replace(log.schedule.submission, metadata={"note": "x" * MESSAGE_LIMIT_BYTES})
    actor, wire = UserActor("owner"), Wire()
    actor.user = replace(log.user, schedules={"s1": replace(log.schedule, submission=long)})
    outbox = Outbox(wire, lambda _: actor, TaskActor)  # type: ignore[arg-type]
    async with anyio.create_task_group() as group:
        group.start_soon(outbox.keep, lambda: [actor])
        with anyio.fail_after(5):
            await wire.came.wait()
        group.cancel_scope.cancel()
    [end] = wire.sent
    assert isinstance(end, EndRun)
    assert (end.outcome, end.reason) == (TaskState.FAILED, "Its task could not be sent: It is over the limit.")
