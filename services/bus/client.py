"""The connection to NATS, and the JetStream API over it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import anyio
import msgspec
import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from protocol.cells import Cell
from services.bus.errors import Refused, Unavailable
from services.bus.headers import SUBJECT_HEADERS

TIMEOUT_SECONDS = 2.0
"""For one answer of the server; past it, whether a publish was stored is unknown."""
RECONNECT_SECONDS = 0.1


class Client(NatsClient):
    """The edge: outside of it each name has its cell's before it, and here none.

    nats-py looks at each character of each header's name, in Python: with our five to eight headers a message, that
    was more work than all the rest of receiving it."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "", headers: dict[str, Any] | None = None
    ) -> None:
        if self.cell.name and headers:
            headers = {k: self.cell.subject(v) if k in SUBJECT_HEADERS else v for k, v in headers.items()}
        await super().publish(self.cell.subject(subject), payload, reply, headers)

    def give_up(self) -> None:
        """End every request that waits for its answer."""
        for answer in self._resp_map.values():
            if not answer.done():
                answer.set_exception(nats.errors.StaleConnectionError())

    async def _process_pong(self) -> None:
        """nats-py 2.16 stops reading, without a reconnect, at the pong of a flush that was cancelled or timed out."""
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def subscribe(self, subject: str, *arguments: Any, **named: Any) -> Subscription:
        return await super().subscribe(self.cell.subject(subject), *arguments, **named)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        message = super()._build_message(sid, subject, reply, data, headers)
        if self.cell.name:
            message.subject = self.cell.back(message.subject)
            if headers and "Nats-Subject" in headers:
                headers["Nats-Subject"] = self.cell.back(headers["Nats-Subject"])
        return message

    @staticmethod
    def _parse_header_lines(raw: bytes) -> dict[str, str]:
        found = {}
        for line in raw.decode("utf-8", "replace").split("\r\n"):
            name, colon, value = line.partition(":")
            if colon and " " not in name:
                found[name] = value.strip()
        return found


async def in_time(opening: Coroutine[Any, Any, None], seconds: float) -> None:
    """Cancelled until it ends: nats-py tries for ever, and one cancellation can be lost in Python 3.11's `wait_for`,
    when what that waits for ends in the same moment. Raises TimeoutError, or what `opening` does."""
    task = asyncio.ensure_future(opening)
    try:
        await asyncio.wait((task,), timeout=seconds)
    finally:
        with anyio.CancelScope(shield=True):
            while not task.done():
                task.cancel()
                await asyncio.wait((task,), timeout=RECONNECT_SECONDS)
    if task.cancelled():
        raise TimeoutError
    task.result()


async def jetstream_api(client: Client, call: str, request: dict[str, Any]) -> dict[str, Any]:
    """One call of the JetStream API; nats-py has no fields for schedules, republish beside them, and persist mode."""
    try:
        asked = msgspec.json.encode(client.cell.request(request))
        message = await client.request(f"$JS.API.{call}", asked, timeout=TIMEOUT_SECONDS)
    except (nats.errors.Error, TimeoutError) as error:
        raise Unavailable(f"NATS did not answer {call}: {error!r}") from error
    answer = msgspec.json.decode(message.data)
    if "error" in answer:
        raise Refused(f"NATS refused {call}: {answer['error'].get('description', '')}")
    return answer
