"""Whose a sandbox's folders are. Root gives each task a uid of its own, which is nobody's on this machine."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox.contract import SandboxError, SandboxSpec, SandboxUnavailable

TASK_UIDS = range(1_500_000, 2_000_000)
"""Above what distributions give to people and below 2,097,151, the largest uid that fits the old tar format."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_root() -> bool:
    return os.geteuid() == 0


def task_uid(task: str) -> int:
    """This task's own, so that its files are too, and what the kernel counts by uid."""
    return TASK_UIDS[zlib.crc32(task.encode()) % len(TASK_UIDS)]


def people(uid: int) -> dict[str, str]:
    """Files of /etc that say who is inside, by their name."""
    return {
        "passwd": (
            "root:x:0:0:root:/nonexistent:/bin/false\n"
            f"errand:x:{uid}:{uid}:Errand:/tmp/home:/bin/bash\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
        ),
        "group": f"root:x:0:\nerrand:x:{uid}:\nnogroup:x:65534:\n",
    }


def check_folders(spec: SandboxSpec, uid: int) -> None:
    """SandboxError when a folder is missing, or when root's own folder could not be read by the task's uid."""
    for folder in (spec.workspace, *spec.readonly_paths):
        if not folder.is_absolute() or not folder.is_dir():
            raise SandboxError(f"{folder} is not an absolute path of a folder")
    for folder in spec.readonly_paths:
        if folder.is_relative_to("/workspace"):
            raise SandboxError(f"{folder} is hidden in the sandbox by its own /workspace: keep Errand's data elsewhere")
        status = folder.stat()
        if is_root() and status.st_uid != uid and not status.st_mode & stat.S_IXOTH:
            raise SandboxError(f"{folder} cannot be read by the sandbox: chmod o+rX it")


@contextmanager
def usable() -> Iterator[None]:
    """SandboxUnavailable for a folder of ours that cannot be used: its disk is full, it is somebody else's."""
    try:
        yield
    except OSError as error:
        raise SandboxUnavailable(f"{error.filename or 'a folder'} cannot be used: {error.strerror or error}") from error


def own(folder: Path, uid: int) -> None:
    """Make this one folder that uid's; without root it is ours, and so is the uid."""
    if is_root():
        os.chown(folder, uid, uid)


def give(workspace: Path, uid: int) -> None:
    """Make the whole tree the task's, once. A file with several hard links stays: another may be in a mirror.

    One descriptor is open at a time, whatever the tree's depth: a repository's may be larger than what a process, with
    all its tasks, can open. Nobody else writes there.
    """
    if workspace.stat().st_uid == uid:
        return
    folder = os.open(workspace, FOLDER)
    try:
        waiting = [give_files(folder, uid)]
        while waiting:
            if waiting[-1]:
                folder = instead_of(folder, waiting[-1].pop())
                waiting.append(give_files(folder, uid))
            else:
                # The workspace itself comes last: by it the tree is known to be given.
                os.fchown(folder, uid, uid)
                folder = instead_of(folder, "..")
                waiting.pop()
    finally:
        os.close(folder)


def give_files(folder: int, uid: int) -> list[str]:
    """Those in this one folder; the names of the folders in it."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif entry.stat(follow_symlinks=False).st_nlink == 1:
                os.chown(entry.name, uid, uid, dir_fd=folder, follow_symlinks=False)
    return folders


def instead_of(folder: int, name: str) -> int:
    """The descriptor of what is there by that name, in place of its own."""
    other = os.open(name, FOLDER, dir_fd=folder)
    os.close(folder)
    return other
