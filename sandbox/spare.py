"""A started sandbox that waits for its task, and what a driver needs to have some."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread
from msgspec import Struct

from sandbox.client import ExecClient
from sandbox.contract import BorrowWorkspace, Capabilities, SandboxSpec, Setup, SetupWatch
from sandbox.egress.environment import proxied
from sandbox.egress.policy import Egress
from sandbox.folders import TASK_UIDS, is_root, own, usable
from sandbox.removal import discard_tree

SPARE = "spare"
"""Stands for the task of a sandbox that has none yet."""


class Ahead(Struct, frozen=True):
    """With what a sandbox is started before its task is known."""

    readonly_paths: tuple[Path, ...] = ()
    """The mirror of one repository."""
    egress: Egress = Egress()
    image: str = ""
    """What its set-up left."""


def ahead_of(spec: SandboxSpec) -> Ahead:
    return Ahead(spec.readonly_paths, spec.egress, spec.image)


class Spare(Struct, frozen=True, kw_only=True):
    """A started sandbox that nobody has used, over a folder which is empty but for what a set-up left."""

    client: ExecClient
    folder: Path
    uid: int
    made_at: float
    """By the monotonic clock."""
    ground: str = ""
    """The driver's, when it was started."""

    async def remove(self) -> None:
        """With its folder, unless a task has that by now."""
        with anyio.CancelScope(shield=True):
            await self.client.stop()
            await anyio.to_thread.run_sync(discard_tree, self.folder)


class SparingDriver(Protocol):
    """A driver whose sandboxes can be started ahead of their tasks."""

    @property
    def name(self) -> str: ...

    @property
    def copies_workspaces(self) -> bool: ...

    @property
    def ground(self) -> str:
        """What its sandboxes are made of by now, where that can change under a spare that waits: one of another ground
        is of no use."""
        ...

    async def capabilities(self) -> Capabilities: ...

    async def start(self, spec: SandboxSpec) -> ExecClient: ...

    async def reattach(self, spec: SandboxSpec, previous: int) -> ExecClient | None: ...

    async def sweep(self) -> int: ...

    async def prepare(self, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> str: ...

    async def spare(self, ahead: Ahead) -> Spare:
        """A sandbox without a task. SandboxError as `start`."""
        ...

    async def assign(self, spare: Spare, spec: SandboxSpec) -> None:
        """Make the spare, over its workspace by now, the sandbox of `spec`. SandboxError as `start`."""
        ...


async def start_spare(
    parent: Path, ahead: Ahead, start: Callable[[SandboxSpec, int], Awaitable[ExecClient]], ground: str = ""
) -> Spare:
    """Over a new folder below `parent`, as a uid that no task has yet. SandboxError."""
    uid = secrets.choice(TASK_UIDS) if is_root() else os.geteuid()
    with usable():
        folder = Path(tempfile.mkdtemp(dir=parent))
        own(folder, uid)
    try:
        spec = SandboxSpec(
            task=SPARE,
            attempt=0,
            workspace=folder,
            readonly_paths=ahead.readonly_paths,
            egress=ahead.egress,
            image=ahead.image,
        )
        client = await start(spec, uid)
    except BaseException:
        await anyio.to_thread.run_sync(discard_tree, folder)
        raise
    return Spare(client=client, folder=folder, uid=uid, made_at=time.monotonic(), ground=ground)


def hand_over(client: ExecClient, spec: SandboxSpec) -> None:
    """What was started ahead is that of `spec` now."""
    client.environment = dict(spec.environment)
    if client.gate is not None:
        client.environment = {**proxied(), **spec.environment}
        client.gate.tell(spec.on_refused)
