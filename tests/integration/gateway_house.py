"""A real gateway process on a real nats-server; the other services are small doubles with their credentials."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx2
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from protocol.base import Message, encode
from protocol.history import RunSql, SqlAnswer
from protocol.ids import OWNER, token_hash
from protocol.journal import JournalEntry, Noticed, Output
from protocol.live import AnyServerFrame, DecisionSeen, JournalSeen, SignedIn, SignIn, decode_server_frame
from protocol.query import (
    AskHealth,
    AskSpending,
    ClaimAttempt,
    Health,
    ListTasks,
    Printed,
    QueueShown,
    ShowQueue,
    Spending,
    TaskList,
    summarize,
)
from protocol.repo import AskSealingKey, CheckRepository, Diff, RepositoryKnown, SealingKey, ShowDiff
from protocol.routes import Service, command_subject, journal_subject, printed_subject, user_command_subject
from protocol.task import Question, RaiseQuestion
from protocol.user import AddDevice, AddUser, CreateSignInCode, Role
from services import envelope
from services.bus import Bus, Refused, Stored
from services.bus import connect as connect_bus
from services.runner.printed import Tail
from services.scheduler.actors import TaskActor, UserActor
from services.scheduler.decide import Limits, claim
from services.scheduler.search import search
from tests.integration.nats_house import NatsHouse, free_port, nats_house

OWNER_TOKEN = "owner-token"
NOTICE = "The model is scripted, not Claude."
SECONDS = 15.0
"""For anything a test waits for."""
F = TypeVar("F", bound=Message)


class GatewayHouse:
    """One gateway process; can be killed and started again on its port."""

    def __init__(self, nats: NatsHouse, *, port: int = 0, **settings: str) -> None:
        self.nats = nats
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = nats.bus_config(Service.GATEWAY)
        self.environment = {
            **os.environ,
            "ERRAND_PORT": str(self.port),
            "ERRAND_NATS_URL": config.nats_url,
            "ERRAND_NATS_PASSWORD_FILE": config.nats_password_file,
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.log = nats.data / f"gateway-{self.port}.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return once it takes connections."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway"], env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self._process.stderr is not None
        said = b""
        for line in self._process.stderr:
            said += line
            if b'"started"' in line:
                break
        else:
            raise AssertionError(f"The gateway did not start: {said.decode()}")
        with self.log.open("ab") as log:
            self._drain = subprocess.Popen(["cat"], stdin=self._process.stderr, stdout=log)
        self._process.stderr.close()

    def kill(self) -> None:
        """As `kill -9` does."""
        self._end(subprocess.Popen.kill)

    def terminate(self) -> int:
        """As an operator does; return the exit code."""
        return self._end(subprocess.Popen.terminate)

    def _end(self, how: Any) -> int:
        if self._process is None:
            return 0
        how(self._process)
        code = self._process.wait()
        self._drain.wait()
        self._process = None
        return code


@contextmanager
def gateway_house(data: Path, *, port: int = 0, **settings: str) -> Iterator[GatewayHouse]:
    """A nats-server with its streams and an owner, and a gateway."""
    with nats_house(data) as nats:
        anyio.run(_prepare, nats)
        gateway = GatewayHouse(nats, port=port, **settings)
        gateway.start()
        try:
            yield gateway
        finally:
            gateway.terminate()


async def _prepare(nats: NatsHouse) -> None:
    async with connect_bus(nats.bus_config(Service.OPERATOR), Service.OPERATOR) as bus:
        await bus.make_streams()
    async with Scheduler.running(nats) as scheduler:
        await scheduler.make_user(OWNER, OWNER_TOKEN, Role.OWNER)


class Scheduler:
    """Decides as the real one does, by its own pure functions, one command at a time."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.asked: list[ShowQueue] = []
        self._actors: dict[tuple[str, str], TaskActor | UserActor] = {}
        self._deciding = anyio.Lock()

    @staticmethod
    @asynccontextmanager
    async def running(nats: NatsHouse) -> AsyncIterator[Scheduler]:
        """From the commands that are stored from now on."""
        async with connect_bus(nats.bus_config(Service.SCHEDULER), Service.SCHEDULER) as bus:
            scheduler = Scheduler(bus)
            await bus.make_streams()
            after = await bus.last("cmd.>")
            async with anyio.create_task_group() as group, bus.read("cmd.>", after=after) as reader:
                group.start_soon(scheduler._follow, reader)
                await bus.serve(
                    {ListTasks: scheduler._list, ShowQueue: scheduler._show, AskSpending: scheduler._spending},
                    version="0.0.0",
                )
                await reader.caught_up.wait()
                yield scheduler
                group.cancel_scope.cancel()

    async def _follow(self, reader: Any) -> None:
        async for batch in reader.batches():
            for stored in batch:
                _, user, task, _ = stored.subject.split(".")
                actor = await self.actor(user, task)
                async with self._deciding:
                    if entry := actor.answer(stored, datetime.now(UTC), Limits()):
                        await self._commit(actor, entry.subject, entry.message)

    async def actor(self, user: str, task: str) -> TaskActor | UserActor:
        """The actor of a task, or of the user where `task` is `user`, with its log folded."""
        if (user, task) not in self._actors:
            actor = UserActor(user) if task == "user" else TaskActor(user, task)
            for stored in await self.bus.replay(actor.log):
                actor.fold(stored)
            self._actors.setdefault((user, task), actor)
        return self._actors[user, task]

    async def _commit(self, actor: Any, subject: str, message: Any) -> None:
        sequence = await self.bus.commit(subject, message, log=actor.log, expected=actor.sequence)
        actor.applied(message, sequence)

    async def claim(self, user: str, task: str) -> None:
        """A runner takes the task."""
        actor = await self.actor(user, task)
        assert isinstance(actor, TaskActor)
        async with self._deciding:
            asked = ClaimAttempt(runner="runner", request=f"request-{task}")
            entry = actor.entry(claim(actor.task, asked, datetime.now(UTC)))
            await self._commit(actor, entry.subject, entry.message)

    async def question(self, user: str, task: str, question: Question) -> None:
        """The runner that has the task asks."""
        actor = await self.actor(user, task)
        asked = RaiseQuestion(key=f"ask {question.id}", attempt=1, question=question)
        async with self._deciding:
            stored = Stored(command_subject(user, task, asked), actor.sequence + 1, encode(asked), datetime.now(UTC))
            entry = actor.answer(stored, datetime.now(UTC), Limits())
            assert entry is not None
            await self._commit(actor, entry.subject, entry.message)

    async def _spending(self, question: AskSpending) -> Spending:
        return Spending(spent_usd=1.0, reserved_usd=0.0, limit_usd=None, day_ends=datetime.now(UTC))

    async def _list(self, question: ListTasks) -> TaskList:
        mine = [actor for (user, task), actor in self._actors.items() if user == question.user and task != "user"]
        found, more = await search((a.task for a in mine if isinstance(a, TaskActor) and a.task.turn), question)
        return TaskList(tasks=tuple(map(summarize, found)), more=more)

    async def _show(self, question: ShowQueue) -> QueueShown:
        self.asked.append(question)
        return QueueShown()

    async def make_user(self, user: str, token: str, role: Role = Role.USER) -> None:
        actor = await self.actor(user, "user")
        for command in (
            AddUser(key=f"add-{user}", name=f"{user}'s name", role=role),
            AddDevice(
                key=f"device-{token}",
                device=f"d_{token_hash(token)[:8]}",
                device_name="phone",
                token_hash=token_hash(token),
            ),
        ):
            await self._user_command(user, actor, command)

    async def make_code(self, user: str, code: str, expires_at: datetime) -> None:
        actor = await self.actor(user, "user")
        command = CreateSignInCode(key=f"code-{code}", code_hash=token_hash(code), expires_at=expires_at)
        await self._user_command(user, actor, command)

    async def _user_command(self, user: str, actor: Any, command: Any) -> None:
        # Decided here and now: it needs no mailbox.
        stored = Stored(user_command_subject(user, command), actor.sequence + 1, encode(command), datetime.now(UTC))
        async with self._deciding:
            if entry := actor.answer(stored, datetime.now(UTC), Limits()):
                await self._commit(actor, entry.subject, entry.message)


