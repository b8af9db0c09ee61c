"""The bus: connect, publish, commit, read, ask and serve. The one place that knows NATS.

Facts that this file rests on (server 2.15, measured): a publish with an expected last sequence over a wildcard is
refused with error 10071 when somebody else wrote; `republish` delivers what was stored, with its sequence; a batched
direct get replays without a consumer; a message id that was seen within two minutes answers with the sequence it got
the first time.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, Union

import anyio
import anyio.abc
import msgspec
import nats.errors
import nats.js.errors
import nats.micro
from msgspec import Struct
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.micro.request import Request
from nats.micro.service import Service as MicroService

from protocol.base import MESSAGE_LIMIT_BYTES, Message, encode
from protocol.cells import Cell, CellName
from protocol.query import Refusal
from protocol.routes import ROUTES, Service, Stream, query_subject
from services import log
from services.background import background
from services.writer import Answer, Fault, Writer, read_answer

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_LOG = "Nats-Expected-Last-Subject-Sequence-Subject"
MESSAGE_ID = "Nats-Msg-Id"
SCHEDULE_TARGET = "Nats-Schedule-Target"
SUBJECT_HEADERS = (EXPECTED_LOG, SCHEDULE_TARGET)
"""Headers whose value is a subject."""
WRONG_LAST_SEQUENCE = 10071

NOBODY = "503"
"""The status of an answer to what nobody takes."""
GROUPED = ("cmd.", "evt.", "timer.")
"""What may travel in one batch: the subjects of one stream."""

TIMEOUT_SECONDS = 2.0
"""For one answer of the server; past it, whether a publish was stored is unknown."""
RECONNECT_SECONDS = 0.1
CONNECT_SECONDS = 3.0
"""For the first connection."""
PUBLISH_TRIES = 4
"""How often a publish with a key is tried: long enough for a restart of the server."""
HEARTBEAT_SECONDS = 1.0
SILENCE_SECONDS = 3.5
"""A reader that heard nothing for so long, no heartbeat either, is made again."""
NEXT_SECONDS = 15.0
"""How long one request for a shared message waits at the server."""
TAKE_AGAIN_SECONDS = 0.5
NONE_CAME = "408"
"""The status of a request for a shared message that has waited in vain."""
FAILED_SECONDS = 10.0
"""A shared message whose handling failed comes again after so long."""
HANDLED_TRIES = 5
"""A shared message whose handling failed so often is buried."""
SHARED_LIMIT = 10_000
"""Messages of one shared consumer that are in hand or wait to come again; beyond it, new ones wait too."""
REPLAY_BATCH = 512
BLOBS = "blobs"
SNAPSHOTS = "snapshots"
"""The scheduler's alone."""
ARCHIVE = "archive"
"""The logs of tasks that ended long ago (services/archive.py). The scheduler alone writes it."""
LEASES = "lease"
LEASE_SECONDS = 5.0


class _Blob(Struct, frozen=True):
    """What the object store says of a blob."""

    name: str
    deleted: bool = False


_decode_blob = msgspec.json.Decoder(_Blob).decode


class Renewal(Struct, frozen=True):
    """On `$KV.lease.attempt.<task>`: this runner still moves."""

    attempt: int
    runner: str = ""


R = TypeVar("R", bound=Message)
T = TypeVar("T")


class Unavailable(Exception):
    """NATS, or who was asked, did not answer in time. Whether a publish was stored is not known."""


class NoAnswer(Unavailable):
    """Somebody serves the query, but did not answer in time."""


class Conflict(Exception):
    """Somebody else wrote to the log: fold what came and decide again."""


class Refused(Exception):
    """A request was answered by a refusal; the reason is for a person."""

    def __init__(self, reason: str, code: str = "refused") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Later(Exception):
    """What a shared message asks for cannot be done now: it comes again, to this process or another."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class BusConfig(Struct, frozen=True, kw_only=True):
    """How to reach NATS."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Server addresses, separated by commas."""
    nats_password_file: str = ""
    """File with this service's password; empty for a server that asks for none."""
    cell: CellName = ""
    """The name of this installation where several are on one nats-server (docs/running.md): 1 to 16 of a-z and 0-9."""
    health_file: str = ""
    """Touched every 2 s while work moves, for who keeps this process alive: older than that, or gone, it does not."""

    def password(self) -> str:
        return Path(self.nats_password_file).read_text().strip() if self.nats_password_file else ""


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


Handler = Callable[[Any], Awaitable[Message]]
"""Answers one query; raises Refused with a reason."""
OnStored = Callable[[Stored], Awaitable[None]]


