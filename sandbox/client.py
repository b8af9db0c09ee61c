"""The host's side of an exec server: any number of calls over one stream, by their ids.

Nothing that comes from inside is trusted: each frame is checked against what its call may receive, and a frame that is
wrong in any way is the sandbox's death, which harms its own task only.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import anyio
import anyio.to_thread
import msgspec
from msgspec import Meta, Struct

from sandbox import exec_server, ignored
from sandbox.checkpoints import Checkpoints, Look
from sandbox.contract import (
    FILE_LIMIT_BYTES,
    OUTPUT_LIMIT_BYTES,
    Checkpoint,
    ExecResult,
    Ignored,
    OnOutput,
    Process,
    SandboxDied,
    SandboxError,
)
from sandbox.text import NUL_PICTURE, TextDecoder, join_kept

if TYPE_CHECKING:
    from sandbox.egress.gate import Gate

READY_SECONDS = 20.0
STOP_SECONDS = 5.0
OVERDUE_SECONDS = 10.0
"""A sandbox that has not ended a command this long after its deadline or its cancel is given up and killed."""

RENEW_SECONDS = 10.0
"""How often a lease is renewed, or three times while it lasts where that is sooner."""
UNANSWERED_LIMIT = 2
"""So many renewals without an answer are the sandbox's death: its engine hangs, or somebody froze it."""
NAME_CHARS = 80

Count = Annotated[int, Meta(ge=0, le=2**62)]


class Ready(Struct, tag_field="op", tag="ready"):
    id: Count
    version: int


class Held(Struct, tag_field="op", tag="held"):
    """An answer to a renewal."""

    id: Count


class Taken(Struct, tag_field="op", tag="taken"):
    """What the server says first to a runner that takes it over."""

    id: Count
    version: int
    attempt: Count
    """Whose it was."""
    last: Count
    """The highest number of a call."""
    call: Count
    """Of the call that has a name; 0 where none has."""
    name: Annotated[str, Meta(max_length=NAME_CHARS)]


class Fenced(Struct, tag_field="op", tag="fenced"):
    """Another runner has taken the server over."""

    id: Count


class Output(Struct, tag_field="op", tag="output"):
    id: Count
    skipped: Count


class Full(Struct):
    """A place inside that had no room left when a command ended."""

    place: Literal["/workspace", "/tmp", "/var/tmp", "/dev/shm"]
    of: Literal["bytes", "files"]
    limit: Count

    def sentence(self) -> str:
        limit = f"{self.limit / 1024**2:,.0f} MiB" if self.of == "bytes" else f"{self.limit:,} files"
        return f"[{self.place} is full: it holds {limit}]"


class Exit(Struct, tag_field="op", tag="exit"):
    id: Count
    code: Annotated[int, Meta(ge=0, le=255)] | None
    ended_by: Annotated[str, Meta(pattern=r"^(|deadline|memory|cancelled|shell|signal [0-9]{1,2})$")]
    dropped: Count
    head: Count
    skipped: Count
    cwd: Annotated[str, Meta(max_length=8192)]
    shell: Literal["", "kept", "new", "ended"]
    full: Full | None = None


class Data(Struct, tag_field="op", tag="data"):
    id: Count


class Done(Struct, tag_field="op", tag="done"):
    id: Count
    size: Count


class Failed(Struct, tag_field="op", tag="error"):
    id: Count
    reason: str
    message: Annotated[str, Meta(max_length=4000)]


class Described(Struct):
    """A background process, as the sandbox tells of it."""

    number: Count
    command: Annotated[str, Meta(max_length=exec_server.SHOWN_COMMAND_CHARS)]
    running: bool
    code: Annotated[int, Meta(ge=0, le=255)] | None
    ended_by: Annotated[str, Meta(pattern=r"^(|stopped|cancelled|memory|signal [0-9]{1,2})$")]
    seconds: Annotated[float, Meta(ge=0)]
    unread: Count


class Processes(Struct, tag_field="op", tag="processes"):
    id: Count
    processes: Annotated[tuple[Described, ...], Meta(max_length=2 * exec_server.PROCESSES_LIMIT)]


