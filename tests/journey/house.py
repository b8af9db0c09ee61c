"""The whole house, up as its users have it, and a phone that watches it. Nothing here reaches inside a service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import msgspec
import psutil
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage

from protocol.base import encode
from protocol.evolve import Task, evolve
from protocol.journal import StepFinished, StepStarted, ToolCall
from protocol.live import (
    Accepted,
    AnyServerFrame,
    CaughtUp,
    Closing,
    CommandFrame,
    DecisionSeen,
    JournalSeen,
    Refused,
    SignedIn,
    SignIn,
    Submit,
    UnwatchTask,
    WatchTask,
    decode_server_frame,
)
from protocol.task import OUTCOMES, TurnEnded
from services.up import Ready

PROGRAMS = {
    "scheduler": "services.scheduler",
    "gateway": "gateway",
    "history": "services.history",
    "runner": "services.runner",
    "repos": "services.repos",
    "nats": "nats-server",
}


class House:
    """A running `errand up`."""

    def __init__(self, process: subprocess.Popen[bytes], ready: Ready, data: Path) -> None:
        self.process = process
        self.ready = ready
        self.data = data

    @property
    def token(self) -> str:
        return msgspec.json.decode((self.data / "client.json").read_bytes())["token"]

    def pid(self, name: str) -> int:
        """Of the service's process at this moment; waits until there is one."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for child in psutil.Process(self.process.pid).children():
                try:
                    if any(word.endswith(PROGRAMS[name]) for word in child.cmdline()):
                        return child.pid
                except psutil.NoSuchProcess:
                    continue
        raise AssertionError(f"no {name} is running")

    def kill(self, name: str) -> None:
        """As `kill -9` does; returns once the process is gone."""
        process = psutil.Process(self.pid(name))
        process.kill()
        psutil.wait_procs([process], timeout=10)

    def logs(self) -> str:
        """The end of every log, for a failure's message."""
        return "\n".join(
            f"--- {log.name}\n" + log.read_text(errors="replace")[-3000:]
            for log in sorted((self.data / "logs").glob("*.log"))
        )


@contextmanager
def errand_up(data: Path, **settings: str) -> Iterator[House]:
    """Start the house over `data` and stop it at the end; fails when anything of it is left."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ERRAND_", "ANTHROPIC_"))}
    # Whatever this machine has: what is tested beside the sandbox needs no engine.
    environment |= {"ERRAND_SANDBOX": "bubblewrap"} | settings
    data.mkdir(parents=True, exist_ok=True)
    with (data / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "up", "--data", str(data), "--port", "0", "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"errand up ended with {process.wait()}:\n{(data / 'up.log').read_text()}"
        yield House(process, msgspec.json.decode(line, type=Ready), data)
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        process.send_signal(signal.SIGINT)  # as a person who ends it: after SIGTERM it may come back to its sandboxes
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        left = [p for p in psutil.wait_procs(family, timeout=5)[1] if p.is_running()]
        assert left == [], f"these were left running: {left}"


class Phone:
    """A phone: one WebSocket, a cursor a task, and what it has seen. Reconnects from its cursors by itself."""

    def __init__(self, house: House, token: str = "") -> None:
        self._house = house
        self._token = token
        self.events: dict[str, list[DecisionSeen | JournalSeen]] = {}
        self.others: list[AnyServerFrame] = []
        self.tasks: dict[str, Task] = {}
        self.connections = 0
        self._pending: dict[str, bytes] = {}
        self._socket: ClientConnection | None = None
        self._changed = anyio.Event()
        self._hung_up = False

    async def keep_connected(self) -> None:
        """Until `hang_up`."""
        url = self._house.ready.server.replace("http", "ws", 1) + "/api/live"
        while not self._hung_up:
            try:
                async with connect(url, max_size=None, ping_interval=None, open_timeout=5) as socket:
                    await socket.send(encode(SignIn(token=self._token or self._house.token)))
                    await self._converse(socket)
            except (OSError, ConnectionClosed, InvalidMessage, TimeoutError):
                await anyio.sleep(0.05)
            finally:
                self._socket = None

    async def hang_up(self) -> None:
        self._hung_up = True
        if self._socket is not None:
            await self._socket.close()

    async def submit(self, prompt: str, repository: str, *, key: str, **settings: object) -> str:
        """Send until accepted; the key makes it one task."""
        frame = Submit(key=key, prompt=prompt, repository=repository, **settings)  # type: ignore[arg-type]
        accepted = await self.command(frame)
        await self.watch(accepted.task)
        return accepted.task

    async def command(self, frame: CommandFrame) -> Accepted:
        """Send a command, again after every reconnect, until the gateway has it."""
        self._pending[frame.key] = encode(frame)
        await self._send(self._pending[frame.key])

        def answered() -> Accepted | Refused | None:
            found = (f for f in self.others if isinstance(f, Accepted | Refused) and f.key == frame.key)
            return next(found, None)

        await self.until(lambda: answered() is not None)
        del self._pending[frame.key]
        answer = answered()
        assert isinstance(answer, Accepted), answer
        return answer

    async def send_raw(self, text: str) -> None:
        """Anything at all."""
        assert self._socket is not None
        await self._socket.send(text)

    async def watch(self, task: str) -> None:
        self.events.setdefault(task, [])
        self.tasks.setdefault(task, Task(id=task, user=""))
        await self._send(encode(WatchTask(task=task, cursor=self.cursor(task))))

    async def unwatch(self, task: str) -> None:
        """Forget it: a connection watches so many tasks and no more."""
        del self.events[task]
        await self._send(encode(UnwatchTask(task=task)))

    def cursor(self, task: str) -> int:
        return self.events[task][-1].sequence if self.events[task] else 0

    async def until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `holds` is true of what was seen."""
        with anyio.fail_after(seconds):
            while not holds():
                await self._changed.wait()

    async def ended(self, task: str, seconds: float = 60) -> Task:
        await self.until(lambda: self.tasks[task].turn > 0 and self.tasks[task].state in OUTCOMES, seconds)
        return self.tasks[task]

    def journal(self, task: str) -> list[JournalSeen]:
        return [frame for frame in self.events[task] if isinstance(frame, JournalSeen)]

    async def _converse(self, socket: ClientConnection) -> None:
        async for message in socket:
            frame = decode_server_frame(message)
            self._take(frame)
            if self._hung_up:
                return
            if isinstance(frame, SignedIn):
                self._socket = socket
                self.connections += 1
                for task in self.events:
                    await self.watch(task)
                for command in list(self._pending.values()):
                    await self._send(command)
            if isinstance(frame, Closing):
                return

    def _take(self, frame: AnyServerFrame) -> None:
        if isinstance(frame, DecisionSeen | JournalSeen):
            if frame.task not in self.events:
                return  # unwatched a moment ago
            self.events[frame.task].append(frame)
            if isinstance(frame, DecisionSeen):
                self.tasks[frame.task] = evolve(self.tasks[frame.task], frame.decision)
        else:
            self.others.append(frame)
        self._changed.set()
        self._changed = anyio.Event()

    async def _send(self, data: bytes) -> None:
        if self._socket is not None:
            try:
                await self._socket.send(data.decode())
            except ConnectionClosed:
                return  # sent again after the reconnect