class Runner:
    """Journals what a test wants to see."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    @staticmethod
    @asynccontextmanager
    async def running(nats: NatsHouse) -> AsyncIterator[Runner]:
        async with connect_bus(nats.bus_config(Service.RUNNER), Service.RUNNER) as bus:
            runner = Runner(bus)
            await bus.serve({AskHealth: runner._health}, version="0.0.0")
            yield runner

    async def _health(self, _: AskHealth) -> Health:
        return Health(healthy=True, service="runner", notices=(NOTICE,))

    async def journal(self, user: str, task: str, *texts: str) -> list[int]:
        """Append an entry for each text, fenced as a runner's are; return their sequences."""
        log = f"evt.{user}.{task}.>"
        last = await self.bus.last(log)
        sequences = []
        for text in texts:
            entry = JournalEntry(attempt=1, at=datetime.now(UTC), event=Noticed(text=text))
            subject = journal_subject(user, task, entry.event)
            last = await self.bus.commit(subject, entry, log=log, expected=last)
            sequences.append(last)
        return sequences

    @asynccontextmanager
    async def printing(self, user: str, task: str) -> AsyncIterator[Printer]:
        printer = Printer(self.bus, f"out.{user}.{task}")
        leave = await self.bus.attend(printed_subject(user, task), printer.answer)
        yield printer
        await leave()


