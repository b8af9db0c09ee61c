"""A whole Errand as a child of this process: started, waited for, and gone when the block is left."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from services.cli.failure import Failure
from services.up import Ready

READY_SECONDS = 90.0
STOP_SECONDS = 30.0
"""For `errand up` to stop all services in order; then it is killed, and they die with it."""
GONE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1
OURS = (
    "SERVER",
    "TOKEN",
    "DATA",
    "NATS_URL",
    "NATS_PASSWORD_FILE",
    "CELL",
    "BIND",
    "PORT",
    "PUBLIC_URL",
    "ALLOW_HTTP",
    "HOSTS",
)
"""ERRAND_ settings of another installation, which the child must not see."""


@contextmanager
def running(data: Path, environment: Mapping[str, str]) -> Iterator[Ready]:
    """`errand up` over `data` on a free port. Nothing of it is left afterwards, or Failure."""
    process, log = _start(data, environment)
    pids: dict[str, int] = {}
    try:
        ready = _wait_until_ready(process, log)
        pids = ready.pids
        yield ready
    finally:
        with _undisturbed():
            _stop(process)
            left = _left(pids)
    if left:
        raise Failure(f"These processes are still there: {', '.join(left)}. End them with `kill`.")


def _start(data: Path, environment: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Path]:
    log = data / "up.log"
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "services.cli", "up", "--data", str(data), "--port", "0", "--json"],
            env={name: value for name, value in environment.items() if name.removeprefix("ERRAND_") not in OURS},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            # Ctrl-C reaches us alone; we stop it in order.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    return process, log


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> Ready:
    """Its first line, which it prints when every service takes work."""
    assert process.stdout is not None
    line = b""
    deadline = time.monotonic() + READY_SECONDS
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise Failure(f"Errand did not start within {READY_SECONDS:.0f} s: {log} and {log.parent}/logs say why.")
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            raise Failure(f"Errand did not start: {_reason(line, log)}")
        line += piece
    try:
        return msgspec.json.decode(line, type=Ready)
    except msgspec.DecodeError:
        raise Failure(f"Errand did not start: {_reason(line, log)}") from None


def _reason(said: bytes, log: Path) -> str:
    with suppress(msgspec.DecodeError, KeyError, TypeError):
        return str(msgspec.json.decode(said)["error"])
    lines = log.read_text(errors="replace").strip().splitlines() or said.decode(errors="replace").splitlines()
    return f"{lines[-1] if lines else 'it said nothing'} (all of it is in {log})"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _left(pids: Mapping[str, int]) -> list[str]:
    """Which of the services live on; each gets a moment to die with its parent."""
    left = []
    for name, pid in pids.items():
        with suppress(OSError):
            descriptor = os.pidfd_open(pid)
            try:
                if not select.select([descriptor], [], [], GONE_SECONDS)[0]:
                    left.append(f"{name} ({pid})")
            finally:
                os.close(descriptor)
    return left


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Another Ctrl-C must not leave half of it behind."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
