"""What one sandbox may use at most; each driver holds what this machine lets it hold, and says what it cannot."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

MIB = 1024**2
GIB = 1024**3
TMPFS = ("/tmp", "/var/tmp", "/dev/shm")
"""The other folders that a sandbox may write to."""


class Limits(Struct, frozen=True, kw_only=True):
    """Of one sandbox."""

    memory_bytes: int = 4 * GIB
    """Of all its processes and its tmpfs together, swap included. Bubblewrap has no such limit."""
    cpus: float = 2.0
    """Processors' worth of time. Bubblewrap has no such limit."""
    processes: int = 1024
    """Processes and threads of the sandbox together."""
    open_files: int = 16_384
    """Descriptors of one process."""
    file_bytes: int = 16 * GIB
    """The largest file a process may write."""
    disk_bytes: int = 8 * GIB
    """Of the workspace, and with it its number of files: one for 8 KiB. 0: none."""
    tmp_bytes: int = 2 * GIB
    """/tmp (the home is in it), /var/tmp and /dev/shm, which live in memory, each."""

    def in_words(self, *, memory: bool, disk: bool, processes: bool) -> str:
        """Those that hold, for the owner."""
        held = {
            f"{size_in_words(self.memory_bytes)} of memory and swap": memory,
            f"{self.cpus:g} processors": memory,
            f"{self.processes:,} processes": processes,
            f"{size_in_words(self.disk_bytes)} of disk": disk,
            f"{size_in_words(self.tmp_bytes)} each of {', '.join(TMPFS)}": True,
            f"{self.open_files:,} open files and files of {size_in_words(self.file_bytes)} a process": True,
        }
        return "; ".join(words for words, holds in held.items() if holds)


def size_in_words(size: int) -> str:
    """By whole MiB below a GiB, and never as a power of ten."""
    if size < GIB:
        return f"{size // MIB} MiB"
    return f"{size / GIB:,.2f}".rstrip("0").rstrip(".") + " GiB"


class SetupRules(Struct, frozen=True, kw_only=True):
    """How long set-ups take, and how much of them stays."""

    seconds: float = 900.0
    keep_bytes: int = 4096 * MIB
    """Of one, and with it the number of its files: one for 8 KiB."""
    count: int = 10
    all_bytes: int = 20_480 * MIB
    idle_seconds: float = 30 * 86400.0
    dockerfiles: Literal["never", "offline", "network"] = "never"
    """Whether an engine builds those of repositories."""
