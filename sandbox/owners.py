"""Whose containers these are: the id of an installation, and which of its runners live, as the files of its data folder
say. A runner holds a lock as long as it lives, however it ends."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from sandbox.removal import discard_tree


class Owners:
    """Of one installation, seen by one of its runners."""

    def __init__(self, folder: Path, runner: str) -> None:
        """`folder` is shared by all runners of the installation on this machine."""
        self.runner = runner
        self.folder = folder
        self._locks = folder / "runners"
        self._mine = -1

    @cached_property
    def installation(self) -> str:
        """Made once; the first of several that make it at one time wins."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return random_file(self.folder / "installation")

    def hold(self) -> None:
        """Be alive, until this process ends or `release`."""
        if self._mine != -1:
            return
        self._locks.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Another one of this name has ended: a container's process has the same id each time.
        discard_tree(self.folder / "spares" / self.runner)
        path = self._locks / self.runner
        while True:
            self._mine = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._mine, fcntl.LOCK_EX)
            # Who looked before we had the lock took us for dead and the file away.
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(self._mine)):
                    return
            os.close(self._mine)

    def own_folder(self) -> Path:
        """For what is this runner's alone; `forget_dead` of another one removes it."""
        folder = self.folder / "spares" / self.runner
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def forget_dead(self) -> None:
        """Remove what runners that have ended left: folders, and locks that nobody holds."""
        for lock in self._locks.glob("*"):
            self.is_alive(lock.name)
        for folder in (self.folder / "spares").glob("*"):
            if folder.name != self.runner and not self.is_alive(folder.name):
                discard_tree(folder)

    def release(self) -> None:
        if self._mine != -1:
            discard_tree(self.folder / "spares" / self.runner)
            (self._locks / self.runner).unlink(missing_ok=True)
            os.close(self._mine)
            self._mine = -1

    def is_alive(self, runner: str) -> bool:
        """Whether that runner, which may be this one, lives. What is left of one that does not is forgotten."""
        lock = self._locks / runner
        if lock.parent != self._locks:
            return False  # no name of ours
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lock.unlink(missing_ok=True)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def random_file(path: Path) -> str:
    """What the file holds: random, made once; the first of several that make it at one time wins."""
    if not path.exists():
        new = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        new.touch(mode=0o600)
        new.write_text(secrets.token_hex(16))
        with suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    return path.read_text().strip()