class Bus:
    """One service's connection. Made by `connect`; usable until its `async with` ends."""

    def __init__(self, client: _Client, service: Service, tasks: anyio.abc.TaskGroup) -> None:
        self._nats = client
        self._jetstream = client.jetstream(timeout=TIMEOUT_SECONDS)
        self._service = service
        self._tasks = tasks
        self._answers = client.new_inbox()
        self._writer = Writer(self._send, timeout_seconds=TIMEOUT_SECONDS)
        self._readers: list[Reader] = []
        self._on_interruption: list[Callable[[], None]] = []
        self._log = log.get()

    @property
    def connected(self) -> bool:
        return self._nats.is_connected

    def stalled(self) -> list[str]:
        """The readers that do not move, for `Health`."""
        return [reader.name for reader in self._readers if not reader.moving]

    def on_interruption(self, call: Callable[[], None]) -> None:
        """Call whenever a `tap` or `listen` may have missed messages: the connection is back after a loss, or some
        were dropped because they were not handled fast enough."""
        self._on_interruption.append(call)

    def lost(self) -> None:
        """The connection is gone, and every answer that was awaited on it with it: also a service's, which may answer a
        question only over the connection that brought it."""
        self._writer.give_up()
        self._nats.give_up()

    def found_again(self) -> None:
        """The connection is back, perhaps to a server that restarted."""
        for reader in self._readers:
            reader.make_again()
        self.interrupted()

    def interrupted(self) -> None:
        for call in self._on_interruption:
            call()

    async def begin(self) -> None:
        """Be told what becomes of what is published; before the first of it."""
        await self._nats.subscribe(f"{self._answers}.*", cb=self._on_answer)
        self._tasks.start_soon(self._writer.run)

    # Publish and commit

    async def publish(self, subject: str, message: Message | Struct, *, key: str = "") -> int:
        """Store a message; return its sequence. With a `key`, sent again within two minutes it is stored once."""
        data = encode(message)
        for _ in range(PUBLISH_TRIES - 1 if key else 0):
            with suppress(Unavailable):
                return await self._store(subject, data, {MESSAGE_ID: key})
        return await self._store(subject, data, {MESSAGE_ID: key} if key else {})

    async def commit(self, subject: str, message: Message | Struct, *, log: str, expected: int) -> int:
        """Store a message only if the last of all messages on `log` (a wildcard) has the sequence `expected` (0: none
        is there).

        Raises Conflict when it has not; after Unavailable the log must be read to know. A message id would not help:
        the server compares the sequence first.
        """
        return await self._store(subject, encode(message), {EXPECTED: str(expected), EXPECTED_LOG: log})

    async def schedule(self, subject: str, message: Struct, *, at: datetime, target: str) -> int:
        """Let the server publish `message` on `target` at a time. The same subject again replaces it."""
        when = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return await self._store(subject, encode(message), {"Nats-Schedule": f"@at {when}", SCHEDULE_TARGET: target})

    async def purge(self, stream: Stream, subject: str, *, below: int = 0) -> None:
        """Take away every message on `subject` (wildcards allowed); only those with a sequence under `below` where that
        is given."""
        await self._api(f"STREAM.PURGE.{stream}", {"filter": subject, "seq": below} if below else {"filter": subject})

    async def preview(self, subject: str, message: Struct) -> None:
        """Send without asking whether it was stored. May be lost."""
        with suppress(nats.errors.Error):
            await self._nats.publish(subject, encode(message))

    async def bury(self, stream: str, stored: Stored, reason: str) -> None:
        """Park what cannot be decoded or handled where people look for it, and go on."""
        self._log.warning("buried", subject=stored.subject, sequence=stored.sequence, reason=reason)
        headers = {
            "Errand-Reason": " ".join(reason.split())[:1000],
            "Errand-Subject": stored.subject,
            "Errand-Sequence": str(stored.sequence),
        }
        # The id makes it one burial however often the same message is met.
        headers[MESSAGE_ID] = f"dead.{stream}.{stored.sequence}.{self._service}"
        # The stream takes a little more than we do: what came in whole is parked cut, rather than not at all.
        await self._store(f"dead.{stream.lower()}", stored.data[:MESSAGE_LIMIT_BYTES], headers)

    async def buried(self, *, after: int = 0, limit: int = 100) -> list[Buried]:
        """What was buried, in order, with a sequence over `after`. Raises Unavailable."""
        if await self.last("dead.>", Stream.DEAD) <= after:
            return []
        request = {"next_by_subj": "dead.>", "seq": after + 1, "batch": limit}
        return (await self._direct_batch(request, Stream.DEAD, _buried))[0]

    async def unbury(self, sequence: int) -> None:
        """Take one away from there. Raises Unavailable, and Refused when it is not there."""
        await self._api(f"STREAM.MSG.DELETE.{Stream.DEAD}", {"seq": sequence})

    async def _store(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        if len(data) > MESSAGE_LIMIT_BYTES:
            raise Refused(f"A message of {len(data)} bytes is over the limit of {MESSAGE_LIMIT_BYTES}.")
        try:
            answer = await self._writer.store(subject, data, headers, alone=not subject.startswith(GROUPED))
        except TimeoutError:
            raise Unavailable(f"NATS did not take a message on {subject} in time.") from None
        if answer.error is None:
            return answer.seq
        if answer.error.err_code == WRONG_LAST_SEQUENCE:
            raise Conflict(subject)
        raise Unavailable(f"NATS refused a message on {subject}: {answer.error.description}")

    async def _send(self, subject: str, data: bytes, headers: dict[str, str], token: str) -> None:
        reply = f"{self._answers}.{token}" if token else ""
        try:
            await self._nats.publish(subject, data, reply, headers or None)
        except nats.errors.Error as error:
            self._writer.answer(token, Answer(error=Fault(repr(error))))

    async def _on_answer(self, message: Msg) -> None:
        answer = read_answer(message.data)
        if _status(message) == NOBODY:
            answer = Answer(error=Fault("no stream has this subject"))
        self._writer.answer(message.subject.rpartition(".")[2], answer)

    # Read

    async def last(self, subject: str, stream: str = Stream.TASKS) -> int:
        """The sequence of the last message on `subject` (wildcards allowed), 0 when there is none."""
        stored = await self._direct_get({"last_by_subj": subject}, stream)
        return stored[0].sequence if stored else 0

    async def replay(self, subject: str, *, after: int = 0, limit: int = 0, stream: str = Stream.TASKS) -> list[Stored]:
        """All messages on `subject` (wildcards allowed) with a sequence over `after`, in order, without a consumer;
        the first `limit` of them where it is not 0."""
        # A get that finds nothing new scans to the stream's end: the last one is asked for first.
        if await self.last(subject, stream) <= after:
            return []
        found: list[Stored] = []
        pending = 1
        while pending and not 0 < limit <= len(found):
            size = min(pending, REPLAY_BATCH, limit - len(found) if limit else REPLAY_BATCH)
            request = {"next_by_subj": subject, "seq": after + 1, "batch": size}
            batch, pending = await self._direct_batch(request, stream, _from_direct)
            found += batch
            if batch:
                after = batch[-1].sequence
        return found

    async def _direct_get(self, request: dict[str, Any], stream: str) -> list[Stored]:
        try:
            asked = msgspec.json.encode(self._nats.cell.request(request))
            answer = await self._nats.request(f"$JS.API.DIRECT.GET.{stream}", asked, timeout=TIMEOUT_SECONDS)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"NATS did not answer a read of {stream}: {error!r}") from error
        return [] if _status(answer) else [_from_direct(answer)]

    async def _direct_batch(
        self, request: dict[str, Any], stream: str, make: Callable[[Msg], T]
    ) -> tuple[list[T], int]:
        """One batch, and how many messages are left after it."""
        found: list[T] = []
        ended: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        async def on_message(message: Msg) -> None:
            if not _status(message):
                found.append(make(message))
            elif not ended.done():
                ended.set_result(message)

        inbox = self._nats.new_inbox()
        subscription = await self._nats.subscribe(inbox, cb=on_message)
        try:
            asked = msgspec.json.encode(self._nats.cell.request(request))
            await self._nats.publish(f"$JS.API.DIRECT.GET.{stream}", asked, reply=inbox)
            heard = -1
            while not ended.done() and heard < len(found):
                heard = len(found)
                await asyncio.wait((ended,), timeout=TIMEOUT_SECONDS)
        except nats.errors.Error as error:
            raise Unavailable(f"NATS did not answer a read of {stream}: {error!r}") from error
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()
        if not ended.done():
            raise Unavailable(f"NATS did not answer a read of {stream} in time.")
        status, headers = _status(ended.result()), ended.result().headers or {}
        if status not in ("204", "404"):
            raise Unavailable(f"NATS answered a read of {stream} with {status}.")
        return found, int(headers.get("Nats-Num-Pending", "0")) if status == "204" else 0

    @asynccontextmanager
    async def read(self, *filters: str, after: int, stream: Stream = Stream.TASKS) -> AsyncIterator[Reader]:
        """Follow all messages on the filters in order, from the one after `after`, over any reconnect."""
        reader = Reader(self._nats, stream, filters, after)
        self._readers.append(reader)
        try:
            async with background() as group:
                group.start_soon(reader.keep)
                yield reader
        finally:
            self._readers.remove(reader)

    def share(self, name: str, *filters: str, handle: OnStored, ack_seconds: float, at_once: int) -> Turns:
        """Take turns with all processes of this service that share under this name: each message that is stored on the
        filters after the first of them began is handled by one of them, `at_once` side by side."""
        turns = Turns(
            self._nats, Stream.TASKS, name, filters, handle, self.bury, ack_seconds=ack_seconds, at_once=at_once
        )
        self.on_interruption(turns.wake)
        return turns

    async def tap(self, subject: str, handle: OnStored) -> Callable[[], Awaitable[None]]:
        """Call `handle` with each event as it is stored, live and without a consumer; return how to end it.

        `subject` is under `evt.`. What is published but refused is not seen. Messages can be missed over a reconnect:
        a reader that must have all of them finds the gap by `previous` and reads it again.
        """

        async def on_message(message: Msg) -> None:
            await handle(_from_republish(message))

        return await self._subscribe("live." + subject.removeprefix("evt."), on_message)

    async def listen(
        self, subject: str, handle: Callable[[str, bytes], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        """Call `handle` with the subject and data of each message that is published; return how to end it. A hint: it
        may be something that no stream took."""

        async def on_message(message: Msg) -> None:
            await handle(message.subject, message.data)

        return await self._subscribe(subject, on_message)

    async def _subscribe(
        self, subject: str, on_message: Callable[[Msg], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        """Return once the server has the subscription. Raises Unavailable, and then there is none."""
        try:
            subscription = await self._nats.subscribe(subject, cb=on_message)
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS did not take a subscription to {subject}: {error!r}") from error

        async def end() -> None:
            # Without a connection it ends with this side's table, which is what a reconnect subscribes from.
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

        try:
            await self._settle()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            await end()
            raise Unavailable(f"NATS did not take a subscription to {subject}: {error!r}") from error
        return end

    async def _settle(self) -> None:
        """Return once the server has our subscriptions. nats-py 2.16 writes a flush's ping past what it still has to
        write: only the second one comes after them."""
        await self._nats.flush(int(TIMEOUT_SECONDS))
        await self._nats.flush(int(TIMEOUT_SECONDS))

    # Ask and serve

    async def ask(
        self,
        service: Service,
        question: Message,
        reply: type[R],
        *,
        timeout_seconds: float = 10.0,
        again_seconds: float = 0.0,
    ) -> R:
        """Send a query and wait for its answer, of type `reply`. Raises Refused or Unavailable.

        Work that takes long, and that may be done twice, is asked for again every `again_seconds`: when the service was
        killed under it, nobody else knows of it; while it goes on, the same question joins it.
        """
        for _ in range(int(timeout_seconds / again_seconds) - 1 if again_seconds else 0):
            with suppress(NoAnswer):
                return await self._ask_for(service, question, reply, again_seconds)
        return await self._ask_for(service, question, reply, again_seconds or timeout_seconds)

    async def _ask_for(self, service: Service, question: Message, reply: type[R], timeout_seconds: float) -> R:
        answer = await self.ask_any(service, question, timeout_seconds=timeout_seconds)
        if not isinstance(answer, reply):
            raise Refused(f"{service} answered with {type(answer).__name__}.", "internal")
        return answer

    async def ask_any(self, service: Service, question: Message, *, timeout_seconds: float = 10.0) -> Any:
        """Like `ask`, for a query with several kinds of answer."""
        subject = query_subject(service, type(question))
        try:
            message = await self._nats.request(subject, encode(question), timeout=timeout_seconds)
        except nats.errors.NoRespondersError:
            raise Unavailable(f"No {service} is running.") from None
        except (nats.errors.Error, TimeoutError) as error:
            raise NoAnswer(f"{service} did not answer within {timeout_seconds:g} s.") from error
        answer = _reply_decoder(type(question)).decode(message.data)
        if isinstance(answer, Refusal):
            raise Refused(answer.reason, answer.code)
        return answer

    async def serve(
        self, handlers: Mapping[type, Handler], *, version: str, at_once: int = 64, joined: Collection[type] = ()
    ) -> MicroService:
        """Answer queries as a NATS micro service, at most `at_once` of them side by side, until `stop` of what is
        returned. An equal question of a `joined` type that is under way is not begun again: both get its answer."""
        service = await nats.micro.add_service(
            self._nats, name=self._service.value, version=version, description=f"Errand's {self._service}"
        )
        limit = anyio.CapacityLimiter(at_once)
        for question, handler in handlers.items():
            subject = query_subject(self._service, question)
            await service.add_endpoint(
                name=subject.rpartition(".")[2],
                subject=subject,
                handler=self._endpoint(question, handler, limit, joins=question in joined),
            )
        await self._settle()
        return service

    def _endpoint(
        self, question: type, handler: Handler, limit: anyio.CapacityLimiter, *, joins: bool
    ) -> Callable[[Request], Awaitable[None]]:
        decoder = msgspec.json.Decoder(question)
        under_way: dict[bytes, list[Request]] = {}

        async def answer(data: bytes, askers: list[Request]) -> None:
            try:
                async with limit:
                    reply = encode(await self._handle(decoder, handler, data))
            finally:
                under_way.pop(data, None)
            if len(reply) > MESSAGE_LIMIT_BYTES:
                reply = encode(Refusal(reason=f"The answer has {len(reply)} bytes, over the limit.", code="internal"))
            for request in askers:
                with suppress(nats.errors.Error):
                    await request.respond(reply)

        async def receive(request: Request) -> None:
            # nats-py awaits one request of an endpoint after the other; ours run side by side.
            if request.data in under_way:
                under_way[request.data].append(request)
                return
            askers = [request]
            if joins:
                under_way[request.data] = askers
            self._tasks.start_soon(answer, request.data, askers)

        return receive

    async def _handle(self, decoder: msgspec.json.Decoder[Any], handler: Handler, data: bytes) -> Message:
        try:
            return await handler(decoder.decode(data))
        except msgspec.MsgspecError as error:
            return Refusal(reason=f"The request cannot be read: {error}")
        except Refused as error:
            return Refusal(reason=error.reason, code=error.code)
        except Unavailable as error:
            return Refusal(reason=str(error), code="unavailable")
        except Exception:
            self._log.exception("query_failed", query=decoder.type.__name__)
            return Refusal(reason=f"{self._service} failed; its log says why.", code="internal")

    # Presence: the interest in a subject is the presence, and ends with the process that has it

    async def attend(
        self, subject: str, answer: Callable[[], Awaitable[Message | None]]
    ) -> Callable[[], Awaitable[None]]:
        """Be present on a subject: `answer` is called when somebody asks, and None stays silent; return how to leave.
        Raises Unavailable."""

        async def respond(message: Msg) -> None:
            reply = await answer()
            if reply is not None:
                with suppress(nats.errors.Error):
                    await message.respond(encode(reply))

        async def on_message(message: Msg) -> None:
            self._tasks.start_soon(respond, message)

        return await self._subscribe(subject, on_message)

    async def is_attended(self, subject: str, question: Message, *, timeout_seconds: float) -> bool:
        """Whether anyone present on a subject answers in time; known at once when nobody is present."""
        try:
            await self._nats.request(subject, encode(question), timeout=timeout_seconds)
        except (nats.errors.Error, TimeoutError):
            return False
        return True

    # Blobs: what is over the message limit

    async def put_blob(self, name: str, data: bytes, bucket: str = BLOBS) -> None:
        try:
            store = await self._jetstream.object_store(self._nats.cell.bucket(bucket))
            await store.put(name, data)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"The object store did not take {name}: {error!r}") from error

    async def get_blob(self, name: str, bucket: str = BLOBS) -> bytes:
        """Raises KeyError when there is none of that name."""
        try:
            store = await self._jetstream.object_store(self._nats.cell.bucket(bucket))
            # Not `.data` of what it returns: nats-py joins that piece by piece, 5.9 s for 51 MB against 0.3 s.
            kept = io.BytesIO()
            await store.get(name, writeinto=kept)
            return kept.getvalue()
        except nats.js.errors.ObjectNotFoundError:
            raise KeyError(name) from None
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"The object store did not give {name}: {error!r}") from error

    async def delete_blob(self, name: str, bucket: str = BLOBS) -> None:
        """Raises Unavailable; one that is not there is gone already."""
        try:
            store = await self._jetstream.object_store(self._nats.cell.bucket(bucket))
            await store.delete(name)
        except nats.js.errors.NotFoundError:
            return
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"The object store did not delete {name}: {error!r}") from error

    async def blob_names(self, bucket: str = BLOBS) -> list[str]:
        """The names of all blobs of a bucket. Raises Unavailable."""
        kept = await self.replay(f"$O.{bucket}.M.>", stream=f"OBJ_{bucket}")
        found = (_decode_blob(stored.data) for stored in kept)
        return [blob.name for blob in found if not blob.deleted]

    # Leases: hints with a time to live

    async def take_lease(self, name: str, holder: Struct, revision: int = 0) -> int:
        """Take (revision 0) or renew a lease of `LEASE_SECONDS`; return its new revision. Raises Conflict when another
        has it, and Unavailable when the server has restarted: leases are kept in its memory, so their stream must be
        made again."""
        subject = f"$KV.{LEASES}.{name}"
        return await self._store(subject, encode(holder), {EXPECTED: str(revision)})

    async def lease_holder(self, name: str) -> bytes:
        """What the holder of a lease says of itself; empty when nobody has it."""
        stored = await self._direct_get({"last_by_subj": f"$KV.{LEASES}.{name}"}, f"KV_{LEASES}")
        return stored[0].data if stored else b""

    async def renew_hint(self, name: str, holder: Struct) -> None:
        """Renew a lease that nobody competes for."""
        await self._store(f"$KV.{LEASES}.{name}", encode(holder), {})

    async def drop_lease(self, name: str) -> None:
        """Let the next one have it at once."""
        await self._api(f"STREAM.PURGE.KV_{LEASES}", {"filter": f"$KV.{LEASES}.{name}"})

    # Streams

    async def make_streams(self) -> None:
        """Make every stream of the house, or bring it up to this release's settings."""
        for config in STREAMS:
            try:
                await self._api(f"STREAM.CREATE.{config['name']}", config)
            except Refused:
                there = (await self._api(f"STREAM.INFO.{config['name']}", {}))["config"]
                # How many servers keep it is the operator's to say.
                kept = {"num_replicas": there["num_replicas"]}
                await self._api(f"STREAM.UPDATE.{config['name']}", {**config, **kept})

    async def wait_for_streams(self) -> None:
        """Return when the scheduler, or the operator, has made the streams."""
        while True:
            with suppress(Unavailable, Refused):
                await self._api(f"STREAM.INFO.{Stream.TASKS}", {})
                return
            await asyncio.sleep(0.05)

    async def _api(self, call: str, request: dict[str, Any]) -> dict[str, Any]:
        return await jetstream_api(self._nats, call, request)


async def jetstream_api(client: _Client, call: str, request: dict[str, Any]) -> dict[str, Any]:
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


class Reader:
    """An ordered read that survives reconnects and server restarts: a push consumer without acknowledgements, made
    again from the last sequence whenever a message is missing or the server falls silent."""

    def __init__(self, client: _Client, stream: Stream, filters: Sequence[str], after: int) -> None:
        self.position = after
        """The sequence of the last message that was handed out."""
        self.caught_up = anyio.Event()
        """Set once everything that was stored when the read began has been handed out."""
        self.name = f"{stream}:{','.join(filters)}"
        self._nats = client
        self._stream = stream
        self._filters = filters
        self._received = after
        self._expected_delivery = 1
        self._batch: list[Stored] = []
        self._owed: set[str] = set()
        """Flow control requests that wait for their answer."""
        self._pending: int | None = None
        self._wake = asyncio.Event()
        self._remake = asyncio.Event()
        self._heard_at = 0.0
        self._generation = 0

    @property
    def moving(self) -> bool:
        """False when the server has been silent for longer than its heartbeat allows."""
        return self._now() - self._heard_at < SILENCE_SECONDS + 2

    def make_again(self) -> None:
        """Do not wait for the silence: a server that restarted has no such consumer."""
        self._remake.set()

    async def keep(self) -> None:
        """Keep a consumer going until cancelled."""
        while True:
            subscription = None
            try:
                subscription = await self._make()
                await self._until_broken()
            except (Unavailable, Refused, nats.errors.Error):
                await asyncio.sleep(0.1)
            finally:
                if subscription is not None:
                    with suppress(nats.errors.Error):
                        await subscription.unsubscribe()

    async def batches(self) -> AsyncIterator[list[Stored]]:
        """What has arrived since the last time, never empty, in order. `position` is moved before each batch is handed
        out."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._batch = self._batch, []
            if batch:
                self.position = batch[-1].sequence
                yield batch
            # Only now: the server sends no more than one window ahead of who reads, however long the stream is.
            await self._answer_flow_control()
            if self._pending == 0 and not self._batch:
                self.caught_up.set()

    async def _answer_flow_control(self) -> None:
        while self._owed:
            with suppress(nats.errors.Error):
                await self._nats.publish(self._owed.pop())

    async def _make(self) -> Any:
        self._generation += 1
        self._expected_delivery = 1
        self._remake.clear()
        inbox = self._nats.new_inbox()
        generation = self._generation

        async def on_message(message: Msg) -> None:
            if generation == self._generation:
                await self._receive(message)

        subscription = await self._nats.subscribe(inbox, cb=on_message)
        config = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._received + 1,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "filter_subjects": list(self._filters),
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
            "inactive_threshold": int(10e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        name = inbox.rpartition(".")[2]
        created = await jetstream_api(
            self._nats, f"CONSUMER.CREATE.{self._stream}.{name}", {"stream_name": self._stream, "config": config}
        )
        self._heard_at = self._now()
        if created.get("num_pending", 0) == 0 and self._pending is None:
            self._pending = 0
            self._wake.set()
        return subscription

    async def _receive(self, message: Msg) -> None:
        self._heard_at = self._now()
        if _status(message):
            # A flow control request, or a heartbeat that says that one was not answered.
            if owed := message.reply or (message.headers or {}).get("Nats-Consumer-Stalled"):
                self._owed.add(owed)
                self._wake.set()
            return
        sequence, delivery, nanoseconds, self._pending = _parse_delivery(message.reply)
        if delivery != self._expected_delivery:
            self._remake.set()
            return
        self._expected_delivery += 1
        self._received = sequence
        at = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
        self._batch.append(Stored(message.subject, sequence, message.data, at, _expected(message)))
        self._wake.set()

    async def _until_broken(self) -> None:
        while self._now() - self._heard_at < SILENCE_SECONDS and self._nats.is_connected:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._remake.wait(), HEARTBEAT_SECONDS / 2)
                return

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class Turns:
    """This process's part of a durable consumer that several share. `run` takes messages until `stop`.

    A message comes again, here or elsewhere, when its handling raises Later or fails, or when its process has not ended
    it within `ack_seconds`: one that dies hands nothing over sooner. So each is handled at least once; one whose
    handling failed `HANDLED_TRIES` times in one process is buried.
    """

    def __init__(
        self,
        client: _Client,
        stream: Stream,
        name: str,
        filters: Sequence[str],
        handle: OnStored,
        bury: Callable[[str, Stored, str], Awaitable[None]],
        *,
        ack_seconds: float,
        at_once: int,
    ) -> None:
        self._nats = client
        self._stream = stream
        self._name = name
        self._handle = handle
        self._bury = bury
        self._failures: Counter[int] = Counter()
        """Of messages that come again, by sequence."""
        self._at_once = at_once
        self._config = {
            "durable_name": name,
            "deliver_policy": "new",
            "ack_policy": "explicit",
            "ack_wait": int(ack_seconds * 1e9),
            "max_ack_pending": SHARED_LIMIT,
            "filter_subjects": list(filters),
        }
        self._arrived: list[asyncio.Queue[Msg | None]] = [asyncio.Queue() for _ in range(at_once)]
        self._stopping = False
        self._running = anyio.Lock()
        self._log = log.get()

    async def run(self) -> None:
        async with self._running, anyio.create_task_group() as group:
            for arrived in self._arrived:
                group.start_soon(self._take, arrived)

    async def stop(self) -> None:
        """Return when what is in hand has been handled; more is not taken."""
        self._stopping = True
        self.wake()
        async with self._running:
            pass

    def wake(self) -> None:
        """Ask anew: a server that restarted knows nothing of the requests that wait."""
        for arrived in self._arrived:
            arrived.put_nowait(None)

    async def _take(self, arrived: asyncio.Queue[Msg | None]) -> None:
        # Not by `request`: what comes bears its own subject, by which nats-py finds no request.
        inbox = self._nats.new_inbox()
        subscription = await self._nats.subscribe(inbox, cb=arrived.put)
        made = False
        try:
            while not self._stopping:
                try:
                    made = made or await self._make()
                    message = await self._next(inbox, arrived)
                except (Unavailable, Refused) as error:
                    self._log.warning("shared_consumer", name=self._name, reason=str(error))
                    made = False
                    await asyncio.sleep(TAKE_AGAIN_SECONDS)
                    continue
                if message is not None:
                    await self._settle(message)
        finally:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _make(self) -> bool:
        """Make the consumer, or find that another process did."""
        request = {"stream_name": self._stream, "config": self._config}
        await jetstream_api(self._nats, f"CONSUMER.CREATE.{self._stream}.{self._name}", request)
        return True

    async def _next(self, inbox: str, arrived: asyncio.Queue[Msg | None]) -> Msg | None:
        """The next message, or None when none came. Raises Unavailable, also when there is no such consumer."""
        request = msgspec.json.encode({"batch": 1, "expires": int(NEXT_SECONDS * 1e9)})
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        try:
            if arrived.empty():  # otherwise one came after we had stopped waiting for it
                await self._nats.publish(subject, request, reply=inbox)
            message = await asyncio.wait_for(arrived.get(), NEXT_SECONDS + TIMEOUT_SECONDS)
        except (nats.errors.Error, TimeoutError) as error:
            raise Unavailable(f"NATS did not answer for {self._name}: {error!r}") from error
        status = _status(message) if message is not None else None
        if status not in (None, NONE_CAME):
            raise Unavailable(f"NATS gives no messages of {self._name}: status {status}")
        return None if status else message

    async def _settle(self, message: Msg) -> None:
        sequence, _, nanoseconds, _ = _parse_delivery(message.reply)
        at = datetime.fromtimestamp(nanoseconds / 1e9, UTC)
        stored = Stored(message.subject, sequence, message.data, at, _expected(message))
        answer = b"+ACK"
        try:
            await self._handle(stored)
        except Later as later:
            answer = _again(later.seconds)
        except Exception as error:
            self._log.exception("shared_message_failed", subject=message.subject, sequence=sequence)
            answer = _again(FAILED_SECONDS)
            self._failures[sequence] += 1
            if self._failures[sequence] >= HANDLED_TRIES:
                with suppress(Unavailable):
                    await self._bury(self._stream, stored, f"{self._name} failed over it: {error!r}")
                    answer = b"+ACK"
        if answer == b"+ACK":
            self._failures.pop(sequence, None)
        with suppress(nats.errors.Error):  # not acknowledged, it comes again
            await self._nats.publish(message.reply, answer)


def _again(seconds: float) -> bytes:
    """The answer that brings a message back."""
    return b'-NAK {"delay": %d}' % int(seconds * 1e9)


class _Client(Client):
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


async def _in_time(opening: Coroutine[Any, Any, None], seconds: float) -> None:
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


@asynccontextmanager
async def connect(config: BusConfig, service: Service) -> AsyncIterator[Bus]:
    """Connect as `service` and stay connected: every later loss of the server is waited out."""
    logger = log.get()

    bus: Bus | None = None

    async def on_error(error: Exception) -> None:
        refused[:] = [error]
        logger.warning("nats", error=repr(error))
        if bus is not None and isinstance(error, nats.errors.SlowConsumerError):
            bus.interrupted()

    async def on_loss() -> None:
        if bus is not None:
            bus.lost()

    async def on_reconnect() -> None:
        logger.info("nats_reconnected")
        if bus is not None:
            bus.found_again()

    refused: list[Exception] = []
    cell = Cell(config.cell)
    client = _Client(cell)
    opening = client.connect(
        config.nats_url.split(","),
        name=f"errand-{cell.user(service.value)}",
        user=cell.user(service.value),
        password=config.password(),
        # A private inbox: the permissions let no other service listen to the answers.
        inbox_prefix=f"_INBOX_{cell.user(service.value)}".encode(),
        max_reconnect_attempts=-1,
        reconnect_time_wait=RECONNECT_SECONDS,  # pyright: ignore[reportArgumentType] - a float does
        connect_timeout=2,
        error_cb=on_error,
        disconnected_cb=on_loss,
        reconnected_cb=on_reconnect,
    )
    try:
        # With endless reconnects the client would try a wrong password for ever, too.
        await _in_time(opening, CONNECT_SECONDS)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await client.close()
        why = refused[-1] if refused else error
        raise Unavailable(f"NATS at {config.nats_url} cannot be reached as {service}: {why!r}") from error
    try:
        async with background() as tasks:
            bus = Bus(client, service, tasks)
            await bus.begin()
            yield bus
    finally:
        with anyio.CancelScope(shield=True), suppress(nats.errors.Error, TimeoutError):
            await asyncio.wait_for(client.drain() if client.is_connected else client.close(), 5)


REPLIES = {route.messages[0]: route.replies for route in ROUTES if route.replies}
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}


def _reply_decoder(question: type) -> msgspec.json.Decoder[Any]:
    if question not in _decoders:
        union = Union[(*REPLIES[question], Refusal)]
        _decoders[question] = msgspec.json.Decoder(union)
    return _decoders[question]


def _status(message: Msg) -> str | None:
    return message.headers.get("Status") if message.headers else None


def _expected(message: Msg) -> int:
    return int(message.headers.get(EXPECTED, 0)) if message.headers else 0


def _parse_delivery(reply: str) -> tuple[int, int, int, int]:
    """Stream sequence, delivery sequence, nanoseconds, pending; the subject has two tokens more where a domain is
    set."""
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 2]), int(tokens[first + 3])


def _from_direct(message: Msg) -> Stored:
    headers = message.headers or {}
    at = datetime.fromisoformat(headers["Nats-Time-Stamp"][:26].rstrip("Z") + "+00:00")
    return Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), message.data, at, _expected(message))


_from_republish = _from_direct


def _buried(message: Msg) -> Buried:
    headers, stored = message.headers or {}, _from_direct(message)
    return Buried(
        sequence=stored.sequence,
        subject=headers.get("Errand-Subject", ""),
        of=int(headers.get("Errand-Sequence", 0)),
        reason=headers.get("Errand-Reason", ""),
        at=stored.at,
        data=stored.data,
    )


def _stream(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "storage": "file", "retention": "limits", "num_replicas": 1, "allow_direct": True, **settings}


STREAMS: tuple[dict[str, Any], ...] = (
    _stream(
        Stream.TASKS,
        subjects=["cmd.>", "evt.>", "timer.>"],
        republish={"src": "evt.>", "dest": "live.>"},
        allow_atomic=True,
        allow_msg_schedules=True,
        allow_msg_ttl=True,
        allow_rollup_hdrs=True,
        max_msg_size=MESSAGE_LIMIT_BYTES + 64 * 1024,
        duplicate_window=int(120e9),
    ),
    _stream(
        Stream.OUTPUT,
        subjects=["out.>"],
        max_age=int(600e9),
        max_bytes=256 * 1024 * 1024,
        discard="old",
        persist_mode="async",
    ),
    _stream(Stream.DEAD, subjects=["dead.>"], max_age=int(90 * 86400e9), max_bytes=64 * 1024 * 1024, discard="old"),
    _stream(
        f"KV_{LEASES}",
        storage="memory",
        subjects=[f"$KV.{LEASES}.>"],
        max_age=int(LEASE_SECONDS * 1e9),
        max_msgs_per_subject=1,
        discard="new",
        allow_rollup_hdrs=True,
    ),
    *(
        _stream(
            f"OBJ_{bucket}",
            subjects=[f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
            discard="new",
            allow_rollup_hdrs=True,
            compression="s2" if bucket == SNAPSHOTS else "none",
        )
        for bucket in (BLOBS, SNAPSHOTS, ARCHIVE)
    ),
)
