"""What set-ups left, as folders that sandboxes without images see read-only."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import anyio.to_thread

from sandbox.contract import SandboxError, SandboxUnavailable, Setup, SetupWatch
from sandbox.kept import open_up, size_of
from sandbox.register import Register
from sandbox.removal import discard_tree
from sandbox.setup import Ground

OS_RELEASE = Path("/etc/os-release")


class PreparedFolders:
    """The `Store` of the bubblewrap driver: a folder a set-up, by its key, with a lock that its users share. Who takes
    a sandbox over has no lock; the register says what that sandbox uses."""

    def __init__(self, folder: Path, register: Register | None = None) -> None:
        self._folder = folder
        self._register = register
        self._sizes: dict[str, int] = {}
        """Known once: what is kept changes no more."""

    builds_not = "this sandbox (bubblewrap) has the server's programs."

    async def build(self, key: str, dockerfile: Path) -> AsyncIterator[str]:
        raise SandboxError(self.builds_not)
        yield

    async def ground(self, setup: Setup, watch: SetupWatch) -> Ground:
        """The machine's own programs; another release of its system is another ground."""
        if setup.image:
            await watch.notice(f"The repository's image {setup.image} is not used: {self.builds_not}")
        system = OS_RELEASE.read_bytes() if OS_RELEASE.exists() else b""
        return Ground("", hashlib.blake2b(system + platform.machine().encode(), digest_size=16).hexdigest())

    def name(self, key: str) -> str:
        return key

    async def has(self, key: str) -> bool:
        return self.place(key).is_dir()

    async def keep(self, key: str, ground: Ground, folder: Path, repository: str) -> None:
        try:
            await anyio.to_thread.run_sync(self._keep, key, folder)
        except OSError as error:
            raise SandboxError(f"what the set-up left cannot be kept in {self._folder}: {error.strerror}") from error

    async def kept(self) -> Mapping[str, int]:
        """Also takes away what was half kept, or half removed, when its runner was killed."""
        return await anyio.to_thread.run_sync(self._kept)

    async def remove(self, key: str) -> bool:
        return await anyio.to_thread.run_sync(self._remove, key)

    def place(self, key: str) -> Path:
        return self._folder / f"{key}.kept"

    def use(self, key: str) -> Callable[[], None]:
        """Keep it from being removed until what is returned is called, or this process ends. SandboxUnavailable."""
        lock = self._locked(key, fcntl.LOCK_SH)
        if not self.place(key).is_dir():
            os.close(lock)
            raise SandboxUnavailable("what the repository's set-up left is gone, and is made again")
        return partial(os.close, lock)

    def _locked(self, key: str, how: int) -> int:
        """A descriptor that holds the lock. BlockingIOError where that may not wait."""
        path = self._folder / f"{key}.lock"
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, how)
                # Who removed the folder took the file away, too: another one may be the lock by now.
                if os.path.samestat(path.stat(), os.fstat(lock)):
                    return lock
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    def _kept(self) -> Mapping[str, int]:
        found = {path.stem for path in self._folder.glob("*.kept")}
        for path in self._folder.glob("*.left*"):
            with suppress(BlockingIOError):
                os.close(self._locked(path.name.partition(".")[0], fcntl.LOCK_EX | fcntl.LOCK_NB))
                discard_tree(path)
        for key in found - self._sizes.keys():
            with suppress(OSError):  # gone, a moment ago
                self._sizes[key] = size_of(self.place(key))
        return {key: size for key, size in self._sizes.items() if key in found}

    def _keep(self, key: str, folder: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        open_up(folder)
        lock = self._locked(key, fcntl.LOCK_EX)
        new = self._unfinished(key)
        try:
            shutil.move(folder, new)  # the workspaces may be on another file system
            new.rename(self.place(key))
        finally:
            discard_tree(new)
            os.close(lock)

    def _remove(self, key: str) -> bool:
        if self._register is not None and self._register.uses(key):
            return False
        try:
            lock = self._locked(key, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        gone = self._unfinished(key)
        with suppress(FileNotFoundError):
            self.place(key).rename(gone)  # at once: half of a set-up is none
        (self._folder / f"{key}.lock").unlink(missing_ok=True)
        os.close(lock)
        discard_tree(gone)
        return True

    def _unfinished(self, key: str) -> Path:
        return self._folder / f"{key}.{secrets.token_hex(4)}.left"
