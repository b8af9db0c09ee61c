"""One container: what the engine is told of it, and the stream to the exec server that is its PID 1."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
from msgspec import Struct

from sandbox import exec_server
from sandbox.checkpoints import GITCONFIG
from sandbox.contract import SandboxUnavailable
from sandbox.disk import OPTIONS as DISK_OPTIONS
from sandbox.engine import Engine, EngineError
from sandbox.environment import HOME, inside
from sandbox.folders import TASK_UIDS, people
from sandbox.limits import TMPFS, Limits
from sandbox.process import STDERR_KEPT_BYTES, Receiver
from sandbox.seccomp import filter_program

NAMES = "/run/errand"
"""Where the image's /etc/passwd and /etc/group point to: they name the task's uid, which no image can know."""
NAMES_BYTES = 64 * 1024
SERVER = Path(exec_server.__file__).read_bytes()
BOOTSTRAP = f"""\
import os
code = b""
while len(code) < {len(SERVER)}:
    piece = os.read(0, {len(SERVER)} - len(code))
    if not piece:
        raise SystemExit
    code += piece
exec(compile(code, "exec_server.py", "exec"))
"""
"""The exec server comes over the stream: any image with a Python will do, and it always fits this side of it."""
WORKSPACE = "/workspace"
RELAY = """\
import ctypes, socket, sys
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.connect("\\0" + sys.argv[1])
socket.send_fds(door, [sys.argv[2].encode()], [0, 1])
door.recv(1)
"""
"""Brings a later runner's streams to the exec server's door, and holds them open. It never reads what they carry."""
RELAY_UID = TASK_UIDS.start - 1
"""Whom the door is open to: no command has this uid, so none can look into the relay or stand in for it."""
FRAME_BYTES = 8
OOM_SCORE = 250
"""When the machine itself has no memory left, a sandbox goes before the house. Less than what a command has."""
PAGE_BYTES = 4096
FILES_AT_LEAST = 1024
STDOUT = 1
REMOVE_SECONDS = 20.0


LINKED: dict[str, Any] = {
    "NetworkDisabled": True,
    "OpenStdin": True,
    "StdinOnce": True,
    "AttachStdin": True,
    "AttachStdout": True,
    "AttachStderr": True,
    "Healthcheck": {"Test": ["NONE"]},
    "StopSignal": "SIGKILL",
}
"""Of a container that speaks by its streams alone, and ends with them. Nobody in it answers another signal: an engine
that stops would wait for 10 s, and what is waited for here would be heard of that much later."""


class Mount(Struct, frozen=True):
    """A folder of this machine, as the engine names it, seen inside at `target`."""

    source: Path
    target: str
    readonly: bool


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """What a container is made of."""

    image: str
    uid: int
    limits: Limits
    mounts: tuple[Mount, ...]
    labels: Mapping[str, str]
    runtime: str = ""
    """Empty: the engine's own."""
    disk: str = ""
    """The block device that is its /workspace, empty where that is one of the mounts."""


def container_config(spec: ContainerSpec) -> dict[str, Any]:
    """The body of `POST /containers/create`: the hardest settings under which ordinary builds and tests still run."""
    server = {
        "workspace": "/workspace",
        "door_uid": RELAY_UID,
        "memory_limit": True,
        "sized": [WORKSPACE, *TMPFS] if spec.disk else TMPFS,
        "seccomp": filter_program().hex(),
        "files": {
            **{f"{NAMES}/{name}": text for name, text in people(spec.uid).items()},
            f"{HOME}/.gitconfig": GITCONFIG,
        },
    }
    return {
        "Image": spec.image,
        "Entrypoint": ["python3", "-I", "-S", "-c", BOOTSTRAP],
        "Cmd": [msgspec.json.encode(server).decode()],
        "Env": [f"{name}={value}" for name, value in inside().items()],
        "User": f"{spec.uid}:{spec.uid}",
        "WorkingDir": "/",
        "Hostname": "errand",
        "Labels": dict(spec.labels),
        **LINKED,
        "HostConfig": host_config(spec),
    }


def host_config(spec: ContainerSpec) -> dict[str, Any]:
    limits = spec.limits
    return {
        "Runtime": spec.runtime,
        "AutoRemove": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Init": False,
        "LogConfig": {"Type": "none"},
        "Memory": limits.memory_bytes,
        "MemorySwap": limits.memory_bytes,
        "PidsLimit": limits.processes,
        "NanoCpus": int(limits.cpus * 1_000_000_000),
        "Ulimits": [
            {"Name": name, "Soft": value, "Hard": value}
            for name, value in (("core", 0), ("nofile", limits.open_files), ("fsize", limits.file_bytes))
        ],
        "OomScoreAdj": OOM_SCORE,
        "Tmpfs": {
            **dict.fromkeys(TMPFS, tmpfs_options(limits.tmp_bytes)),
            NAMES: f"rw,noexec,nosuid,nodev,mode=755,uid={spec.uid},gid={spec.uid},size={NAMES_BYTES}",
        },
        "Mounts": [
            *(
                {"Type": "bind", "Source": str(mount.source), "Target": mount.target, "ReadOnly": mount.readonly}
                for mount in spec.mounts
            ),
            *([disk_mount(spec)] if spec.disk else []),
        ],
    }


