"""A started exec server as two byte streams: what every driver that starts a local process hands to its client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

import anyio

from sandbox.client import ExecClient

STDERR_KEPT_BYTES = 4096


class Receiver(Protocol):
    """Who takes what the sandbox says. Called by the event loop, never after `lost`."""

    def received(self, data: bytes) -> None: ...

    def lost(self, reason: str) -> None: ...


class SandboxProcess(asyncio.SubprocessProtocol):
    """Callbacks of the event loop instead of a reading task: no task without an owner, nothing in between."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.SubprocessTransport | None = None
        self._requests: asyncio.WriteTransport | None = None
        self._stderr = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = asyncio.Event()
        self._inner_pidfd = -1

    @classmethod
    async def start(
        cls, receiver: Receiver, argv: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int] = ()
    ) -> SandboxProcess:
        """OSError when the program cannot be started. The caller's thread must live as long as the sandbox: its end
        is what bubblewrap's --die-with-parent looks at."""
        process = cls(receiver)
        await asyncio.get_running_loop().subprocess_exec(
            lambda: process, *argv, env=dict(environment), pass_fds=tuple(descriptors), cwd="/", start_new_session=True
        )
        return process

    @property
    def pid(self) -> int:
        assert self._transport is not None
        return self._transport.get_pid()

    def adopt(self, pid: int) -> None:
        """Know the exec server's own process where `argv` is only its parent, so that `kill` is sure to reach it."""
        with contextlib.suppress(ProcessLookupError):
            self._inner_pidfd = os.pidfd_open(pid)

    def send(self, data: bytes) -> None:
        """Queue `data`; into nothing once the process is gone."""
        if self._requests is not None and not self._requests.is_closing():
            self._requests.write(data)

    async def drain(self) -> None:
        """Wait until the sandbox has taken most of what was sent."""
        await self._writable.wait()

    def kill(self) -> None:
        """End the process at once; `lost` tells when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._inner_pidfd != -1:
                signal.pidfd_send_signal(self._inner_pidfd, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            if self._transport is not None:
                self._transport.kill()

    async def stop(self, timeout_seconds: float) -> None:
        """Close its stdin, on which it ends by itself, and kill it when it does not. Returns when it has ended."""
        with anyio.CancelScope(shield=True):
            if self._requests is not None:
                self._requests.close()
            with anyio.move_on_after(timeout_seconds):
                await self._ended.wait()
            self.kill()
            await self._ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are not instances of asyncio's classes.
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self._requests = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 1:
            self._receiver.received(data)
        else:
            self._stderr += data
            del self._stderr[:-STDERR_KEPT_BYTES]

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def process_exited(self) -> None:
        """End the exec server too when it was the process's child: it ends with its stdin."""
        if self._requests is not None and not self._requests.is_closing():
            self._requests.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended and its pipes are closed, so nothing that held them is left."""
        self._writable.set()
        self._ended.set()
        if self._inner_pidfd != -1:
            os.close(self._inner_pidfd)
            self._inner_pidfd = -1
        if self._transport is not None:
            self._transport.close()
        self._receiver.lost(self._stderr.decode("utf-8", "replace").strip())


async def start_exec_server(
    client: ExecClient, argv: Sequence[str], environment: Mapping[str, str], *, descriptors: Sequence[int] = ()
) -> SandboxProcess:
    """Start `argv`, which ends in an exec server, as what `client` speaks to; returns once it takes commands.
    SandboxDied with its stderr when it does not come up; OSError when the program cannot be started."""
    process = await SandboxProcess.start(client, argv, environment, descriptors)
    client.attach(process)
    try:
        await client.ready()
    except BaseException:
        await client.stop()
        raise
    return process
