"""Workspaces: a clone an attempt, borrowing the mirror's objects. Made by us, written by an agent, and so removed with
care."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.to_thread

from protocol.evolve import Task
from protocol.ids import is_token
from protocol.task import OUTCOMES
from sandbox.removal import remove_tree
from services import log
from services.bus import Refused
from services.repos.cache import Mirror
from services.repos.git import Git
from services.repos.layout import quoted, write_ref, write_repository

CHECKOUT_WORKERS = min(4, os.cpu_count() or 1)
CHECKOUTS_LIMIT = 2 * (os.cpu_count() or 1)
"""Workspaces checked out at one time; more would only wait for each other."""
NAME = re.compile(r"([a-z0-9_]+)-([0-9]+)(?:-setup)?")
SETTINGS = "[user]\n\tname = Errand\n\temail = errand@localhost\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n"

KEPT_SECONDS = 3600.0 + 60.0
"""An open task's workspace is kept so long without a runner: a sandbox over it may wait for the next one. The longest
ERRAND_SANDBOX_LEASE_SECONDS is an hour."""

IsWanted = Callable[[str, int], Awaitable[bool]]
"""Whether a task's attempt still has a runner, or its sandbox may be taken over by the next."""


def is_wanted(task: Task, attempt: int, now: datetime) -> bool:
    """See `IsWanted`."""
    if task.holder is not None and task.holder.attempt == attempt:
        return True
    if task.updated_at is None or task.state in OUTCOMES:
        return False
    return (now - task.updated_at).total_seconds() < KEPT_SECONDS


class Workspaces:
    """All workspaces of this host. A folder that is there is complete; one that is given back leaves by a rename and is
    removed later, by `keep_clean`."""

    def __init__(self, folder: Path, unfinished: Path, trash: Path, git: Git) -> None:
        self._folder = folder
        self._unfinished = unfinished
        self._trash = trash
        self._git = git
        self._checkouts = anyio.CapacityLimiter(CHECKOUTS_LIMIT)
        self._discarded = anyio.Event()
        self._log = log.get()
        for needed in (folder, unfinished, trash):
            needed.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def prepare(
        self,
        mirror: Mirror,
        task: str,
        attempt: int,
        commit: str,
        branch: str,
        *,
        checkout: bool = True,
        for_setup: bool = False,
    ) -> Path:
        """The attempt's workspace on `branch` at `commit`, which the mirror has, with or without its files; or the one
        of its set-up. Asked again it is the same, as it is by then.

        A newer attempt fences the older ones of its task: their workspaces go.
        """
        path = self._path(task, attempt, for_setup=for_setup)
        for older, owner, number in self._all():
            if owner == task and number < attempt:
                self._discard(older)
        if path.exists():
            return path
        new = self._unfinished / f"{path.name}-{uuid4().hex}"
        async with self._checkouts:
            await self._make(new, mirror, commit, branch, checkout)
        try:
            new.rename(path)
        except OSError:
            # Asked twice at once: the other one's is as good.
            self._discard(new)
        return path

    def keep(self, task: str, attempt: int, earlier: int) -> Path | None:
        """What was an earlier attempt's workspace is this one's by now; None when it is gone."""
        path = self._path(task, attempt)
        with suppress(FileNotFoundError):
            self._path(task, earlier).rename(path)
        return path if path.exists() else None

    async def _make(self, folder: Path, mirror: Mirror, commit: str, branch: str, checkout: bool) -> None:
        write_repository(
            folder / ".git",
            commit_id=commit,
            head=f"refs/heads/{branch}",
            borrows=[mirror.objects],
            refs={_as_origin(name): target for name, target in mirror.listing.refs.items()},
            shallow=mirror.folder / "shallow",
            settings=SETTINGS + f'[remote "origin"]\n\turl = {quoted(mirror.address.url)}\n',
            bare=False,
        )
        write_ref(folder / ".git", f"refs/heads/{branch}", commit)
        if not checkout:
            return
        # No agent has seen this tree yet, and its configuration is what we wrote.
        await self._git.run(
            *("reset", "--quiet", "--hard"),
            repository=folder / ".git",
            worktree=folder,
            settings={"checkout.workers": str(CHECKOUT_WORKERS)},
        )

    def release(self, task: str, attempt: int, *, for_setup: bool = False) -> None:
        """Give the attempt's workspaces back, or only the one of its set-up; they may be gone already."""
        self._discard(self._path(task, attempt, for_setup=True))
        if not for_setup:
            self._discard(self._path(task, attempt))

    async def sweep(self, is_wanted: IsWanted) -> None:
        """Give back what no attempt wants: its runner died, or let go of it when nobody could hear."""
        for path, task, attempt in list(self._all()):
            if not await is_wanted(task, attempt):
                self._log.info("workspace_swept", task=task, attempt=attempt)
                self._discard(path)

    def discard_unfinished(self) -> None:
        """At the start: what a killed process was making."""
        for path in self._unfinished.iterdir():
            self._discard(path)

    async def keep_clean(self) -> None:
        """Remove what is given back, until cancelled. What resists is tried again each time."""
        while True:
            self._discarded = anyio.Event()
            await self.empty_trash()
            await self._discarded.wait()

    async def empty_trash(self) -> None:
        for path in sorted(self._trash.iterdir()):
            try:
                await anyio.to_thread.run_sync(remove_tree, path)
            except OSError as error:
                self._log.warning("not_removed", path=str(path), error=str(error))

    def _discard(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            path.rename(self._trash / f"{path.name}-{uuid4().hex}")
            self._discarded.set()

    def _path(self, task: str, attempt: int, *, for_setup: bool = False) -> Path:
        if not is_token(task) or attempt < 0:
            raise Refused("That is not a task's id and an attempt's number.")
        return self._folder / f"{task}-{attempt}{'-setup' if for_setup else ''}"

    def _all(self) -> Iterator[tuple[Path, str, int]]:
        for path in list(self._folder.iterdir()):
            if match := NAME.fullmatch(path.name):
                yield path, match[1], int(match[2])


def _as_origin(ref: str) -> str:
    """Branches of the remote are seen as a clone sees them."""
    return "refs/remotes/origin/" + ref.removeprefix("refs/heads/") if ref.startswith("refs/heads/") else ref
