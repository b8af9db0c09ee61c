"""Workspaces that cannot outgrow their limit: an ext4 file system each, in a file behind a loop device.

The file has no name, and the device has no user but the sandbox that mounts it (LO_FLAGS_AUTOCLEAR): when that is gone
the kernel frees both. Whoever is killed, at whatever moment, no file, mount or loop device is left.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

from sandbox.contract import SandboxError

CONTROL = Path("/dev/loop-control")
GET_FREE, CONFIGURE = 0x4C82, 0x4C0A
"""LOOP_CTL_GET_FREE and LOOP_CONFIGURE (Linux 5.8) of linux/loop.h."""
AUTOCLEAR = 4
NAME = b"errand"
TRIES = 20
"""Another program may take the device that was free."""
BLOCK_BYTES = 4096
BYTES_A_FILE = 8192
"""One inode for so many: a million of them in 8 GiB, where npm's packages take some 100,000."""
MAKE_SECONDS = 20.0
FEATURES = "^has_journal,^resize_inode"
"""What is gone with its sandbox needs no journal; without room to grow it is made in 4 ms."""
OPTIONS = "nosuid,nodev,noatime,noinit_itable"
"""As it is mounted. The last: or the kernel would fill the tables of its files with zeros, 256 MiB of them."""


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
    if not mkfs():
        return "mkfs.ext4 is missing: install e2fsprogs"
    if not os.access(CONTROL, os.R_OK | os.W_OK):
        return f"{CONTROL} is for root and the group `disk`, which is as mighty as the group `docker`"
    return ""


def mkfs() -> str:
    return shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or ""


def make_disk(folder: Path, size_bytes: int, uid: int) -> Disk:
    """An empty file system of `size_bytes` that belongs to `uid`; what is written to it takes room where `folder` is.
    SandboxError with the reason."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.ftruncate(file.fileno(), size_bytes // BLOCK_BYTES * BLOCK_BYTES)
            make_file_system(file.fileno(), uid)
            return attach(file.fileno())
    except (OSError, subprocess.SubprocessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise SandboxError(f"no disk of {size_bytes} bytes could be made in {folder}: {said}") from error


def make_file_system(file: int, uid: int) -> None:
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


def attach(file: int) -> Disk:
    """OSError when there is no loop device."""
    with ExitStack() as stack:
        control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
        stack.callback(os.close, control)
        for _ in range(TRIES):
            number = fcntl.ioctl(control, GET_FREE)
            disk = Disk(f"/dev/loop{number}", os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC))
            try:
                fcntl.ioctl(disk.handle, CONFIGURE, configuration(file))
                return disk
            except OSError as error:
                disk.close()
                if error.errno != errno.EBUSY:
                    raise
    raise OSError(errno.EBUSY, "every loop device was taken by somebody else")


def configuration(file: int) -> bytes:
    """A struct loop_config: the file, the block size (the usual one), a loop_info64, eight reserved numbers."""
    # Device, inode, rdevice, offset, size limit; number, encryption and its key's size, flags; name, two of encryption.
    info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, AUTOCLEAR, NAME, b"", b"", 0, 0)
    return struct.pack("=II", file, 0) + info + bytes(64)
