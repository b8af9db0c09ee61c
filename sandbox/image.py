"""The image of the Docker sandbox: built once on each machine from the Dockerfile beside this file, or somebody's own.

`python -m sandbox.image` makes it ahead of time and shows what the build says; `--base` names what it is built from, in
place of the image whose digest the Dockerfile has.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

from sandbox.config import DOCKER_HOST
from sandbox.contract import SandboxUnavailable
from sandbox.engine import Engine, EngineError
from sandbox.lock import taken

DOCKERFILE = Path(__file__).with_name("Dockerfile")
OWN = "errand-sandbox"
WAIT_SECONDS = 1.0


class Image:
    """The image that sandboxes are started from."""

    def __init__(self, engine: Engine, name: str = "", lock: Path | None = None, base: str = "") -> None:
        """`name` is somebody's own image, fetched when it is missing; without one it is ours, and its tag says from
        which Dockerfile it was built, on `base` where that is given. `lock` is a file: one process at a time makes the
        image, and others see it."""
        self.name = name or own_name()
        self._is_ours = not name
        self._arguments = {"BASE_IMAGE": base} if base else {}
        self._engine = engine
        self._lock = lock

    async def id(self) -> str:
        """The digest of what has this name now; empty when nothing has."""
        found = await self._engine.image(self.name)
        return found["Id"] if found else ""

    async def is_there(self) -> bool:
        return bool(await self.id())

    def is_being_made(self) -> bool:
        """By whichever process of this installation."""
        with taken(self._lock) as mine:
            return not mine

    async def make(self) -> AsyncIterator[str]:
        """Build or fetch it, unless it is there; yields what the engine says. SandboxUnavailable when it fails."""
        with taken(self._lock) as mine:
            while not mine and self.is_being_made():
                await anyio.sleep(WAIT_SECONDS)
            last = ""
            try:
                if await self.is_there():
                    return
                async for line in self._steps():
                    last = line or last
                    yield line
            except EngineError as error:
                raise SandboxUnavailable(
                    f"The Docker sandbox's image {self.name} could not be made: {error} ({last[-300:]}). "
                    "`python -m sandbox.image` shows all of it"
                ) from error

    def _steps(self) -> AsyncIterator[str]:
        if not self._is_ours:
            return self._engine.pull(self.name)
        return self._engine.build(self.name, context(), arguments=self._arguments)


def own_name() -> str:
    return f"{OWN}:{hashlib.sha256(DOCKERFILE.read_bytes()).hexdigest()[:12]}"


def context() -> bytes:
    """A tar with nothing but the Dockerfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(DOCKERFILE, arcname="Dockerfile")
    return buffer.getvalue()


async def main(base: str) -> int:
    engine = Engine(os.environ.get("DOCKER_HOST") or DOCKER_HOST)
    image = Image(engine, os.environ.get("ERRAND_SANDBOX_IMAGE", ""), base=base)
    try:
        async for line in image.make():
            print(line, flush=True)
    except SandboxUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        await engine.close()
    print(f"{image.name} is ready.")
    return 0


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m sandbox.image", description="Make the Docker sandbox's image.")
    options.add_argument("--base", default="", help="build it from this image, not from the one of the Dockerfile")
    sys.exit(anyio.run(main, options.parse_args().base))
