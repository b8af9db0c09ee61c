"""Which runner holds which sandbox of this machine: files that outlive all of them.

A sandbox with a task is entered here before its lease begins. Its labels say who started it; this says whose it is by
now, and where its next runner finds it.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from sandbox.client import ExecClient
from sandbox.contract import SandboxError, SandboxSpec
from sandbox.egress.outside import Outside
from sandbox.folders import own
from sandbox.owners import Owners
from sandbox.removal import discard_tree

ENDS = "ERRAND_SANDBOX_LEASE_SECONDS is 0: what a task runs ends with its runner, a later one cannot take it over."
GRACE_SECONDS = 10.0
"""A sandbox that is left ends by its own lease; so long after that it is ended from outside."""
Births = tuple[tuple[int, int], ...]
ENTRY, DOOR, GATE = "entry.json", "door", "gate"
KNOCK_SECONDS = 1.0


class Entry(Struct, frozen=True, kw_only=True):
    """One sandbox."""

    key: str
    driver: str
    task: str
    attempt: int
    runner: str
    births: Births = ()
    """Bubblewrap: its processes, each a pid and when it was started."""
    container: str = ""
    """Docker: by what the engine knows it."""
    image: str = ""
    """What it started from, as `SandboxSpec.image`."""


class Register:
    """Of one installation, kept by one of its runners."""

    def __init__(self, owners: Owners, driver: str, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self.owners = owners
        self._folder = owners.folder / "held"
        self._driver = driver
        self.held: set[str] = set()
        """Keys of the sandboxes that we have made, are making or have taken over."""
        self._left: dict[str, float] = {}
        """When a sandbox was first seen without a living runner, by its key."""

    @property
    def keeps(self) -> bool:
        """Whether a sandbox outlives its runner at all."""
        return self.lease_seconds > 0

    def client(self, spec: SandboxSpec, key: str, *, is_taken_over: bool = False) -> ExecClient:
        """Of a sandbox that is being made or taken over. OSError when it cannot be entered."""
        self.held.add(key)
        client = ExecClient(spec.environment, key=key, is_taken_over=is_taken_over)
        self.assign(client, spec)
        if not is_taken_over:
            try:
                self._enter(key, spec)
            except OSError:
                self.release(key, spec.attempt)
                raise
        return client

    def make_gate(self, key: str, uid: int) -> Path:
        """The folder that the sandbox sees too, where it lends its way out to its runners."""
        folder = self.place(key) / GATE
        folder.mkdir(mode=0o700)
        own(folder, uid)
        return folder

    def assign(self, client: ExecClient, spec: SandboxSpec) -> None:
        """Make it that of `spec`."""
        key, attempt = client.key, spec.attempt
        client.belong(
            cleanup=lambda: self.release(key, attempt),
            is_ours=lambda: self.is_ours(key, attempt),
            forget=lambda: self.held.discard(key),
        )

    def hold(self, client: ExecClient, spec: SandboxSpec, *, births: Births = (), container: str = "") -> None:
        """Ours from now on, until its lease ends."""
        if self.keeps and spec.attempt:
            self.owners.hold()
            self._enter(client.key, spec, births, container)
            client.hold(spec.attempt, self.lease_seconds)

    def place(self, key: str) -> Path:
        """The folder of a sandbox's own, for its runners' eyes only."""
        place = self._folder / key
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        return place

    def _enter(self, key: str, spec: SandboxSpec, births: Births = (), container: str = "") -> None:
        """Also over what was said before, at once."""
        before = self.find(key)  # who takes it over does not know what it started from
        entry = Entry(
            key=key,
            driver=self._driver,
            task=spec.task,
            attempt=spec.attempt,
            runner=self.owners.runner,
            births=births,
            container=container,
            image=spec.image or (before.image if before else ""),
        )
        place = self.place(key)
        new = place / f"{ENTRY}.{secrets.token_hex(4)}"
        new.write_bytes(msgspec.json.encode(entry))
        new.rename(place / ENTRY)

    def find(self, key: str) -> Entry | None:
        try:
            return msgspec.json.decode((self._folder / key / ENTRY).read_bytes(), type=Entry)
        except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
            return None

    def is_ours(self, key: str, attempt: int) -> bool:
        """Whether no other runner has taken it over."""
        entry = self.find(key)
        return entry is None or (entry.runner, entry.attempt) == (self.owners.runner, attempt)

    def left_by(self, task: str, attempt: int) -> Entry | None:
        """What that attempt has entered."""
        return next((entry for entry in self.all() if (entry.task, entry.attempt) == (task, attempt)), None)

    def older(self, task: str, attempt: int) -> list[Entry]:
        """What earlier attempts of the task have left: a new one that starts afresh supersedes it."""
        return [entry for entry in self.all() if entry.task == task and entry.attempt < attempt]

    def all(self) -> Iterator[Entry]:
        if self._folder.is_dir():
            for place in sorted(self._folder.iterdir()):
                entry = self.find(place.name)
                if entry is not None and entry.driver == self._driver:
                    yield entry

    def uses(self, image: str) -> bool:
        """Whether a sandbox that started from it may live, whoever holds it."""
        return any(entry.image == image for entry in self.all())

    def release(self, key: str, attempt: int) -> None:
        """Ours has stopped, or could not be had, or is another attempt's by now."""
        entry = self.find(key)
        if entry is None or entry.runner != self.owners.runner or entry.attempt == attempt:
            self.held.discard(key)
        if self.is_ours(key, attempt):
            self.remove(key)

    def remove(self, key: str) -> None:
        discard_tree(self._folder / key)
        self._left.pop(key, None)

    def tidy(self) -> None:
        """Remove what a runner that died left of an entry it was making, and what else the dead left."""
        for place in self._folder.glob("*"):
            if place.name not in self.held and self.find(place.name) is None and seconds_old(place) > GRACE_SECONDS:
                self.remove(place.name)
        self.owners.forget_dead()

    def is_held(self, key: str, runner: str) -> bool:
        """Whether that runner lives and has it."""
        return key in self.held if runner == self.owners.runner else self.owners.is_alive(runner)

    def is_over(self, entry: Entry) -> bool:
        """Whether it has been without a living runner for longer than its lease."""
        if self.is_held(entry.key, entry.runner):
            self._left.pop(entry.key, None)
            return False
        since = self._left.setdefault(entry.key, time.monotonic())
        return time.monotonic() - since > self.lease_seconds + GRACE_SECONDS


