"""What a service does with the bus: publish, commit, read, ask and serve."""

from __future__ import annotations

import asyncio
import io
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
import anyio.abc
import msgspec
import nats.errors
import nats.js.errors
import nats.micro
from msgspec import Struct
from nats.aio.msg import Msg
from nats.micro.service import Service as MicroService

from protocol.base import MESSAGE_LIMIT_BYTES, Message, encode
from protocol.query import Refusal
from protocol.routes import Service, Stream, query_subject
from services import log
from services.background import background
from services.bus.client import TIMEOUT_SECONDS, Client, jetstream_api
from services.bus.endpoint import Endpoint, Handler, reply_decoder
from services.bus.errors import Conflict, NoAnswer, Refused, Unavailable
from services.bus.headers import EXPECTED, EXPECTED_LOG, MESSAGE_ID, NOBODY, SCHEDULE_TARGET, WRONG_LAST_SEQUENCE
from services.bus.reader import Reader
from services.bus.stored import Buried, Stored, buried_of, from_direct, status_of
from services.bus.streams import BLOBS, LEASES, STREAMS
from services.bus.turns import OnStored, Turns
from services.bus.writer import Answer, Fault, Writer, read_answer

GROUPED = ("cmd.", "evt.", "timer.")
"""What may travel in one batch: the subjects of one stream."""
PUBLISH_TRIES = 4
"""How often a publish with a key is tried: long enough for a restart of the server."""
REPLAY_BATCH = 512

R = TypeVar("R", bound=Message)
T = TypeVar("T")


class _Blob(Struct, frozen=True):
    """What the object store says of a blob."""

    name: str
    nuid: str
    """By which its pieces are called."""
    deleted: bool = False


_decode_blob = msgspec.json.Decoder(_Blob).decode


class Bus:
    """One service's connection. Made by `connect`; usable until its `async with` ends."""

    def __init__(self, client: Client, service: Service, tasks: anyio.abc.TaskGroup) -> None:
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
        return (await self._direct_batch(request, Stream.DEAD, buried_of))[0]

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
        if status_of(message) == NOBODY:
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
            batch, pending = await self._direct_batch(request, stream, from_direct)
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
        return [] if status_of(answer) else [from_direct(answer)]

    async def _direct_batch(
        self, request: dict[str, Any], stream: str, make: Callable[[Msg], T]
    ) -> tuple[list[T], int]:
        """One batch, and how many messages are left after it."""
        found: list[T] = []
        ended: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        async def on_message(message: Msg) -> None:
            if not status_of(message):
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
        status, headers = status_of(ended.result()), ended.result().headers or {}
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
            await handle(from_direct(message))

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
        answer = reply_decoder(type(question)).decode(message.data)
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
            joins = question in joined
            endpoint = Endpoint(self._service, question, handler, limit, self._tasks, joins=joins)
            await service.add_endpoint(name=subject.rpartition(".")[2], subject=subject, handler=endpoint.receive)
        await self._settle()
        return service

    # Presence: the interest in a subject is the presence, and ends with the process that has it

    async def attend(
        self, subject: str, answer: Callable[[], Awaitable[Message | None]]
    ) -> Callable[[], Awaitable[None]]:
        """Be present on a subject: `answer` is called when somebody asks, and None stays silent; return how to leave.
        Raises Unavailable."""

        async def respond(message: Msg) -> None:
            try:
                reply = await answer()
            except Exception:
                self._log.exception("question_failed", subject=subject)
                return
            if reply is not None:
                with suppress(nats.errors.Error):
                    await message.respond(encode(reply))

        async def on_message(message: Msg) -> None:
            self._tasks.start_soon(respond, message)

        return await self._subscribe(subject, on_message)

    async def ask_present(self, subject: str, question: Message, reply: type[R], *, timeout_seconds: float) -> R | None:
        """What who is present on a subject answers; None where nobody does in time, at once when nobody is there."""
        try:
            message = await self._nats.request(subject, encode(question), timeout=timeout_seconds)
            return msgspec.json.decode(message.data, type=reply)
        except (nats.errors.Error, TimeoutError, msgspec.MsgspecError):
            return None

    # Blobs: what is over the message limit

    async def put_blob(self, name: str, data: bytes | io.BytesIO, bucket: str = BLOBS) -> None:
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
        # nats-py's own `delete` leaves a message that says so, and its subject, for ever.
        what, stream = f"$O.{bucket}.M.{urlsafe_b64encode(name.encode()).decode()}", f"OBJ_{bucket}"
        try:
            for stored in await self._direct_get({"last_by_subj": what}, stream):
                pieces = f"$O.{bucket}.C.{_decode_blob(stored.data).nuid}"
                await self._api(f"STREAM.PURGE.{stream}", {"filter": pieces})
                await self._api(f"STREAM.PURGE.{stream}", {"filter": what, "seq": stored.sequence + 1})
        except Refused as refused:
            raise Unavailable(f"The object store did not delete {name}: {refused.reason}") from refused

    async def blob_names(self, bucket: str = BLOBS) -> list[str]:
        """The names of all blobs of a bucket. Raises Unavailable."""
        return [blob.name for _, blob in await self._blobs(bucket) if not blob.deleted]

    async def _blobs(self, bucket: str) -> list[tuple[Stored, _Blob]]:
        kept = await self.replay(f"$O.{bucket}.M.>", stream=f"OBJ_{bucket}")
        return [(stored, _decode_blob(stored.data)) for stored in kept]

    async def drop_leftovers(self, bucket: str, *, before: datetime) -> int:
        """Take away what is of no blob and was stored before a time: the pieces that a writer left that died before it
        could name them, and an earlier release's word that a blob is deleted. Return how many subjects. Raises
        Unavailable."""
        stream, pieces = f"OBJ_{bucket}", f"$O.{bucket}.C."
        try:
            subjects = await self._subjects(stream, f"{pieces}>")
            blobs = await self._blobs(bucket)  # after the pieces: what was being written then may be named by now
            named = {blob.nuid for _, blob in blobs if not blob.deleted}
            loose = [stored.subject for stored, blob in blobs if blob.deleted]
            loose += [pieces + nuid for subject in subjects if (nuid := subject.rpartition(".")[2]) not in named]
            for subject in (old := [each for each in loose if await self._is_before(before, each, stream)]):
                await self._api(f"STREAM.PURGE.{stream}", {"filter": subject})
        except Refused as refused:
            raise Unavailable(f"The object store was not tidied: {refused.reason}") from refused
        return len(old)

    async def _is_before(self, time: datetime, subject: str, stream: str) -> bool:
        """Whether the last message there was stored before a time."""
        last = await self._direct_get({"last_by_subj": subject}, stream)
        return bool(last) and last[0].at < time

    async def _subjects(self, stream: str, of: str) -> list[str]:
        """The subjects of a stream that match."""
        found: list[str] = []
        while True:
            asked = {"subjects_filter": of, "offset": len(found)}
            answer = await self._api(f"STREAM.INFO.{stream}", asked)
            found += answer["state"].get("subjects") or ()
            if len(found) >= answer.get("total", 0):
                return found

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