def disk_mount(spec: ContainerSpec) -> dict[str, Any]:
    """The engine mounts the device, and unmounts and forgets it with the container."""
    driver = {"Name": "local", "Options": {"type": "ext4", "device": spec.disk, "o": DISK_OPTIONS}}
    options = {"NoCopy": True, "Labels": dict(spec.labels), "DriverConfig": driver}
    return {"Type": "volume", "Target": WORKSPACE, "VolumeOptions": options}


def tmpfs_options(size_bytes: int) -> str:
    """As many files as pages: empty ones take the kernel's memory too."""
    return f"rw,exec,nosuid,nodev,mode=1777,size={size_bytes},nr_inodes={max(size_bytes // PAGE_BYTES, FILES_AT_LEAST)}"


class ContainerLink(asyncio.Protocol):
    """The stream of an attached container as a `Link`; what it says goes to `receiver`, cut out of the engine's frames
    (a byte for stdout or stderr, three of padding, four for the size)."""

    def __init__(self, engine: Engine, name: str, receiver: Receiver) -> None:
        self._engine = engine
        self.container = name
        """By its name until it has an id."""
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._stderr = bytearray()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = asyncio.Event()
        self._renaming: asyncio.Task[None] | None = None
        self._removal: asyncio.Task[None] | None = None

    async def start(self, config: Mapping[str, Any], first: bytes = b"") -> None:
        """Make the container, take its stream before anything is said, start it; `first` is what it reads first.
        EngineError."""
        # An engine goes on making what nobody waits for any more, and a stream that nobody took would stay open.
        with anyio.CancelScope(shield=True):
            self.container = await self._engine.create(self.container, config)
            await self._speak(await self._engine.attach(self.container))
        self.send(first)
        await self._engine.start(self.container)

    async def take_over(self, said: bytes) -> None:
        """Have the container that another runner has started listen to us. EngineError."""
        command = ["python3", "-I", "-S", "-c", RELAY, exec_server.DOOR[1:], said.decode()]
        with anyio.CancelScope(shield=True):
            await self._speak(await self._engine.relay(self.container, command, RELAY_UID))

    async def _speak(self, ours: socket.socket) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, sock=ours)

    def rename(self, name: str) -> None:
        """For people who look at the engine. Nobody waits for it but `stop`."""
        self._renaming = asyncio.get_running_loop().create_task(self._rename(name))

    def send(self, data: bytes) -> None:
        """Queue `data`; into nothing once the container is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def drain(self) -> None:
        await self._writable.wait()

    def kill(self) -> None:
        """End the container at once; `stop` waits until it is gone."""
        if self._removal is None:
            self._removal = asyncio.get_running_loop().create_task(self._remove())

    def leave(self) -> None:
        """Close the stream and let it live: it is another runner's."""
        if self._transport is not None:
            self._transport.abort()

    async def stop(self, timeout_seconds: float) -> None:
        """Close its stdin, on which it ends by itself, and remove it. Returns when it is gone."""
        with anyio.CancelScope(shield=True):
            if self._removal is None and self._transport is not None and not self._transport.is_closing():
                self._transport.write_eof()
                with anyio.move_on_after(timeout_seconds):
                    await self._ended.wait()
            self.kill()
            for task in filter(None, (self._renaming, self._removal)):
                await task

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because uvloop's transports are not instances of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for channel, piece in self._frames():
            if channel == STDOUT:
                self._receiver.received(piece)
            else:
                self._stderr += piece
                del self._stderr[:-STDERR_KEPT_BYTES]

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self._ended.set()
        self._receiver.lost(self._stderr.decode("utf-8", "replace").strip() or "its container ended")

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        start = 0
        while len(self._buffer) - start >= FRAME_BYTES:
            body = start + FRAME_BYTES
            end = body + int.from_bytes(self._buffer[start + 4 : body], "big")
            if len(self._buffer) < end:
                break
            yield self._buffer[start], bytes(self._buffer[body:end])
            start = end
        del self._buffer[:start]

    async def _rename(self, name: str) -> None:
        with suppress(EngineError, SandboxUnavailable):
            await self._engine.rename(self.container, name)

    async def _remove(self) -> None:
        """What the engine cannot remove now, because it is down, the reconciler removes later."""
        with suppress(EngineError, SandboxUnavailable), anyio.move_on_after(REMOVE_SECONDS):
            await self._engine.remove(self.container)
        if self._transport is not None:
            self._transport.abort()
