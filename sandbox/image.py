"""The image of the Docker sandbox: built once on each machine from the Dockerfile beside this file, or somebody's own.

`python -m sandbox.image` makes it ahead of time and shows what the build says; `--base` names what it is built from, in
place of the image whose digest the Dockerfile has.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import re
import sys
import tarfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio

from sandbox.config import DOCKER_HOST
from sandbox.contract import SandboxUnavailable
from sandbox.engine import Engine, EngineError
from sandbox.lock import taken

DOCKERFILE = Path(__file__).with_name("Dockerfile")
OWN = "errand-sandbox"
BASE = "errand.base"
"""The label of ours that says what it was built on, as that was named."""
WAIT_SECONDS = 1.0
ANOTHER_BASE = "; where its base cannot be fetched, `--base NAME` gives it another"


class Image:
    """The image that sandboxes are started from."""

    def __init__(self, engine: Engine, name: str = "", lock: Path | None = None, base: str = "") -> None:
        """`name` is somebody's own image, fetched when it is missing; without one it is ours, and its tag says from
        which Dockerfile it was built, on `base` where that is given. `lock` is a file: one process at a time makes the
        image, and others see it."""
        self.name = name or own_name()
        self._is_ours = not name
        self._base = base
        self._engine = engine
        self._lock = lock

    async def id(self) -> str:
        """The digest of what has this name now; empty when nothing has."""
        return (await self.id_and_base())[0]

    async def id_and_base(self) -> tuple[str, str]:
        """What it was built on is empty where it does not say."""
        found = await self._engine.image(self.name)
        return (found["Id"], base_of(found)) if found else ("", "")

    async def is_there(self) -> bool:
        """Built on the base that was asked for, where one was."""
        image, base = await self.id_and_base()
        return bool(image) and self._base in ("", base)

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
                    f"`python -m sandbox.image` shows all of it{ANOTHER_BASE if self._is_ours else ''}"
                ) from error

    def _steps(self) -> AsyncIterator[str]:
        if not self._is_ours:
            return self._engine.pull(self.name)
        arguments = {"BASE_IMAGE": self._base} if self._base else {}
        labels = {BASE: self._base or own_base()}
        return self._engine.build(self.name, context(), arguments=arguments, labels=labels)


def own_name() -> str:
    return f"{OWN}:{hashlib.sha256(DOCKERFILE.read_bytes()).hexdigest()[:12]}"


def own_base() -> str:
    """The base that the Dockerfile names."""
    found = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    return found[1] if found else ""


def base_of(found: Mapping[str, Any]) -> str:
    """Of what the engine tells of an image."""
    return str((found["Config"].get("Labels") or {}).get(BASE, ""))


def on_its_base(base: str) -> str:
    """For a sentence about the image."""
    return f", built on {base}" if base else ""


def context() -> bytes:
    """A tar with nothing but the Dockerfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(DOCKERFILE, arcname="Dockerfile")
    return buffer.getvalue()


async def main(base: str) -> int:
    name = os.environ.get("ERRAND_SANDBOX_IMAGE", "")
    if name and base:
        print(f"--base is for the image that Errand builds, and ERRAND_SANDBOX_IMAGE names {name}", file=sys.stderr)
        return 2
    engine = Engine(os.environ.get("DOCKER_HOST") or DOCKER_HOST)
    image = Image(engine, name, base=base)
    try:
        async for line in image.make():
            print(line, flush=True)
        found = await image.id_and_base()
    except SandboxUnavailable as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        await engine.close()
    print(f"{image.name} is ready{on_its_base(found[1])}.")
    return 0


if __name__ == "__main__":
    options = argparse.ArgumentParser(prog="python -m sandbox.image", description="Make the Docker sandbox's image.")
    options.add_argument("--base", default="", help="build it from this image, not from the one of the Dockerfile")
    sys.exit(anyio.run(main, options.parse_args().base))
