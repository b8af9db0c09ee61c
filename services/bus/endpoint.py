"""One query that a service answers, and how the answers of queries are read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Union

import anyio
import anyio.abc
import msgspec
import nats.errors
from nats.micro.request import Request

from protocol.base import MESSAGE_LIMIT_BYTES, Message, encode
from protocol.query import Refusal
from protocol.routes import ROUTES, Service
from services import log
from services.bus.errors import Refused, Unavailable

Handler = Callable[[Any], Awaitable[Message]]
"""Answers one query; raises Refused with a reason."""

REPLIES = {route.messages[0]: route.replies for route in ROUTES if route.replies}
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def reply_decoder(question: type) -> msgspec.json.Decoder[Any]:
    if question not in _decoders:
        union = Union[(*REPLIES[question], Refusal)]
        _decoders[question] = msgspec.json.Decoder(union)
    return _decoders[question]


class Endpoint:
    """Answers one type of question, within the limit of all of its service. Equal questions that are under way get one
    answer where it `joins` them."""

    def __init__(
        self,
        service: Service,
        question: type,
        handler: Handler,
        limit: anyio.CapacityLimiter,
        tasks: anyio.abc.TaskGroup,
        *,
        joins: bool,
    ) -> None:
        self._service = service
        self._decoder = msgspec.json.Decoder(question)
        self._handler = handler
        self._limit = limit
        self._tasks = tasks
        self._joins = joins
        self._under_way: dict[bytes, list[Request]] = {}

    async def receive(self, request: Request) -> None:
        # nats-py awaits one request of an endpoint after the other; ours run side by side.
        if request.data in self._under_way:
            self._under_way[request.data].append(request)
            return
        askers = [request]
        if self._joins:
            self._under_way[request.data] = askers
        self._tasks.start_soon(self._answer, request.data, askers)

    async def _answer(self, data: bytes, askers: list[Request]) -> None:
        try:
            async with self._limit:
                reply = encode(await self._handle(data))
        finally:
            self._under_way.pop(data, None)
        if len(reply) > MESSAGE_LIMIT_BYTES:
            reply = encode(Refusal(reason=f"The answer has {len(reply)} bytes, over the limit.", code="internal"))
        for request in askers:
            with suppress(nats.errors.Error):
                await request.respond(reply)

    async def _handle(self, data: bytes) -> Message:
        try:
            return await self._handler(self._decoder.decode(data))
        except msgspec.MsgspecError as error:
            return Refusal(reason=f"The request cannot be read: {error}")
        except Refused as error:
            return Refusal(reason=error.reason, code=error.code)
        except Unavailable as error:
            return Refusal(reason=str(error), code="unavailable")
        except Exception:
            log.get().exception("query_failed", query=self._decoder.type.__name__)
            return Refusal(reason=f"{self._service} failed; its log says why.", code="internal")
