"""Removing a folder that a stranger wrote: an agent, a set-up. The one way to do it, also for the repos service; what
the standard library has recurses as deep as the tree is."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count
from pathlib import Path


def remove_tree(root: Path) -> None:
    """Remove `root`, a folder, and all in it; OSError when something resists.

    No link is followed, folders that forbid their own removal are opened first, and a depth that would exhaust the
    stack, the descriptors or a path's length costs nothing: each folder met is moved beside `root` and emptied there.
    """
    numbers = count()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        descriptor = _open_forced(folder, None)
        try:
            with os.scandir(descriptor) as entries:
                for entry in list(entries):
                    if not entry.is_dir(follow_symlinks=False):
                        os.unlink(entry.name, dir_fd=descriptor)
                        continue
                    # A folder can be moved only by who may write to it.
                    os.close(_open_forced(entry.name, descriptor))
                    beside = root.with_name(f"{root.name}.{next(numbers)}")
                    os.rename(entry.name, beside, src_dir_fd=descriptor)
                    waiting.append(beside)
        finally:
            os.close(descriptor)
        folder.rmdir()


def discard_tree(root: Path) -> None:
    """`remove_tree` of what may be gone by now; what resists is left to who looks next."""
    with suppress(OSError):
        remove_tree(root)


def _open_forced(name: str | Path, parent: int | None) -> int:
    """A descriptor of a folder, not of what a link of that name points to, after giving ourselves every right to it."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    try:
        itself = Path(f"/proc/self/fd/{handle}")
        itself.chmod(0o700)
        return os.open(itself, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)
