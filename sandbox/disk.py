"""Workspaces that cannot outgrow their limit: an ext4 file system each, in a file behind a loop device.

The file has no name, and the device has no user but the sandbox that mounts it (LO_FLAGS_AUTOCLEAR): when that is gone
the kernel frees both. Whoever is killed, at whatever moment, no file, mount or loop device is left.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

from sandbox import loop
from sandbox.client import ExecClient
from sandbox.contract import SandboxError

BLOCK_BYTES = 4096
BYTES_A_FILE = 8192
"""One inode for so many: a million of them in 8 GiB, where npm's packages take some 100,000."""
MAKE_SECONDS = 20.0
FEATURES = "^has_journal,^resize_inode"
"""What is gone with its sandbox needs no journal; without room to grow it is made in 4 ms."""
OPTIONS = "nosuid,nodev,noatime,noinit_itable"
"""As it is mounted. The last: or the kernel would fill the tables of its files with zeros, 256 MiB of them."""
PREPARED = "/run/prepared"
"""Where a workspace's folder is seen that is to be copied onto a disk of the sandbox's own."""
EMPTY = "rmdir lost+found"
"""What a new ext4 file system has."""
FILL = f"cp -a {PREPARED}/. ."
FILL_SECONDS = 300.0


class Disk:
    """A loop device, kept by us until `close`: by then its sandbox has mounted it, or it goes."""

    def __init__(self, device: str, handle: int) -> None:
        self.device = device
        self.handle = handle

    def close(self) -> None:
        if self.handle != -1:
            os.close(self.handle)
            self.handle = -1


def why_none() -> str:
    """Why this process can make no disk, and what would allow it; empty when it can."""
    return why_no_file_system() or why_no_device()


def why_no_file_system() -> str:
    return "" if mkfs() else "mkfs.ext4 is missing: install e2fsprogs"


def why_no_device() -> str:
    if os.access(loop.CONTROL, os.R_OK | os.W_OK):
        return ""
    return f"{loop.CONTROL} is for root and the group `disk`, which is as mighty as the group `docker`"


def mkfs() -> str:
    return shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or ""


def make_disk(folder: Path, size_bytes: int, uid: int) -> Disk:
    """An empty file system of `size_bytes` that belongs to `uid`; what is written to it takes room where `folder` is.
    SandboxError with the reason."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            make_file_system(file.fileno(), size_bytes, uid)
            return Disk(*loop.attach(file.fileno()))
    except (OSError, subprocess.SubprocessError) as error:
        raise none_made(folder, size_bytes, error) from error


def make_disk_file(folder: Path, size_bytes: int, uid: int) -> Path:
    """What `make_disk` would have behind its device, by a name, for our own group too. SandboxError with the reason."""
    path = folder / f"{secrets.token_hex(8)}.disk"
    try:
        with path.open("xb") as file:
            os.fchown(file.fileno(), -1, os.getegid())  # a folder may give its own group to what is made in it
            os.fchmod(file.fileno(), 0o660)
            make_file_system(file.fileno(), size_bytes, uid)
    except (OSError, subprocess.SubprocessError) as error:
        path.unlink(missing_ok=True)
        raise none_made(folder, size_bytes, error) from error
    return path


def none_made(folder: Path, size_bytes: int, error: Exception) -> SandboxError:
    said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
    return SandboxError(f"no disk of {size_bytes} bytes could be made in {folder}: {said}")


def make_file_system(file: int, size_bytes: int, uid: int) -> None:
    os.ftruncate(file, size_bytes // BLOCK_BYTES * BLOCK_BYTES)
    arguments = ["-q", "-F", "-b", str(BLOCK_BYTES), "-i", str(BYTES_A_FILE), "-m", "0", "-O", FEATURES]
    arguments += ["-E", f"lazy_itable_init=1,nodiscard,root_owner={uid}:{uid}"]
    subprocess.run(
        [mkfs(), *arguments, f"/proc/self/fd/{file}"],
        pass_fds=[file],
        check=True,
        timeout=MAKE_SECONDS,
        capture_output=True,
        text=True,
    )


async def fill(sandbox: ExecClient) -> None:
    """Copy the workspace onto the sandbox's disk. SandboxError when that cannot be."""
    copied = await sandbox.exec(FILL, timeout_seconds=FILL_SECONDS)
    if copied.exit_code != 0:
        raise SandboxError(f"the workspace could not be copied into the sandbox: {copied.output[-1000:]}")
