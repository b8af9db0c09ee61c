"""A file as a lock between the processes of an installation: it is free again however its holder ends."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def taken(lock: Path | None) -> Iterator[bool]:
    """Whether the lock is ours within the block; without a file it is."""
    if lock is None:
        yield True
        return
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