async def reopened(client: ExecClient, spec: SandboxSpec, register: Register, outside: Outside) -> ExecClient | None:
    """What was taken over, with its way out where it had one; None when that cannot be had."""
    gate = register.place(client.key) / GATE
    if not spec.egress.allowed or not gate.is_dir():
        return client
    from sandbox.egress.way import open_way

    try:
        async with client.or_stopped():
            await open_way(client, spec, gate, gate.stat().st_uid, outside)
    except SandboxError:
        return None
    return client


def seconds_old(place: Path) -> float:
    try:
        return time.time() - place.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def message(attempt: int, previous: int, lease_seconds: float) -> bytes:
    """What a runner says at a sandbox's door."""
    return msgspec.json.encode({"attempt": attempt, "previous": previous, "lease": lease_seconds})


@contextmanager
def door_in(place: Path) -> Iterator[socket.socket]:
    """A door whose path may be of any length."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening, short(place) as path:
        listening.bind(f"{path}/{DOOR}")
        listening.listen()
        yield listening


def knock(place: Path, said: bytes) -> socket.socket:
    """Hand one end of a new stream in; the other one. OSError when nobody is there."""
    ours, theirs = socket.socketpair()
    try:
        with theirs, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door, short(place) as path:
            door.settimeout(KNOCK_SECONDS)
            door.connect(f"{path}/{DOOR}")
            socket.send_fds(door, [said], [theirs.fileno(), theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    return ours


@contextmanager
def short(folder: Path) -> Iterator[str]:
    """A name of `folder` that fits a socket's address, which has 108 bytes."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
