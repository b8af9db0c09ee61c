"""A loop device over a file.

Standard library only, Python 3.9 or later: where a runner may make none, this text runs in a container that lends it
one (`sandbox.lent_disk`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
from contextlib import suppress

CONTROL = "/dev/loop-control"
GET_FREE, CONFIGURE = 0x4C82, 0x4C0A
"""LOOP_CTL_GET_FREE and LOOP_CONFIGURE (Linux 5.8) of linux/loop.h. Neither asks for a capability."""
AUTOCLEAR = 4
"""Who used it last frees it: a mount counts as one that uses it."""
NAME = b"errand"
TRIES = 20
"""Another program may take the device that was free."""
LENT_FILE = "/disk"
"""Where the container that lends sees the file."""


def attach(file: int) -> tuple[str, int]:
    """A device over the open file, and the descriptor that holds it. OSError when there is none."""
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(TRIES):
            device = f"/dev/loop{fcntl.ioctl(control, GET_FREE)}"
            handle = os.open(node(device), os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(handle, CONFIGURE, configuration(file))
                return device, handle
            except OSError as error:
                os.close(handle)
                if error.errno != errno.EBUSY:
                    raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "every loop device was taken by somebody else")


def node(device: str) -> str:
    """Its path; made where nobody else makes it, in the /dev of a container."""
    if not os.path.exists(device):
        with open(f"/sys/block/{os.path.basename(device)}/dev") as numbers, suppress(FileExistsError):
            os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(*map(int, numbers.read().split(":"))))
    return device


def configuration(file: int) -> bytes:
    """A struct loop_config: the file, the block size (the usual one), a loop_info64, eight reserved numbers."""
    # Device, inode, rdevice, offset, size limit; number, encryption and its key's size, flags; name, two of encryption.
    info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, AUTOCLEAR, NAME, b"", b"", 0, 0)
    return struct.pack("=II", file, 0) + info + bytes(64)


def lend() -> None:
    """Say which device it is, and hold it until who borrowed it hangs up."""
    try:
        device, _ = attach(os.open(LENT_FILE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        sys.exit(str(error))
    print(device, flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    lend()
