"""Keeps the processes of one machine going: starts them, starts again what died, stops all."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import anyio.abc
from msgspec import Struct

FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 5.0
STEADY_SECONDS = 30.0
"""A process that lived so long starts again at once when it dies; one that dies sooner waits ever longer."""
STOP_SECONDS = 15.0
LOG_LIMIT_BYTES = 20 * 1024 * 1024
"""A log larger than this is put aside, once, when its process starts."""
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Program(Struct, frozen=True, kw_only=True):
    """One process to keep going."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path


class Supervisor:
    """Runs programs until `stop`; the order of `start` is the order of dependence, and `stop` goes backwards."""

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._kept: list[_Kept] = []
        self.deaths: dict[str, int] = {}
        """How often each program died by itself."""

    def start(self, program: Program) -> None:
        kept = _Kept(program)
        self._kept.append(kept)
        self._group.start_soon(self._keep, kept)

    def pids(self) -> dict[str, int]:
        """Of the processes that run."""
        return {kept.program.name: kept.process.pid for kept in self._kept if kept.process is not None}

    def said(self, name: str) -> list[str]:
        """What a program has logged since `start`: each line once, however often it died of the same."""
        return [line for kept in self._kept if kept.program.name == name for line in dict.fromkeys(kept.lines())]

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Return when every process has ended, told by the signal of that number: first those that were started
        last."""
        for kept in reversed(self._kept):
            kept.stopping = True
            if kept.process is not None:
                kept.process.send_signal(number)
            with anyio.move_on_after(STOP_SECONDS):
                await kept.ended.wait()
                continue
            if kept.process is not None:
                kept.process.kill()
            await kept.ended.wait()

    async def _keep(self, kept: _Kept) -> None:
        wait = FIRST_WAIT_SECONDS
        while not kept.stopping:
            began = anyio.current_time()
            await self._run(kept)
            if kept.stopping:
                break
            self.deaths[kept.program.name] = self.deaths.get(kept.program.name, 0) + 1
            wait = FIRST_WAIT_SECONDS if anyio.current_time() - began > STEADY_SECONDS else wait
            await anyio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
        kept.ended.set()

    async def _run(self, kept: _Kept) -> None:
        program = kept.program
        _put_aside(program.log)
        with program.log.open("ab") as log:
            kept.process = await asyncio.create_subprocess_exec(
                *program.command,
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops all in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        if kept.stopping:
            kept.process.terminate()  # `stop` came while it was being started
        await kept.process.wait()
        kept.process = None


class _Kept:
    def __init__(self, program: Program) -> None:
        self.program = program
        self._log_start = _size(program.log)
        self.process: asyncio.subprocess.Process | None = None
        self.stopping = False
        self.ended = anyio.Event()

    def lines(self) -> list[str]:
        """Of the log, without those of earlier starts."""
        size = _size(self.program.log)
        if not size:
            return []
        with self.program.log.open("rb") as log:
            log.seek(self._log_start if self._log_start <= size else 0)  # else: it was put aside since
            return log.read().decode(errors="replace").splitlines()


def _die_with_parent() -> None:
    """In the child: when the supervisor is killed, nobody would stop us."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _put_aside(log: Path) -> None:
    if _size(log) > LOG_LIMIT_BYTES:
        log.replace(log.with_suffix(".log.1"))
