"""What set-ups left, as images: the ground they ran on and one layer above it, with labels that say whose it is.

The set-up's own container has the same read-only root as every sandbox, so there is nothing of it to commit. The layer
is written into a container that never runs, and its history names no command.
"""

from __future__ import annotations

import io
import secrets
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from sandbox.contract import KEPT, SandboxError, SandboxUnavailable, Setup, SetupWatch
from sandbox.engine import Engine, EngineError
from sandbox.environment import HOME
from sandbox.image import Image
from sandbox.kept import archive, size_of
from sandbox.limits import MIB
from sandbox.owners import Owners
from sandbox.setup import Ground

REPOSITORY = "errand-prepared"
KEPT_IMAGES = f"{REPOSITORY}:"
"""How the names begin of images in which a set-up is kept."""
PREPARED_BY = "errand.prepared-by"
NOT_ALLOWED = "the server's operator can allow it (ERRAND_SANDBOX_DOCKERFILES)."
CONTEXT_LIMIT_BYTES = 16 * MIB
SIZE = "errand.kept-bytes"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where an image does not say."""


class PreparedImages:
    """The `Store` of the Docker driver."""

    def __init__(
        self,
        engine: Engine,
        image: Image,
        owners: Owners,
        hold: Callable[[], AbstractContextManager[dict[str, str]]],
        *,
        builds: str,
    ) -> None:
        """`hold` gives the labels of a container that no sweep removes within its block; `builds` is that of
        `SetupRules.dockerfiles`."""
        self._builds = builds
        self._engine = engine
        self._image = image
        self._owners = owners
        self._hold = hold

    @property
    def _label(self) -> str:
        return f"{PREPARED_BY}={self._owners.installation}"

    @property
    def builds_not(self) -> str:
        return "" if self._builds != "never" else NOT_ALLOWED

    async def build(self, key: str, dockerfile: Path) -> AsyncIterator[str]:
        context = await anyio.to_thread.run_sync(context_of, dockerfile.parent)
        network = "none" if self._builds == "offline" else None
        name, label = self.name(key), dict([self._label.split("=", 1)])
        try:
            async for line in self._engine.build(
                name, context, dockerfile=dockerfile.name, labels=label, network=network
            ):
                yield line
            if (await self._engine.image(name) or {}).get("Config", {}).get("Volumes"):
                await self._engine.remove_image(name)
                raise SandboxError("it makes volumes, which no sandbox has: leave VOLUME out")
        except EngineError as error:
            raise SandboxError(str(error)) from error

    async def ground(self, setup: Setup, watch: SetupWatch) -> Ground:
        """The named image where this engine has it: what its operator has fetched may be used."""
        if setup.image:
            found = await self._engine.image(setup.image)
            why_not = why_no_ground(setup.image, found)
            if found is not None and not why_not:
                return Ground(found["Id"], found["Id"])
            await watch.notice(f"The repository names the image {setup.image}, which {why_not}.")
        found = await self._engine.image(self._image.name)
        if found is None:
            raise SandboxUnavailable(f"the Docker sandbox's image {self._image.name} is gone")
        return Ground("", found["Id"])

    def name(self, key: str) -> str:
        return f"{KEPT_IMAGES}{key}"

    async def has(self, key: str) -> bool:
        return await self._engine.image(self.name(key)) is not None

    async def keep(self, key: str, ground: Ground, folder: Path, repository: str) -> None:
        container = f"{REPOSITORY}-{key[:12]}-{secrets.token_hex(4)}"
        size = await anyio.to_thread.run_sync(size_of, folder)
        changes = [
            f"LABEL {self._label} {SIZE}={size} errand.installation= errand.runner= errand.key=",
            f'ENV PATH="{KEPT}/bin:{HOME}/.local/bin:{await self._path(ground)}"',
        ]
        with self._hold() as labels:
            try:
                # An engine goes on making what nobody waits for any more.
                with anyio.CancelScope(shield=True):
                    await self._engine.create(container, keeper(ground.image or self._image.name, labels))
                await self._engine.add_files(container, "/", archive(folder, KEPT))
                await self._engine.commit(container, REPOSITORY, key, changes)
            except EngineError as error:
                raise SandboxError(f"the Docker Engine cannot keep what the set-up left: {error}") from error
            finally:
                with anyio.CancelScope(shield=True), suppress(EngineError, SandboxUnavailable):
                    await self._engine.remove(container)

    async def kept(self) -> Mapping[str, int]:
        images = await self._engine.images(self._label)
        return {
            tag.partition(":")[2]: int(image["Labels"].get(SIZE, image["Size"]))
            for image in images
            for tag in image.get("RepoTags") or ()
            if tag.startswith(KEPT_IMAGES)
        }

    async def remove(self, key: str) -> bool:
        return await self._engine.remove_image(self.name(key))

    async def _path(self, ground: Ground) -> str:
        image = await self._engine.image(ground.image or self._image.name)
        variables = (image or {}).get("Config", {}).get("Env") or ()
        return next((line.removeprefix("PATH=") for line in variables if line.startswith("PATH=")), PATH)


def why_no_ground(name: str, found: Mapping[str, Any] | None) -> str:
    """Why a repository that names this image gets another one; empty where it may start from it. What other set-ups
    left is other repositories' and users', and an id, or how one begins, could be that of any layer of it."""
    own = "so Errand's own is used"
    if found is None:
        return f"this server does not have, {own}: `docker pull {name}` there allows it"
    if found["Config"].get("Volumes"):
        return f"has volumes, {own}"
    if PREPARED_BY in (found["Config"].get("Labels") or {}):
        return f"is what a set-up left, {own}"
    if found["Id"].removeprefix("sha256:").startswith(name.removeprefix("sha256:")):
        return f"is an id, {own}: give a name"
    return ""


def context_of(folder: Path) -> bytes:
    """As a tar. SandboxError when it is large: it is sent to the engine as one piece."""
    if size_of(folder) > CONTEXT_LIMIT_BYTES:
        raise SandboxError(f"its folder has more than {CONTEXT_LIMIT_BYTES // MIB} MiB")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(folder, arcname=".")
    return buffer.getvalue()


def keeper(image: str, labels: Mapping[str, str]) -> dict[str, object]:
    """A container that is filled, kept and removed, and never started."""
    return {
        "Image": image,
        "Labels": dict(labels),
        "NetworkDisabled": True,
        "HostConfig": {"NetworkMode": "none"},
    }
