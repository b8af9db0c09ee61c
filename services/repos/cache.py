"""The mirror cache of a runner's host: a bare copy of each repository, brought up to date at most once a window, read
from memory.

A mirror holds what its remote has and nothing else, and never loses an object: workspaces borrow them. It has no
credential of its own; each fetch is lent one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import TypeVar

import anyio
import anyio.abc
from msgspec import Struct

from protocol.repo import SetupFound
from services import log
from services.bus import Refused, Unavailable
from services.repos.address import Address
from services.repos.git import Git, GitFailed, Remote
from services.repos.layout import replace_file, write_repository
from services.repos.setup import find_setup

LISTING_SECONDS = 30.0
ANSWER_SECONDS = 240.0
"""How long who asks waits for a fetch; the fetch itself goes on."""
REFRESHES_LIMIT = 8
"""Mirrors fetched at one time."""
RESOLVED_LIMIT = 200
"""Commits and their instructions that a mirror remembers."""
INSTRUCTIONS_FILES = ("AGENTS.md", "CLAUDE.md")
INSTRUCTIONS_LIMIT_BYTES = 32 * 1024
COMMIT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
COMMIT_PREFIX = re.compile(r"[0-9a-f]{4,64}")
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

T = TypeVar("T")
Lend = Callable[[Address], AbstractAsyncContextManager[Remote]]
"""Gives the remote at an address with what opens it, for as long as its block lasts."""


class Listing(Struct, frozen=True):
    """What a repository has: its default branch (a ref, empty when there is none) and its branches and tags by ref."""

    head: str
    refs: Mapping[str, str]


class Base(Struct, frozen=True):
    """A commit to start from, and the repository's instructions at it."""

    commit: str
    instructions: str


def empty(address: Address) -> Refused:
    return Refused(f"{address.url} is empty: it has no branch yet. Push a first commit to it.")


async def list_remote(git: Git, remote: Remote, *, timeout_seconds: float = LISTING_SECONDS) -> Listing:
    """Ask the remote what it has. GitFailed with the reason when it does not say."""
    patterns = ("HEAD", "refs/heads/*", "refs/tags/*")
    output = await git.run(
        "ls-remote", "--symref", "--", remote.url, *patterns, remote=remote, timeout_seconds=timeout_seconds
    )
    head, refs = "", {}
    for line in output.text.splitlines():
        value, _, name = line.partition("\t")
        if name == "HEAD" and value.startswith("ref: "):
            head = value.removeprefix("ref: ")
        elif name.startswith(("refs/heads/", "refs/tags/")) and not name.endswith("^{}"):
            refs[name] = value
    return Listing(head if head in refs else "", refs)