class ProcessTold(Struct, tag_field="op", tag="process"):
    id: Count
    process: Described
    head: Count
    dropped: Count


class Looked(Struct, tag_field="op", tag="looked"):
    id: Count
    print: Annotated[str, Meta(max_length=16)]
    certain: bool
    crowded: bool


Reply = Ready | Held | Taken | Fenced | Output | Exit | Data | Done | Failed | Processes | ProcessTold | Looked


class Violation(Exception):
    """The sandbox said what its protocol does not allow."""


class Link(Protocol):
    """The stream to an exec server, whatever carries it."""

    def send(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def kill(self) -> None: ...

    async def stop(self, timeout_seconds: float) -> None: ...

    def leave(self) -> None: ...


class Call:
    """One request whose replies are awaited. `take` is called by the event loop, the rest by the caller."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.ended = False
        self.failure: Failed | None = None

    def take(self, reply: Reply, payload: bytes) -> None:
        """Violation when this call may not receive that."""
        if not isinstance(reply, Failed):
            raise Violation(f"an unexpected {type(reply).__name__.lower()} frame")
        self.failure = reply
        self.ended = True


class ReadyCall(Call):
    """What the server says first."""

    def take(self, reply: Reply, payload: bytes) -> None:
        if not isinstance(reply, Ready) or reply.version != exec_server.VERSION:
            raise Violation(f"not version {exec_server.VERSION} of the exec server")
        self.ended = True


class TakenCall(Call):
    """What the server says first to a runner that has not started it."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: Taken | None = None

    def take(self, reply: Reply, payload: bytes) -> None:
        if not isinstance(reply, Taken) or reply.version != exec_server.VERSION:
            raise Violation(f"not version {exec_server.VERSION} of the exec server")
        if reply.call > reply.last:
            raise Violation("a call that there was not")
        self.taken = reply
        self.ended = True


class ExecCall(Call):
    """A command. Holds at most the preview window and the kept output."""

    def __init__(self, output_limit_bytes: int) -> None:
        super().__init__()
        self._output_limit_bytes = output_limit_bytes
        self._window = exec_server.PREVIEW_WINDOW_BYTES
        self._previews: deque[tuple[int, bytes]] = deque()
        self.exit: Exit | None = None
        self.output = b""

    def take(self, reply: Reply, payload: bytes) -> None:
        match reply:
            case Output():
                self._take_preview(reply.skipped, payload)
            case Exit():
                self._take_exit(reply, payload)
            case _:
                super().take(reply, payload)

    def _take_preview(self, skipped: int, payload: bytes) -> None:
        self._window -= len(payload)
        if self._window < 0 or not payload:
            raise Violation("more output than it was allowed to send")
        self._previews.append((skipped, payload))

    def _take_exit(self, reply: Exit, payload: bytes) -> None:
        if len(payload) > self._output_limit_bytes or reply.head > len(payload):
            raise Violation("more kept output than was asked for")
        if (reply.code is None) == (not reply.ended_by):
            raise Violation("a command that ended in no way or in two")
        if reply.skipped:
            self._previews.append((reply.skipped, b""))
        self.exit = reply
        self.output = payload
        self.ended = True

    def next_preview(self, decoder: TextDecoder) -> tuple[str, int]:
        """(text to show, bytes to acknowledge) of what has come; ("", 0) when nothing has."""
        text, count = "", 0
        while self._previews:
            skipped, data = self._previews.popleft()
            if skipped:
                text += f"\n[… {skipped} bytes not shown …]\n"
            text += decoder.decode(data)
            count += len(data)
        return text, count

    def acknowledge(self, count: int) -> None:
        self._window += count

    def result(self, duration_seconds: float) -> ExecResult:
        assert self.exit is not None
        head = self.exit.head
        output, dropped = join_kept(self.output[:head], self.output[head:], self.exit.dropped)
        if self.exit.full is not None:
            output += f"{chr(10) if output[-1:] not in ('', chr(10)) else ''}{self.exit.full.sentence()}\n"
        return ExecResult(
            exit_code=self.exit.code,
            output=output,
            dropped_bytes=dropped,
            ended_by=self.exit.ended_by,
            cwd=self.exit.cwd.replace("\0", NUL_PICTURE),
            shell=self.exit.shell,
            duration_seconds=duration_seconds,
        )


class ReadCall(Call):
    """A file on its way out. Holds at most the limit the caller gave."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__()
        self._limit_bytes = limit_bytes
        self.data = bytearray()

    def take(self, reply: Reply, payload: bytes) -> None:
        match reply:
            case Data():
                self.data += payload
                if len(self.data) > self._limit_bytes or not payload:
                    raise Violation("more of a file than was asked for")
            case Done():
                if reply.size != len(self.data):
                    raise Violation("a file of another size than announced")
                self.ended = True
            case _:
                super().take(reply, payload)


class DoneCall(Call):
    """What has no answer but that it is done: a file on its way in, a restart."""

    def take(self, reply: Reply, payload: bytes) -> None:
        if isinstance(reply, Done):
            self.ended = True
        else:
            super().take(reply, payload)


class ProcessesCall(Call):
    """A question after background processes: all of them, or one with its output."""

    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[Process, ...] = ()

    def take(self, reply: Reply, payload: bytes) -> None:
        match reply:
            case Processes():
                self.found = tuple(process_of(described) for described in reply.processes)
                self.ended = True
            case ProcessTold():
                if reply.head > len(payload) or len(payload) > OUTPUT_LIMIT_BYTES:
                    raise Violation("more output of a process than was asked for")
                output, dropped = join_kept(payload[: reply.head], payload[reply.head :], reply.dropped)
                told = process_of(reply.process)
                self.found = (msgspec.structs.replace(told, output=output, dropped_bytes=dropped),)
                self.ended = True
            case _:
                super().take(reply, payload)


class LookCall(Call):
    """A look at whether the workspace has changed."""

    def __init__(self) -> None:
        super().__init__()
        self.found = Look()

    def take(self, reply: Reply, payload: bytes) -> None:
        if isinstance(reply, Looked):
            self.found = Look(print=reply.print, certain=reply.certain, crowded=reply.crowded)
            self.ended = True
        else:
            super().take(reply, payload)


def process_of(told: Described) -> Process:
    return Process(
        number=told.number,
        command=told.command.replace("\0", NUL_PICTURE),
        running=told.running,
        exit_code=told.code,
        ended_by=told.ended_by,
        seconds=told.seconds,
        unread_bytes=told.unread,
    )


class ExecClient:
    """A `Sandbox` over a stream to an exec server. Made by a driver: `attach` the stream, then await `ready`."""

    def __init__(
        self,
        environment: Mapping[str, str],
        cleanup: Callable[[], None] = lambda: None,
        *,
        key: str = "",
        is_taken_over: bool = False,
    ) -> None:
        """`environment` is each command's; `cleanup` runs in a thread when the sandbox has been stopped; `key` is what
        its driver calls it; `is_taken_over` where another runner has started it."""
        self.environment = dict(environment)
        self.key = key
        self.link: Link | None = None
        self._cleanup = cleanup
        self._is_ours: Callable[[], bool] = lambda: True
        self._forget: Callable[[], None] = lambda: None
        self._lets_go = False
        self._on_stop: list[Callable[[], None]] = []
        self.gate: Gate | None = None
        """Of a sandbox with a way out."""
        self._frames = exec_server.FrameReader()
        self._replies = msgspec.json.Decoder(Reply)
        self._greeting = TakenCall() if is_taken_over else ReadyCall()
        self._calls: dict[int, Call] = {0: self._greeting}
        self._last_id = 0
        self._death = ""
        self._renewal: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._resumed: Taken | None = None
        self._checkpoints = Checkpoints(self)

    def attach(self, link: Link) -> None:
        self.link = link

    async def ready(self) -> None:
        """Return when the server takes commands; SandboxDied with what it said when it does not come up."""
        try:
            with anyio.fail_after(READY_SECONDS):
                await self._finish(self._greeting)
        except TimeoutError:
            self._die(f"its exec server did not answer within {READY_SECONDS:.0f} s")
            raise SandboxDied(self._death) from None
        del self._calls[0]
        if isinstance(self._greeting, TakenCall) and self._greeting.taken is not None:
            self._resumed = self._greeting.taken
            self._last_id = self._greeting.taken.last

    def belong(self, cleanup: Callable[[], None], is_ours: Callable[[], bool], forget: Callable[[], None]) -> None:
        """`cleanup` as in the constructor, or `forget` where it was left; `is_ours` turns false when another runner has
        taken it over: then it is left alone."""
        self._cleanup, self._is_ours, self._forget = cleanup, is_ours, forget

    def hold(self, attempt: int, lease_seconds: float) -> None:
        """From now on the sandbox outlives us by so many seconds; it is found out soon when it does not answer."""
        if self._death:
            return
        if self._unanswered == UNANSWERED_LIMIT:
            self._die("it does not answer")
            return
        assert self.link is not None
        self.link.send(pack({"op": "hold", "id": 0, "attempt": attempt, "lease": lease_seconds}))
        self._unanswered += 1
        seconds = min(RENEW_SECONDS, lease_seconds / 3)
        self._renewal = asyncio.get_running_loop().call_later(seconds, self.hold, attempt, lease_seconds)

    async def exec(
        self,
        command: str,
        *,
        cwd: str = "/workspace",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        where = {"shell": False, "cwd": cwd, "environment": {**self.environment, **(environment or {})}}
        return await self._exec(command, where, timeout_seconds, output_limit_bytes, on_output)

    async def shell(
        self,
        command: str,
        *,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: OnOutput | None = None,
        name: str = "",
    ) -> ExecResult:
        where = {"shell": True, "environment": self.environment, "name": name}
        return await self._exec(command, where, timeout_seconds, output_limit_bytes, on_output)

    async def resume(
        self,
        name: str,
        *,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: OnOutput | None = None,
    ) -> ExecResult | None:
        if self._resumed is None or self._resumed.name != name or not self._resumed.call:
            return None
        request = {"op": "resume", "stream": on_output is not None}
        call_id, self._resumed = self._resumed.call, None
        return await self._run(request, ExecCall(output_limit_bytes), timeout_seconds, on_output, call_id)

    async def restart_shell(self) -> None:
        call = DoneCall()
        async with self._calling(call, {"op": "restart"}):
            await self._finish(call)

    async def start_process(self, command: str, *, cwd: str = "") -> Process:
        where = {"cwd": cwd, "environment": self.environment, "limit": OUTPUT_LIMIT_BYTES}
        return await self._process({"op": "spawn", "command": command, **where})

    async def processes(self) -> tuple[Process, ...]:
        return await self._processes({"op": "processes"})

    async def read_process(self, number: int) -> Process:
        return await self._process({"op": "collect", "process": number})

    async def stop_process(self, number: int) -> Process:
        return await self._process({"op": "end", "process": number})

    async def lend(self, path: str, port: int) -> None:
        """Have it send the socket that listens at `port` inside to the Unix socket at `path`, as seen inside."""
        call = DoneCall()
        async with self._calling(call, {"op": "lend", "path": path, "port": port}):
            await self._finish(call)

    async def _process(self, request: dict[str, object]) -> Process:
        found = await self._processes(request)
        if len(found) != 1:
            self._die("its exec server told of none or of many processes")
            raise SandboxDied(self._death)
        return found[0]

    async def _processes(self, request: dict[str, object]) -> tuple[Process, ...]:
        call = ProcessesCall()
        overdue = asyncio.get_running_loop().call_later(OVERDUE_SECONDS, self._give_up, call)
        try:
            async with self._calling(call, request):
                await self._finish(call)
        finally:
            overdue.cancel()
        return call.found

    async def _exec(
        self,
        command: str,
        where: Mapping[str, object],
        timeout_seconds: float,
        output_limit_bytes: int,
        on_output: OnOutput | None,
    ) -> ExecResult:
        limit = check_output_limit(output_limit_bytes)
        request = {
            "op": "exec",
            "command": command,
            **where,
            "timeout": timeout_seconds,
            "limit": limit,
            "stream": on_output is not None,
        }
        return await self._run(request, ExecCall(limit), timeout_seconds, on_output)

    async def _run(
        self,
        request: dict[str, object],
        call: ExecCall,
        timeout_seconds: float,
        on_output: OnOutput | None,
        number: int = 0,
    ) -> ExecResult:
        started = time.monotonic()
        overdue = asyncio.get_running_loop().call_later(timeout_seconds + OVERDUE_SECONDS, self._give_up, call)
        try:
            async with self._calling(call, request, number=number) as call_id:
                await self._follow(call_id, call, on_output)
        finally:
            overdue.cancel()
        return call.result(time.monotonic() - started)

    async def read(self, path: str, limit_bytes: int = FILE_LIMIT_BYTES) -> bytes:
        call = ReadCall(limit_bytes)
        async with self._calling(call, {"op": "read", "path": path, "limit": limit_bytes}):
            await self._finish(call)
        return bytes(call.data)

    async def write(self, path: str, data: bytes) -> None:
        if len(data) > FILE_LIMIT_BYTES:
            raise SandboxError(f"{path}: {len(data)} bytes are more than the limit of {FILE_LIMIT_BYTES}")
        await self.upload(path, data)

    async def upload(self, path: str, data: bytes) -> None:
        """`write` without its size limit, for checkpoints."""
        call = DoneCall()
        request = {"op": "write", "path": path, "size": len(data)}
        async with self._calling(call, request, data[: exec_server.CHUNK_BYTES]) as call_id:
            for start in range(exec_server.CHUNK_BYTES, len(data), exec_server.CHUNK_BYTES):
                if call.ended:
                    break
                chunk = data[start : start + exec_server.CHUNK_BYTES]
                await self._send(pack({"op": "data", "id": call_id}, chunk))
            await self._finish(call)

    async def look(self, skip: Sequence[str]) -> Look:
        """At what the next checkpoint would be of, but for the folders `skip`."""
        call = LookCall()
        async with self._calling(call, {"op": "look", "skip": list(skip)}):
            await self._finish(call)
        return call.found

    async def checkpoint(self, base: str, message: str, *, advance: bool = False, unless: str = "") -> Checkpoint:
        return await self._checkpoints.take(base, message, advance=advance, unless=unless)

    async def check_out(self) -> None:
        await self._checkpoints.check_out()

    async def restore(self, checkpoint: Checkpoint) -> None:
        await self._checkpoints.restore(checkpoint)

    async def ignored(self, limit_bytes: int, unless: str = "") -> Ignored:
        return await ignored.pack(self, limit_bytes, unless)

    async def restore_ignored(self, tar: bytes) -> None:
        await ignored.unpack(self, tar)

    def let_go(self) -> None:
        self._lets_go = self._renewal is not None

    async def leave(self) -> bool:
        if self._renewal is None or self._death:
            return False
        self._is_ours, self._cleanup = (lambda: False), self._forget
        await self.stop()
        return True

    @contextlib.asynccontextmanager
    async def or_stopped(self) -> AsyncIterator[None]:
        """Stopped when the block fails or is cancelled."""
        try:
            yield
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self.gate is not None:
            await self.gate.close()
        if self.link is not None and self._is_ours():
            if not self._death:
                self.link.send(pack({"op": "bye", "id": 0}))
            self._die("it was stopped", kill=False)
            await self.link.stop(STOP_SECONDS)
        self._die("it was stopped")
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._cleanup)
        for tell in self._on_stop:
            tell()
        self._on_stop.clear()

    def on_stop(self, tell: Callable[[], None]) -> None:
        """Called when it has been stopped."""
        self._on_stop.append(tell)

    @property
    def death(self) -> str:
        return self._death

    @property
    def is_dead(self) -> bool:
        return bool(self._death)

    # What the link calls.

    def received(self, data: bytes) -> None:
        if self._death:
            return
        try:
            for head, payload in self._frames.feed(data):
                reply = self._replies.decode(head)
                self._deliver(reply, payload)
        except (exec_server.FrameError, msgspec.DecodeError, Violation, UnicodeDecodeError, RecursionError) as error:
            self._die(f"its exec server broke the protocol: {error}")

    def lost(self, reason: str) -> None:
        self._die(reason or "its exec server ended")

    # Calls.

    def _deliver(self, reply: Reply, payload: bytes) -> None:
        if isinstance(reply, Held):
            self._unanswered = 0
            return
        if isinstance(reply, Fenced):
            self._is_ours = lambda: False  # also while the other one has not said so yet
            self._die("another runner has taken it over")
            return
        call = self._calls.get(reply.id)
        if call is None or call.ended:
            raise Violation(f"a frame for no call ({reply.id})")
        call.take(reply, payload)
        call.changed.set()

    @contextlib.asynccontextmanager
    async def _calling(
        self, call: Call, request: dict[str, object], payload: bytes = b"", number: int = 0
    ) -> AsyncIterator[int]:
        """Send `request` under an id of its own, or of the call that goes on; whatever ends the block early ends the
        call inside too."""
        if self._death:
            raise SandboxDied(self._death)
        self._last_id += not number
        call_id = number or self._last_id
        frame = pack({**request, "id": call_id}, payload)
        self._calls[call_id] = call
        try:
            await self._send(frame)
            yield call_id
        except BaseException:
            await self._cancel(call_id, call)
            raise
        finally:
            if call.ended or not self._lets_go:
                del self._calls[call_id]

    async def _send(self, frame: bytes) -> None:
        assert self.link is not None
        self.link.send(frame)
        await self.link.drain()

    async def _change(self, call: Call) -> None:
        """Return when the call has received something; raise when it failed or the sandbox died."""
        await call.changed.wait()
        call.changed.clear()
        if call.failure is not None:
            raise error_of(call.failure)
        if not call.ended and self._death:
            raise SandboxDied(self._death)

    async def _finish(self, call: Call) -> None:
        while not call.ended or call.failure is not None:
            await self._change(call)

    async def _follow(self, call_id: int, call: ExecCall, on_output: OnOutput | None) -> None:
        decoder = TextDecoder()
        while not call.ended or call.failure is not None:
            await self._change(call)
            if on_output is not None:
                await self._show(call_id, call, decoder, on_output)
        if on_output is not None:
            await self._show(call_id, call, decoder, on_output)
        rest = decoder.decode(b"", final=True)
        if on_output is not None and rest:
            await on_output(rest)

    async def _show(self, call_id: int, call: ExecCall, decoder: TextDecoder, on_output: OnOutput) -> None:
        text, count = call.next_preview(decoder)
        if text:
            await on_output(text)
        if count and not call.ended:
            call.acknowledge(count)
            await self._send(pack({"op": "ack", "id": call_id, "bytes": count}))

    async def _cancel(self, call_id: int, call: Call) -> None:
        """Have the server end the call, and wait until all of it has ended."""
        if call.ended or self._death or self._lets_go:
            return
        with anyio.move_on_after(OVERDUE_SECONDS, shield=True):
            await self._send(pack({"op": "cancel", "id": call_id}))
            while not call.ended and not self._death:
                await call.changed.wait()
                call.changed.clear()
        self._give_up(call)

    def _give_up(self, call: Call) -> None:
        if not call.ended and not self._death:
            self._die("its exec server could not end a command in time")

    def _die(self, reason: str, *, kill: bool = True) -> None:
        self._death = self._death or reason
        if self._renewal is not None:
            self._renewal.cancel()
        if self.link is not None and kill:
            if self._is_ours():
                self.link.kill()
            else:
                self.link.leave()
        for call in self._calls.values():
            call.changed.set()


def pack(request: Mapping[str, object], payload: bytes = b"") -> bytes:
    try:
        return exec_server.pack(dict(request), payload)
    except exec_server.FrameError as error:
        raise SandboxError(f"too large a request for the sandbox: {error}") from error


def check_output_limit(output_limit_bytes: int) -> int:
    if not 0 <= output_limit_bytes <= exec_server.OUTPUT_LIMIT_MAX_BYTES:
        raise SandboxError(f"output_limit_bytes must be from 0 to {exec_server.OUTPUT_LIMIT_MAX_BYTES}")
    return output_limit_bytes


def error_of(failure: Failed) -> Exception:
    """The contract's exception for what the server could not do."""
    message = failure.message.replace("\0", "\u2400")
    match failure.reason:
        case "not_found":
            return FileNotFoundError(message)
        case "is_directory":
            return IsADirectoryError(message)
        case "denied":
            return PermissionError(message)
        case _:
            return SandboxError(message)