@asynccontextmanager
async def phone(house: House, token: str = "") -> AsyncIterator[Phone]:
    phone = Phone(house, token)
    async with anyio.create_task_group() as group:
        group.start_soon(phone.keep_connected)
        failure: Exception | None = None
        try:
            yield phone
        except Exception as error:
            failure = error
        # Not cancelled: a socket that is torn away in the middle of its closing would be reported as left open.
        await phone.hang_up()
    if failure is not None:
        raise failure


def assert_no_gap(phone: Phone, task: str) -> None:
    """§10.4: what was seen of a task has no gap and no duplicate."""
    last = last_decision = 0
    for frame in phone.events[task]:
        assert frame.sequence > last, f"{frame.sequence} came after {last}"
        if isinstance(frame, JournalSeen):
            assert frame.previous == last, f"before {frame.sequence} came {frame.previous}, seen was {last}"
        else:
            # A decision that cuts a runner off expects the last event of either kind.
            assert frame.previous in (last_decision, last), f"before {frame.sequence} came {frame.previous}"
            last_decision = frame.sequence
        last = frame.sequence


def assert_ended_once(phone: Phone, task: str, turns: int = 1) -> None:
    """§10.2: each turn ends once, each tool call has one outcome."""
    ends = [
        event.turn
        for frame in phone.events[task]
        if isinstance(frame, DecisionSeen)
        for event in frame.decision.events
        if isinstance(event, TurnEnded)
    ]
    assert ends == list(range(1, turns + 1))
    started: dict[int, str] = {}
    calls: list[str] = []
    finished: list[int] = []
    for frame in phone.journal(task):
        match frame.entry.event:
            case StepStarted(step=step, action=ToolCall(id=call)):
                started[step] = call
                calls.append(call)
            case StepStarted(step=step):
                started[step] = ""
            case StepFinished(step=step):
                finished.append(step)
    assert sorted(finished) == sorted(started), "each started step has exactly one end"
    assert len(calls) == len(set(calls)), "no tool call is started twice"


def caught_up(phone: Phone, task: str) -> bool:
    return any(isinstance(frame, CaughtUp) and frame.task == task for frame in phone.others)