class Refresh:
    """One fetch that any number of askers wait for."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.scope = anyio.CancelScope()
        self.failure: Refused | None = None


class Mirror:
    """One repository's bare copy. Its folder exists once the first fetch has been completed."""

    def __init__(self, address: Address, folder: Path, git: Git, lend: Lend, *, fetch_seconds: float) -> None:
        self.address = address
        self.folder = folder
        self.objects = folder / "objects"
        self.listing = Listing("", {})
        self._git = git
        self._lend = lend
        self._fetch_seconds = fetch_seconds
        self._listed_at = float("-inf")
        self._refresh: Refresh | None = None
        self._commits: OrderedDict[str, str] = OrderedDict()
        self._instructions: OrderedDict[str, str] = OrderedDict()
        self._setups: OrderedDict[str, SetupFound | None] = OrderedDict()
        self._log = log.get()

    @property
    def exists(self) -> bool:
        return self.folder.is_dir()

    def is_fresh(self, window_seconds: float) -> bool:
        return monotonic() - self._listed_at < window_seconds

    def default_branch(self) -> str:
        """Read from the mirror's own HEAD: known before the first fetch of this process."""
        return (self.folder / "HEAD").read_text().removeprefix("ref: refs/heads/").strip() if self.exists else ""

    def branch(self, base: str) -> str:
        """The branch that a task's base names, else the default branch."""
        name = base.removeprefix("refs/heads/")
        for branch in (name, name.removeprefix("origin/")):
            if branch and f"refs/heads/{branch}" in self.listing.refs:
                return branch
        return self.listing.head.removeprefix("refs/heads/") or self.default_branch()

    def start_refresh(self, tasks: anyio.abc.TaskGroup, limit: anyio.CapacityLimiter) -> Refresh:
        """Join the fetch that is under way, or start one."""
        if self._refresh is None:
            self._refresh = Refresh()
            tasks.start_soon(self._run_refresh, self._refresh, limit)
        return self._refresh

    def stop_refresh(self) -> None:
        """Who waits for the fetch is told to come back."""
        if self._refresh is not None:
            self._refresh.scope.cancel()

    async def resolve(self, base: str) -> str:
        """The commit that `base` names, of what was last fetched. A branch comes before a tag, a tag before a
        commit."""
        if not self.listing.refs:
            raise empty(self.address)
        name = base or self.listing.head
        if not name:
            raise Refused(f"{self.address.url} has no default branch: say from which one to start.")
        for ref in (name, f"refs/heads/{name}", f"refs/tags/{name}", f"refs/heads/{name.removeprefix('origin/')}"):
            if found := self.listing.refs.get(ref):
                return found if ref.startswith("refs/heads/") else await self._commit_of(found, name)
        if not COMMIT_PREFIX.fullmatch(name):
            raise self._unknown(name)
        return await self._commit_of(name, name)

    async def has(self, commit: str) -> bool:
        await self._recall()
        try:
            return self.exists and await self._commit_of(commit, commit) == commit
        except Refused:
            return False

    async def instructions(self, commit: str) -> str:
        """AGENTS.md, else CLAUDE.md, as it is in that commit; links within the tree are followed."""
        if commit not in self._instructions:
            names = "".join(f"{commit}:{name}\n" for name in INSTRUCTIONS_FILES)
            output = await self._git.run(
                *("cat-file", "--batch", "--follow-symlinks"),
                repository=self.folder,
                data=names.encode(),
                limit_bytes=4 * INSTRUCTIONS_LIMIT_BYTES,
            )
            _remember(self._instructions, commit, first_text(output.data))
        return self._instructions[commit]

    async def setup(self, commit: str) -> SetupFound | None:
        """How the repository wants its sandboxes prepared, as that commit says."""
        if commit not in self._setups:
            _remember(self._setups, commit, await find_setup(self._git, self.folder, commit))
        return self._setups[commit]

    async def _commit_of(self, name: str, shown: str) -> str:
        """The commit of a tag's or commit's id, or of the beginning of one."""
        if name not in self._commits:
            try:
                output = await self._git.run(
                    *("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}"), repository=self.folder
                )
            except GitFailed as error:
                if "ambiguous" in error.said:
                    raise Refused(f"{shown!r} is the beginning of several commits: give more of it.") from None
                raise self._unknown(shown) from None
            _remember(self._commits, name, output.text.strip())
        return self._commits[name]

    def _unknown(self, name: str) -> Refused:
        return Refused(f"{self.address.url} has no branch, tag or commit {name[:200]!r}.", "not_found")

    # Bringing it up to date

    async def _run_refresh(self, refresh: Refresh, limit: anyio.CapacityLimiter) -> None:
        refresh.failure = Refused("The repos service is being stopped; ask again.", "unavailable")
        started = monotonic()
        try:
            with refresh.scope:
                async with limit, self._lend(self.address) as remote:
                    await self._bring_up_to_date(remote)
                # What was asked for while we fetched may be newer than what we got.
                self._listed_at = started
                refresh.failure = None
        except (Refused, Unavailable) as error:
            refresh.failure = error if isinstance(error, Refused) else Refused(str(error), "unavailable")
        except Exception:
            self._log.exception("refresh_failed", repository=self.address.url)
            refresh.failure = Refused("The mirror cannot be brought up to date; the log of repos says why.", "internal")
        finally:
            self._refresh = None
            refresh.done.set()

    async def _bring_up_to_date(self, remote: Remote) -> None:
        await self._recall()
        listing = await list_remote(self._git, remote)
        if not listing.refs:
            self.listing = listing
        elif not self.exists or listing != self.listing:
            await self._fetch(remote, listing)

    async def _fetch(self, remote: Remote, listing: Listing) -> None:
        started = monotonic()
        async with _alone(self.folder.with_name(f"{self.folder.name}.lock")) as lock:
            folder = self.folder if self.exists else self._begin(listing)
            _remove_stale_locks(folder)
            await self._git.run(
                *("fetch", "--quiet", "--force", "--prune", "--no-tags", "--no-write-fetch-head", "--update-shallow"),
                *("--no-auto-maintenance", "--no-recurse-submodules", "--", remote.url, *REFSPECS),
                repository=folder,
                remote=remote,
                timeout_seconds=self._fetch_seconds,
                inherit=(lock,),
            )
            if listing.head:
                replace_file(folder / "HEAD", f"ref: {listing.head}\n")
            if folder != self.folder:
                folder.rename(self.folder)
        # A branch may have moved between the listing and the fetch: what counts is what we have.
        self.listing = Listing(listing.head, await self._own_refs())
        self._log.info(
            "mirror_fetched", repository=self.address.url, refs=len(self.listing.refs), seconds=monotonic() - started
        )

    async def _recall(self) -> None:
        """What an earlier process fetched."""
        if self.exists and not self.listing.refs:
            self.listing = Listing(f"refs/heads/{self.default_branch()}", await self._own_refs())

    def _begin(self, listing: Listing) -> Path:
        folder = self.folder.with_name(f"{self.folder.name}.new")
        shutil.rmtree(folder, ignore_errors=True)
        write_repository(folder, commit_id=next(iter(listing.refs.values())), head=listing.head or "refs/heads/main")
        (folder / "description").write_text(f"Errand's mirror of {self.address.url}\n")
        return folder

    async def _own_refs(self) -> dict[str, str]:
        output = await self._git.run(
            "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags", repository=self.folder
        )
        pairs = (line.partition(" ") for line in output.text.splitlines())
        return {name: commit for commit, _, name in pairs}


