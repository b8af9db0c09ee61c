"""Started sandboxes at hand, so that the next task of a repository waits for none.

A spare has the repository's mirror mounted and an empty folder as its workspace. It has run nothing: whose task comes
next does not matter, and no sandbox is ever used twice. A task's workspace gets into it by renames: what lies in the
prepared folder moves into the spare's, which then takes the prepared folder's place and name; a mount follows its
folder.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

import anyio
import anyio.to_thread

from sandbox.client import ExecClient
from sandbox.contract import (
    BorrowWorkspace,
    Capabilities,
    SandboxDied,
    SandboxError,
    SandboxSpec,
    Setup,
    SetupWatch,
)
from sandbox.folders import check_folders, give, is_root
from sandbox.removal import discard_tree
from sandbox.spare import Ahead, Spare, SparingDriver, ahead_of

LOOK_SECONDS = 10.0
ANSWER_SECONDS = 1.0


D = TypeVar("D", bound=SparingDriver, covariant=True)


class Warm(Generic[D]):
    """A driver with spares: at most `limit` of them, one a repository, those of the last ones worked on, each for
    `idle_seconds`."""

    def __init__(self, driver: D, limit: int, idle_seconds: float) -> None:
        self.name = driver.name
        self.driver = driver
        self._limit = limit
        self.idle_seconds = idle_seconds
        self.spares: OrderedDict[Ahead, Spare] = OrderedDict()
        """The oldest first."""
        self._wanted: OrderedDict[Ahead, None] = OrderedDict()
        self._changed = anyio.Event()

    @property
    def copies_workspaces(self) -> bool:
        return self.driver.copies_workspaces

    async def capabilities(self) -> Capabilities:
        return await self.driver.capabilities()

    async def prepare(self, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> str:
        """As the driver's own."""
        return await self.driver.prepare(setup, borrow, watch)

    async def start(self, spec: SandboxSpec) -> ExecClient:
        """As the driver's own."""
        sandbox = await self._from_spare(spec) or await self.driver.start(spec)
        sandbox.on_stop(lambda: self._want(ahead_of(spec)))
        return sandbox

    async def reattach(self, spec: SandboxSpec, previous: int) -> ExecClient | None:
        """As the driver's own."""
        return await self.driver.reattach(spec, previous)

    async def sweep(self) -> int:
        return await self.driver.sweep()

    async def keep(self) -> None:
        """Make the spares that are wanted, remove those that nobody came for; until cancelled: then there is none."""
        try:
            while True:
                self._changed = anyio.Event()
                await self.remove_old()
                await self._make_wanted()
                with anyio.move_on_after(LOOK_SECONDS):
                    await self._changed.wait()
        finally:
            self.rest()
            with anyio.CancelScope(shield=True):
                while self.spares:
                    await self.spares.popitem()[1].remove()

    def rest(self) -> None:
        """Make no more."""
        self._limit = 0
        self._wanted.clear()

    def _want(self, ahead: Ahead) -> None:
        """A task of this repository has ended: its next one is likely."""
        if self._limit > 0:
            self._wanted[ahead] = None
            self._changed.set()

    async def _make_wanted(self) -> None:
        while self._wanted:
            ahead, _ = self._wanted.popitem(last=False)
            if ahead in self.spares:
                self.spares.move_to_end(ahead)
                continue
            with suppress(SandboxError):  # it would only have been faster
                self.spares[ahead] = await self.driver.spare(ahead)
            while len(self.spares) > self._limit:
                await self.spares.popitem(last=False)[1].remove()

    async def remove_old(self) -> None:
        oldest = time.monotonic() - self.idle_seconds
        for ahead, spare in list(self.spares.items()):
            if spare.made_at < oldest or spare.client.is_dead or spare.ground != self.driver.ground:
                del self.spares[ahead]
                await spare.remove()

    async def _from_spare(self, spec: SandboxSpec) -> ExecClient | None:
        """None when there is none that fits, or when the workspace cannot be moved into it."""
        spare = self.spares.pop(ahead_of(spec), None)
        if spare is None:
            return None
        if spare.ground != self.driver.ground:
            await spare.remove()
            return None
        try:
            check_folders(spec, spare.uid)
            with anyio.fail_after(ANSWER_SECONDS):
                await spare.client.processes()  # it may have died a moment ago
            await anyio.to_thread.run_sync(take_place, spare, spec.workspace)
            await self.driver.assign(spare, spec)
        except (OSError, SandboxDied):
            await spare.remove()
            return None
        except BaseException:
            await spare.remove()
            raise
        return spare.client


def take_place(spare: Spare, workspace: Path) -> None:
    """Give the spare what lies in `workspace`, and this path. OSError when that cannot be; then all is as before."""
    if is_root():
        give(workspace, spare.uid)
    spare.folder.chmod(workspace.stat().st_mode & 0o777)
    # Of folders that both have the task's stay empty where they were.
    emptied = spare.folder.with_name(f"{spare.folder.name}.emptied")
    moved: list[tuple[Path, Path]] = []
    try:
        for source, target in chain(moves(workspace, spare.folder), [(workspace, emptied), (spare.folder, workspace)]):
            source.rename(target)
            moved.append((source, target))
    except OSError:
        for source, target in reversed(moved):
            target.rename(source)
        raise
    discard_tree(emptied)


def moves(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """What to rename so that all of `source` is in `target`, where a set-up's files may be already. FileExistsError
    where both have a file: a sandbox that is started for the task knows what to do."""
    with os.scandir(source) as found:
        entries = list(found)
    for entry in entries:
        place = target / entry.name
        if not os.path.lexists(place):
            yield Path(entry.path), place
        elif entry.is_dir(follow_symlinks=False) and stat.S_ISDIR(place.lstat().st_mode):
            yield from moves(Path(entry.path), place)
        else:
            raise FileExistsError(errno.EEXIST, "both have it", str(place))
