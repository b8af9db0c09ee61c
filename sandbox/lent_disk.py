"""A loop device for a runner that may make none: a container of our image makes it, with the right to that alone.

Its only input is a file that the runner has made, its only output the device's name, and nothing of an agent's is ever
in it. It ends with the stream to the runner, whoever ends that stream; the kernel then frees the device unless the
sandbox has mounted it by now (LO_FLAGS_AUTOCLEAR). docs/decisions/0038-a-loop-device-is-lent.md
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from sandbox import loop
from sandbox.container import LINKED, ContainerLink
from sandbox.contract import SandboxError
from sandbox.engine import Engine
from sandbox.limits import MIB

PROGRAM = Path(loop.__file__).read_text()
ANSWER_SECONDS = 30.0
STOP_SECONDS = 5.0
ANSWER_LIMIT_CHARS = 256
DEVICE = re.compile(r"/dev/loop[0-9]+\n")
LOOP_DEVICES = "b 7:* rw"


class LentDisk:
    """A loop device, held for us by a container until `close`: by then its sandbox has mounted it, or it goes."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.device = ""
        self._said = ""
        self._link = ContainerLink(engine, name, self)
        self._why_not = ""
        self._answered = anyio.Event()

    async def borrow(self, config: Mapping[str, Any]) -> None:
        """EngineError; SandboxError with what the container said. Then it has gone."""
        try:
            await self._link.start(config)
            with anyio.fail_after(ANSWER_SECONDS):
                await self._answered.wait()
            # It will be mounted: whatever the image makes of our program, no other disk.
            if not DEVICE.fullmatch(self._said):
                raise SandboxError(f"no loop device was lent: {self._why_not or self._said!r}")
        except BaseException as error:
            await self._link.stop(STOP_SECONDS)
            if isinstance(error, TimeoutError):
                raise SandboxError(f"no loop device was lent within {ANSWER_SECONDS:g} s") from error
            raise
        self.device = self._said.strip()

    def close(self) -> None:
        """The container ends by itself, and the engine removes it."""
        self._link.leave()

    def received(self, data: bytes) -> None:
        """What the container says."""
        self._said = (self._said + data.decode("ascii", "replace"))[:ANSWER_LIMIT_CHARS]
        if self._said.endswith("\n") or len(self._said) == ANSWER_LIMIT_CHARS:
            self._answered.set()

    def lost(self, reason: str) -> None:
        self._why_not = reason
        self._answered.set()


def lender(image: str, file: Path, labels: Mapping[str, str]) -> dict[str, Any]:
    """The body of `POST /containers/create`. `file` as the engine sees it, readable and writable for our group."""
    return {
        "Image": image,
        "Entrypoint": ["python3", "-I", "-S", "-c", PROGRAM],
        "Cmd": [],
        "Env": [],
        # Whose the devices are. Root without capabilities reads no file but root's, so the group is that of the file.
        "User": f"0:{os.getegid()}",
        "WorkingDir": "/",
        "Labels": dict(labels),
        **LINKED,
        "HostConfig": {
            "AutoRemove": True,
            "CapDrop": ["ALL"],
            "CapAdd": ["MKNOD"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "NetworkMode": "none",
            "IpcMode": "none",
            "CgroupnsMode": "private",
            "LogConfig": {"Type": "none"},
            "Memory": 64 * MIB,
            "MemorySwap": 64 * MIB,
            "PidsLimit": 8,
            "Devices": [{"PathOnHost": loop.CONTROL, "PathInContainer": loop.CONTROL, "CgroupPermissions": "rw"}],
            "DeviceCgroupRules": [LOOP_DEVICES],
            "Mounts": [{"Type": "bind", "Source": str(file), "Target": loop.LENT_FILE}],
        },
    }
