"""The sandbox's end of the proxy: a socket that listens on the loopback inside, and that we accept from out here.

The exec server makes it and lends it to us through a Unix socket in a folder that both see; the Unix socket is gone
again at once. So no byte is relayed inside, and commands find nothing but 127.0.0.1:3128. All that is ever done with
what came through is to accept, in a thread: whoever shares a socket could make that block.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import SocketStream

from sandbox.contract import SandboxError
from sandbox.egress.policy import Refusal
from sandbox.egress.proxy import Proxy
from sandbox.egress.refusals import Refusals

NAME = "gate"
CONNECTIONS_A_SECOND = 200
"""Of one sandbox: what makes them in a loop takes little of our time."""
AGAIN_SECONDS = 0.1
DESCRIPTOR = struct.Struct("i")
LISTENING = {
    socket.SO_DOMAIN: socket.AF_INET,
    socket.SO_TYPE: socket.SOCK_STREAM,
    socket.SO_PROTOCOL: socket.IPPROTO_TCP,
    socket.SO_ACCEPTCONN: 1,
}


class Gate:
    """Lets the connections of one sandbox in to its proxy, from `open` to `close`."""

    def __init__(self, proxy: Proxy, connections: int) -> None:
        self._proxy = proxy
        self._room = threading.Semaphore(connections)
        self._loop = asyncio.get_running_loop()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def connections(self) -> int:
        """That are open now."""
        return len(self._serving)

    def tell(self, on_refused: Callable[[Refusal], None] | None) -> None:
        """Whom to tell of refusals from now on, as if none had been told."""
        self._proxy.tell = Refusals(on_refused).add

    async def open(self, folder: Path, uid: int, lend: Callable[[], Awaitable[None]]) -> None:
        """`lend` has the sandbox, as `uid`, send its socket to `NAME` in `folder`. SandboxError when it does not."""
        with lending_place(folder, uid) as place:
            await lend()
            self._listener = take(place)
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), name="egress", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End every connection. May be called twice."""
        self._is_closed = True
        if self._thread is None or self._listener is None:
            return
        self._room.release()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._end_accepting, self._thread, self._listener)
            self._listener.close()
            for task in (serving := tuple(self._serving)):
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    @staticmethod
    def _end_accepting(thread: threading.Thread, listener: socket.socket) -> None:
        """Again and again: whoever shares the socket may let it listen once more before `accept` has noticed."""
        while thread.is_alive():
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # `accept` returns
            thread.join(AGAIN_SECONDS)

    def _accept(self, listener: socket.socket) -> None:
        pace = Pace()
        while True:
            self._room.acquire()
            if self._is_closed:
                return
            try:
                listener.setblocking(True)  # another one may have changed that
                self._loop.call_soon_threadsafe(self._begin, listener.accept()[0])
            except OSError:
                self._room.release()
                time.sleep(AGAIN_SECONDS)  # in a thread of its own: no descriptor is free, and nobody tells when one is
            pace.keep()

    def _begin(self, accepted: socket.socket) -> None:
        if self._is_closed:
            accepted.close()
            return
        task = self._loop.create_task(self._serve(accepted))
        self._serving.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._serving.discard(task)
        self._room.release()

    async def _serve(self, accepted: socket.socket) -> None:
        try:
            stream = await SocketStream.from_socket(accepted)
        except ValueError:  # whoever connected is gone already
            accepted.close()
        else:
            await self._proxy.serve(stream)


class Pace:
    """At most CONNECTIONS_A_SECOND; a burst of so many waits for nothing."""

    def __init__(self) -> None:
        self._began = 0.0
        self._count = 0

    def keep(self) -> None:
        """Wait until there may be another one."""
        now = time.monotonic()
        if now - self._began > 1.0:
            self._began, self._count = now, 0
        self._count += 1
        if self._count == CONNECTIONS_A_SECOND:
            time.sleep(self._began + 1.0 - now)  # the limit itself; the thread has nothing else to do


@contextmanager
def lending_place(folder: Path, uid: int) -> Iterator[socket.socket]:
    """A Unix socket in `folder` that listens, for this moment. By a descriptor: its path may be too long for one."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as place:
            with suppress(FileNotFoundError):
                os.unlink(NAME, dir_fd=descriptor)
            place.bind(f"/proc/self/fd/{descriptor}/{NAME}")
            try:
                if os.geteuid() == 0:
                    os.chown(NAME, uid, uid, dir_fd=descriptor, follow_symlinks=False)
                place.setblocking(False)
                place.listen(1)
                yield place
            finally:
                os.unlink(NAME, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def take(place: socket.socket) -> socket.socket:
    """What was sent there, when it is a TCP socket that listens. SandboxError."""
    try:
        lender, _ = place.accept()
        with lender:
            lender.setblocking(False)
            # socket.recv_fds of Python 3.11 heeds no flags: what came would go on to whatever is started next.
            _, came, _, _ = lender.recvmsg(1, socket.CMSG_LEN(DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC)
    except OSError:
        came = []
    sent = [data for level, kind, data in came if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)]
    if not sent:
        raise SandboxError("The sandbox did not open its way to the proxy")
    (descriptor,) = DESCRIPTOR.unpack(sent[0])
    try:
        lent = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise SandboxError("The sandbox sent what is no socket") from None
    if any(lent.getsockopt(socket.SOL_SOCKET, option) != value for option, value in LISTENING.items()):
        lent.close()
        raise SandboxError("The sandbox sent what is no listening socket")
    return lent