class Printer:
    """A running step that says something."""

    def __init__(self, bus: Bus, subject: str) -> None:
        self.printed = ""
        self._bus = bus
        self._subject = subject
        self._tail = Tail()

    async def print(self, text: str) -> None:
        output = Output(attempt=1, step=1, offset=len(self.printed), text=text)
        self.printed += text
        self._tail.add(output)
        await self._bus.preview(self._subject, output)

    async def answer(self) -> Printed:
        return Printed(output=self._tail.pieces)


@asynccontextmanager
async def repos(nats: NatsHouse) -> AsyncIterator[list[str]]:
    """Knows every repository but those with `missing` in the name; yields what it was asked about."""
    asked: list[str] = []
    private = envelope.make_key()

    async def check(question: CheckRepository) -> RepositoryKnown:
        asked.append(question.repository)
        if "missing" in question.repository:
            raise Refused("There is no such repository, or Errand may not read it.", "not_found")
        return RepositoryKnown(repository=question.repository.removesuffix("/"))

    async def diff(question: ShowDiff) -> Diff:
        return Diff(text=f"diff of {question.commit}")

    async def key(_: AskSealingKey) -> SealingKey:
        return SealingKey(public_key=envelope.public_key(private))

    async with connect_bus(nats.bus_config(Service.REPOS), Service.REPOS) as bus:
        await bus.serve({CheckRepository: check, ShowDiff: diff, AskSealingKey: key}, version="0.0.0")
        yield asked


@asynccontextmanager
async def history(nats: NatsHouse) -> AsyncIterator[None]:
    async def run(question: RunSql) -> SqlAnswer:
        if "broken" in question.sql:
            raise Refused('Parser Error: syntax error at or near "broken"')
        return SqlAnswer(columns=("n",), rows=((1,),), sequence=question.at_least)

    async with connect_bus(nats.bus_config(Service.HISTORY), Service.HISTORY) as bus:
        await bus.serve({RunSql: run}, version="0.0.0")
        yield


class Phone:
    """A client of the live socket."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, frame: Message) -> None:
        await self.socket.send(encode(frame).decode())

    async def receive(self) -> AnyServerFrame:
        with anyio.fail_after(SECONDS):
            return decode_server_frame(await self.socket.recv())

    async def until(self, kind: type[F]) -> F:
        """The next frame of this kind."""
        while not isinstance(frame := await self.receive(), kind):
            pass
        return frame

    async def events(self, count: int) -> list[DecisionSeen | JournalSeen]:
        """The next so many events."""
        found: list[DecisionSeen | JournalSeen] = []
        while len(found) < count:
            frame = await self.receive()
            if isinstance(frame, DecisionSeen | JournalSeen):
                found.append(frame)
        return found

    async def closed(self) -> int:
        """Wait for the end; return the code."""
        with anyio.fail_after(SECONDS):
            while True:
                try:
                    await self.socket.recv()
                except ConnectionClosed as closed:
                    return closed.rcvd.code if closed.rcvd else 1006


@asynccontextmanager
async def stranger(gateway: GatewayHouse, **options: Any) -> AsyncIterator[Phone]:
    """A socket that has not signed in."""
    url = f"ws://127.0.0.1:{gateway.port}/api/live"
    async with connect(url, proxy=None, max_size=None, compression=None, **options) as socket:
        yield Phone(socket)


@asynccontextmanager
async def phone(gateway: GatewayHouse, token: str, **options: Any) -> AsyncIterator[Phone]:
    async with stranger(gateway, **options) as found:
        await found.send(SignIn(token=token))
        assert isinstance(await found.receive(), SignedIn)
        yield found


@asynccontextmanager
async def rest(gateway: GatewayHouse, token: str = "") -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx2.AsyncClient(base_url=gateway.url, headers=headers, timeout=SECONDS, trust_env=False) as client:
        yield client
