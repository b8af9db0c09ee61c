"""An exec server as processes of this machine and a stream to them: what every driver without an engine hands to its
client."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, cast

import anyio
from msgspec import Struct

from sandbox.client import ExecClient

STDERR_KEPT_BYTES = 4096
LAST_WORDS_SECONDS = 1.0
"""How long after its stream a process may end and still be asked why."""


class Receiver(Protocol):
    """Who takes what the sandbox says. Called by the event loop, never after `lost`."""

    def received(self, data: bytes) -> None: ...

    def lost(self, reason: str) -> None: ...


class Birth(Struct, frozen=True):
    """A process that no later one is taken for: numbers are used again, with a time there are no two."""

    pid: int
    ticks: int
    """When it was started, since the machine was."""

    @classmethod
    def of(cls, pid: int) -> Birth | None:
        """None when there is no such process."""
        try:
            return cls(pid, int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]))
        except (FileNotFoundError, ProcessLookupError):
            return None

    def open(self) -> int | None:
        """A descriptor of it (pidfd); None when it has ended."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        if Birth.of(self.pid) == self:
            return descriptor
        os.close(descriptor)
        return None


class SandboxProcess(asyncio.Protocol):
    """Callbacks of the event loop instead of a reading task: no task without an owner, nothing in between."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._stderr = -1
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = asyncio.Event()
        self._living: dict[int, int] = {}
        """Descriptors of the processes that have not ended, and their pids."""
        self._told = False
        self.births: list[Birth] = []
        """The process that was started, and what it started in turn."""

    @classmethod
    async def start(
        cls, receiver: Receiver, argv: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int] = ()
    ) -> SandboxProcess:
        """OSError when the program cannot be started."""
        process = cls(receiver)
        ours, theirs = socket.socketpair()
        process._stderr = os.memfd_create("stderr")
        try:
            with theirs:
                streams = {0: theirs.fileno(), 1: theirs.fileno(), 2: process._stderr}
                process.adopt(spawn(argv, environment, {**streams, **dict(zip(descriptors, descriptors, strict=True))}))
        except OSError:
            ours.close()
            os.close(process._stderr)
            raise
        await process._speak(ours)
        return process

    @classmethod
    async def find(cls, receiver: Receiver, births: Sequence[Birth], stream: socket.socket) -> SandboxProcess:
        """One that was started by a runner before."""
        process = cls(receiver)
        for birth in births:
            process._watch(birth)
        await process._speak(stream)
        return process

    async def _speak(self, stream: socket.socket) -> None:
        await self._loop.create_connection(lambda: self, sock=stream)
        if not self._living:
            self._ended.set()

    @property
    def pid(self) -> int:
        """The exec server's, or of what is nearest to it."""
        return self.births[-1].pid

    def adopt(self, pid: int) -> None:
        """Know a process that belongs to this sandbox: `kill` reaches it, and the end is its end too."""
        if birth := Birth.of(pid):
            self._watch(birth)

    def _watch(self, birth: Birth) -> None:
        self.births.append(birth)
        descriptor = birth.open()
        if descriptor is not None:
            self._living[descriptor] = birth.pid
            self._loop.add_reader(descriptor, self._process_ended, descriptor)

    def send(self, data: bytes) -> None:
        """Queue `data`; into nothing once the stream is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the sandbox has taken most of what was sent."""
        await self._writable.wait()

    def kill(self) -> None:
        """End it at once; `lost` tells when it has ended."""
        for descriptor in reversed(self._living):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    async def stop(self, timeout_seconds: float) -> None:
        """Close its stream, on which it ends by itself, and kill it when it does not. Returns when it has ended."""
        with anyio.CancelScope(shield=True):
            if self._transport is not None:
                self._transport.close()
            with anyio.move_on_after(timeout_seconds):
                await self._ended.wait()
            self.kill()
            await self._ended.wait()

    def leave(self) -> None:
        """Close the stream and let it live: it is another runner's. When it ends it is still reaped here."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are not instances of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._receiver.received(data)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if self._living:
            self._loop.call_later(LAST_WORDS_SECONDS, self._tell)
        else:
            self._tell()

    def _process_ended(self, descriptor: int) -> None:
        with suppress(ChildProcessError):  # it was started by a runner before
            os.waitpid(self._living[descriptor], os.WNOHANG)
        self._forget(descriptor)
        if self._living:
            return
        self._ended.set()
        if self._transport is not None and not self._transport.is_closing():
            self._loop.call_later(LAST_WORDS_SECONDS, self._transport.abort)
        else:
            self._tell()

    def _forget(self, descriptor: int) -> None:
        del self._living[descriptor]
        self._loop.remove_reader(descriptor)
        os.close(descriptor)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._receiver.lost(self._last_words())

    def _last_words(self) -> str:
        if self._stderr == -1:
            return ""
        start = max(0, os.fstat(self._stderr).st_size - STDERR_KEPT_BYTES)
        words = os.pread(self._stderr, STDERR_KEPT_BYTES, start)
        os.close(self._stderr)
        self._stderr = -1
        return words.decode("utf-8", "replace").strip()


def spawn(argv: Sequence[str], environment: Mapping[str, str], descriptors: Mapping[int, int]) -> int:
    """The pid of the new process, in a session of its own; `descriptors` are those it has, and which of ours."""
    return os.posix_spawn(
        argv[0],
        list(argv),
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()],
        setsid=True,
        setsigmask=[],
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )


async def start_exec_server(
    client: ExecClient, argv: Sequence[str], environment: Mapping[str, str], *, descriptors: Sequence[int] = ()
) -> SandboxProcess:
    """Start `argv`, which ends in an exec server, as what `client` speaks to; returns once it takes commands.
    SandboxDied with its stderr when it does not come up; OSError when the program cannot be started."""
    async with client.or_stopped():
        process = await SandboxProcess.start(client, argv, environment, descriptors)
        client.attach(process)
        await client.ready()
        return process