class Cache:
    """All mirrors of this host."""

    def __init__(
        self,
        folder: Path,
        git: Git,
        lend: Lend,
        tasks: anyio.abc.TaskGroup,
        *,
        freshness_seconds: float,
        fetch_seconds: float,
    ) -> None:
        """`tasks` owns the fetches: they go on when who asked gives up."""
        self._folder = folder
        self._tasks = tasks
        self._git = git
        self._lend = lend
        self._freshness_seconds = freshness_seconds
        self._fetch_seconds = fetch_seconds
        self._mirrors: dict[Address, Mirror] = {}
        self._limit = anyio.CapacityLimiter(REFRESHES_LIMIT)

    def mirror(self, address: Address) -> Mirror:
        mirror = self._mirrors.get(address)
        if mirror is None:
            folder = self._folder / short_name(address)
            mirror = Mirror(address, folder, self._git, self._lend, fetch_seconds=self._fetch_seconds)
            self._mirrors[address] = mirror
        return mirror

    def warm(self, address: Address) -> None:
        """Start bringing a mirror up to date for who will soon ask."""
        mirror = self.mirror(address)
        if not mirror.is_fresh(self._freshness_seconds):
            mirror.start_refresh(self._tasks, self._limit)

    def stop(self) -> None:
        """End every fetch; the next start begins them again."""
        for mirror in self._mirrors.values():
            mirror.stop_refresh()

    async def resolve(self, address: Address, base: str) -> Base:
        """The commit to start from. Within the freshness window this reads memory alone."""
        mirror = self.mirror(address)
        just_fetched = await self.freshen(mirror)
        try:
            commit = await mirror.resolve(base)
        except Refused:
            if just_fetched:
                raise
            # It may have been pushed within the window.
            await self.freshen(mirror, window_seconds=0)
            commit = await mirror.resolve(base)
        return Base(commit, await mirror.instructions(commit))

    async def freshen(self, mirror: Mirror, *, window_seconds: float | None = None) -> bool:
        """Bring the mirror up to date unless it is; True when it took a fetch. One fetch serves all who wait."""
        window_seconds = self._freshness_seconds if window_seconds is None else window_seconds
        if mirror.is_fresh(window_seconds):
            return False
        refresh = mirror.start_refresh(self._tasks, self._limit)
        with anyio.move_on_after(ANSWER_SECONDS):
            await refresh.done.wait()
        if not refresh.done.is_set():
            raise Refused(f"{mirror.address.url} is large and still being copied; try again in a while.", "unavailable")
        if refresh.failure is not None:
            raise Refused(refresh.failure.reason, refresh.failure.code)
        return True


def short_name(address: Address) -> str:
    """A folder's name for an address: readable, and another one for each address."""
    whose = f"{address.private_to}'s" if address.private_to else "users'"
    distinct = address.url if address.for_owner else f"{whose} {address.url}"
    return f"{address.name[:40]}-{hashlib.blake2b(distinct.encode(), digest_size=10).hexdigest()}"


def first_text(output: bytes) -> str:
    """The first file that is there and not blank, of what `git cat-file --batch` wrote."""
    while output:
        header, _, rest = output.partition(b"\n")
        words = header.split()
        if len(words) == 3 and words[1] == b"blob" and words[2].isdigit():
            size = int(words[2])
            kept = rest[: min(size, INSTRUCTIONS_LIMIT_BYTES)]
            text = kept.decode(errors="replace" if size <= INSTRUCTIONS_LIMIT_BYTES else "ignore").strip()
            if text:
                return text if size <= INSTRUCTIONS_LIMIT_BYTES else f"{text}\n\n[cut at 32 KiB]"
            output = rest[size + 1 :]
        elif len(words) >= 2 and words[-1].isdigit():
            # Another kind of object, or what stands for a link that leaves the tree: its content follows.
            output = rest[int(words[-1]) + 1 :]
        else:
            output = rest
    return ""


def _remember(known: OrderedDict[str, T], key: str, value: T) -> None:
    known[key] = value
    while len(known) > RESOLVED_LIMIT:
        known.popitem(last=False)


@asynccontextmanager
async def _alone(path: Path) -> AsyncIterator[int]:
    """Hold a lock file; yields its descriptor. A git that outlived its killed service holds it on, by inheritance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await anyio.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_stale_locks(folder: Path) -> None:
    """What a killed git left behind; called under the mirror's own lock, so no other git is at work here."""
    for pattern in ("*.lock", "refs/**/*.lock", "objects/**/tmp_*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)
