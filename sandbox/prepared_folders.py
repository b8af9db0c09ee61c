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
from sandbox.setup import Ground

OS_RELEASE = Path("/etc/os-release")


class PreparedFolders:
    """The `Store` of the bubblewrap driver: a folder a set-up, by its key, with a lock that its users share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

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
        found = self._folder.glob("*.kept") if self._folder.is_dir() else ()
        return {path.stem: await anyio.to_thread.run_sync(size_of, path) for path in found}

    async def remove(self, key: str) -> bool:
        return await anyio.to_thread.run_sync(self._remove, key)

    def place(self, key: str) -> Path:
        return self._folder / f"{key}.kept"

    def use(self, key: str) -> Callable[[], None]:
        """Keep it from being removed until what is returned is called, or this process ends. SandboxUnavailable."""
        lock = os.open(self._lock(key), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if not self.place(key).is_dir():
            os.close(lock)
            raise SandboxUnavailable("what the repository's set-up left is gone, and is made again")
        return partial(os.close, lock)

    def _lock(self, key: str) -> Path:
        return self._folder / f"{key}.lock"

    def _keep(self, key: str, folder: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        open_up(folder)
        new = self._folder / f"{key}.{secrets.token_hex(4)}.new"
        try:
            shutil.move(folder, new)  # the workspaces may be on another file system
            new.rename(self.place(key))
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _remove(self, key: str) -> bool:
        with self._lock(key).open("a") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.place(key), ignore_errors=True)
            self._lock(key).unlink(missing_ok=True)
            return True
        return False
