"""The publisher: takes work in from a bundle, checks it in a clean bare repository, and pushes it as a branch. Never by
force.

A bundle is unpacked into a quarantine that borrows from the mirror, checked by git's own strict rules and by ours,
pushed from there, and then kept in a repository of published work, from which `ShowDiff` answers. The mirror is never
written to.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import anyio
from msgspec import Struct

from protocol.ids import is_token
from protocol.repo import BRANCH, Diff, Publish, PublishDone
from protocol.task import Published
from services import log
from services.bus import Refused
from services.repos.address import Address
from services.repos.bundle import read_bundle
from services.repos.cache import COMMIT_ID, Lend, Mirror, short_name
from services.repos.changes import SYMLINK, Change, escapes, notices, read_change
from services.repos.complaints import last_words
from services.repos.git import Git, GitFailed, Remote
from services.repos.layout import write_ref, write_repository

PUBLISHES_LIMIT = 4
"""Bundles in memory at one time."""
PACKS_LIMIT = 50
"""Packs of one repository's published work; more are made one."""
DIFF_LIMIT_BYTES = 256 * 1024
LINK_LIMIT_BYTES = 4096
STRICT = ("index-pack", "--stdin", "--fix-thin", "--strict")

SHOWN = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"}
"""Control characters as their pictures."""

FetchBlob = Callable[[str], Awaitable[bytes]]
"""Reads a blob by its name; KeyError when there is none."""


class Limits(Struct, frozen=True, kw_only=True):
    """How much one task may publish."""

    bundle_bytes: int = 256 * 1024 * 1024
    file_bytes: int = 100 * 1024 * 1024
    """GitHub takes none over 100 MiB."""
    files: int = 10_000
    commits: int = 1_000
    push_seconds: float = 180.0


class Publisher:
    """Pushes checked work with the credentials that `lend` gives."""

    def __init__(
        self,
        data: Path,
        unfinished: Path,
        git: Git,
        lend: Lend,
        fetch_blob: FetchBlob,
        *,
        limits: Limits,
        push: bool,
        local_folder: Path,
    ) -> None:
        """`data` is the folder of published work. Without `push`, branches go to bare clones in `local_folder`."""
        self._published = data
        self._unfinished = unfinished
        self._git = git
        self._lend = lend
        self._fetch_blob = fetch_blob
        self._limits = limits
        self._push_out = push
        self._local_folder = local_folder
        self._limit = anyio.CapacityLimiter(PUBLISHES_LIMIT)
        self._log = log.get()

    async def publish(self, asked: Publish, mirror: Mirror) -> PublishDone:
        """Check and push; Refused with the reason. Asked again it finds the branch where it put it and says the
        same."""
        _check_names(asked)
        async with self._limit, self._quarantine(mirror, asked) as folder:
            if asked.blob:
                await self._take_in(folder, asked)
            await self._check_descent(folder, asked)
            change = await self._read_change(folder, asked)
            await self._check_files(folder, change)
            pushed_to = await self._push(folder, asked, mirror)
            self._keep(folder, asked, mirror)
        self._log.info("published", repository=pushed_to, branch=asked.branch, commit=asked.commit)
        published = Published(
            branch=asked.branch,
            commit=asked.commit,
            base_commit=asked.base_commit,
            pushed_to=pushed_to,
            files_changed=len(change.entries),
            insertions=change.insertions,
            deletions=change.deletions,
        )
        return PublishDone(published=published, notices=notices(change))

    async def diff(self, address: Address, base_commit: str, commit: str) -> Diff:
        """What was published, as a unified diff, cut at a line's end."""
        _check_commits(base_commit, commit)
        folder = self._home_of(address)
        nothing = Refused("Nothing of this task has been published yet.", "not_found")
        if not folder.is_dir():
            raise nothing
        try:
            output = await self._git.run(
                *("diff", "--no-color", "--no-ext-diff", "--no-textconv", "-M", base_commit, commit, "--"),
                repository=folder,
                limit_bytes=2 * DIFF_LIMIT_BYTES,
            )
        except GitFailed as error:
            if "bad object" in error.said:
                raise nothing from None
            raise
        return cut_diff(output.data)

    async def tidy(self) -> None:
        """Keep the published work in few files, however many tasks there were. Nothing of it is dropped: the next turn
        of an archived task stands on it, and its diff is shown from it."""
        for home in self._published.iterdir() if self._published.is_dir() else ():
            if sum(1 for _ in (home / "objects/pack").glob("*.pack")) > PACKS_LIMIT:
                # `-l`: what is borrowed from the mirror stays there. `-k`: what comes in meanwhile has no ref yet.
                await self._git.run("repack", "-a", "-d", "-l", "-k", "--quiet", repository=home)
                await self._git.run("pack-refs", "--all", repository=home)

    # The quarantine

    @asynccontextmanager
    async def _quarantine(self, mirror: Mirror, asked: Publish) -> AsyncIterator[Path]:
        """A clean bare repository that sees the mirror's and the published objects and can change neither."""
        home = self._home_of(mirror.address)
        shallow = mirror.folder / "shallow"
        if not home.is_dir():
            self._make_home(home, mirror, asked.commit)
        folder = self._unfinished / f"publish-{uuid4().hex}"
        borrows = [mirror.objects, home / "objects"]
        write_repository(folder, commit_id=asked.commit, head="refs/heads/main", borrows=borrows, shallow=shallow)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _make_home(self, home: Path, mirror: Mirror, commit: str) -> None:
        new = self._unfinished / f"published-{uuid4().hex}"
        write_repository(
            new,
            commit_id=commit,
            head="refs/heads/main",
            borrows=[mirror.objects],
            shallow=mirror.folder / "shallow",
        )
        home.parent.mkdir(parents=True, exist_ok=True)
        new.rename(home)

    def _home_of(self, address: Address) -> Path:
        return self._published / short_name(address)

    async def _take_in(self, folder: Path, asked: Publish) -> None:
        """Unpack the bundle: every object whole, well formed, allowed (no `.git`, `..` or absolute path), and linked to
        what is there."""
        try:
            data = await self._fetch_blob(asked.blob)
        except KeyError:
            raise Refused(f"The bundle {asked.blob} with the work is gone.", "not_found") from None
        if len(data) > self._limits.bundle_bytes:
            raise Refused(
                f"The work has {len(data):,} bytes, over the limit of {self._limits.bundle_bytes:,} "
                f"(ERRAND_PUBLISH_LIMIT_BYTES). Are build results committed?"
            )
        bundle = read_bundle(data)
        if asked.commit not in bundle.tips:
            raise Refused(f"The bundle with the work does not have the commit {asked.commit[:12]}.")
        try:
            await self._git.run(*STRICT, repository=folder, data=data[bundle.pack_offset :])
        except GitFailed as error:
            raise Refused(f"The work was refused by git's own checks: {last_words(error.said)}") from None

    # The checks

    async def _check_descent(self, folder: Path, asked: Publish) -> None:
        between = f"{asked.base_commit}..{asked.commit}"
        try:
            await self._git.run("merge-base", "--is-ancestor", asked.base_commit, asked.commit, repository=folder)
            counted = await self._git.run("rev-list", "--count", between, repository=folder)
        except GitFailed as error:
            if error.exit_code == 1:
                raise Refused("The work does not descend from the commit that the task started from.") from None
            raise Refused(f"The work's commits cannot be read: {last_words(error.said)}") from None
        count = int(counted.text)
        if count == 0:
            raise Refused("There is nothing to publish: no commit was added.")
        if count > self._limits.commits:
            raise Refused(f"The work has {count:,} commits, over the limit of {self._limits.commits:,}.")

    async def _read_change(self, folder: Path, asked: Publish) -> Change:
        output = await self._git.run(
            *(
                "diff-tree",
                "-r",
                "-z",
                "-M",
                "--raw",
                "--numstat",
                "--no-ext-diff",
                "--no-textconv",
                "--end-of-options",
            ),
            *(asked.base_commit, asked.commit),
            repository=folder,
        )
        change = read_change(output.data)
        if output.cut or len(change.entries) > self._limits.files:
            raise Refused(
                f"The work changes over {self._limits.files:,} files (ERRAND_PUBLISH_LIMIT_FILES). "
                f"Are build results committed?"
            )
        return change

    async def _check_files(self, folder: Path, change: Change) -> None:
        present = [entry for entry in change.entries if not entry.is_deleted]
        sizes = await self._sizes(folder, [entry.blob for entry in present])
        for entry in present:
            if sizes.get(entry.blob, 0) > self._limits.file_bytes:
                raise Refused(f"{entry.path} is over the limit of {self._limits.file_bytes:,} bytes for a file.")
        links = [entry for entry in present if entry.mode == SYMLINK]
        targets = [await self._target(folder, entry.blob) for entry in links]
        if reason := escapes([(entry.path, target) for entry, target in zip(links, targets, strict=True)]):
            raise Refused(reason)

    async def _sizes(self, folder: Path, blobs: Sequence[str]) -> dict[str, int]:
        output = await self._git.run(
            *("cat-file", "--batch-check=%(objectname) %(objectsize)"),
            repository=folder,
            data="".join(f"{blob}\n" for blob in blobs).encode(),
        )
        # A submodule's commit is "missing" here, and has no size.
        pairs = (line.split(" ") for line in output.text.splitlines())
        return {blob: int(size) for blob, size in pairs if size.isdigit()}

    async def _target(self, folder: Path, blob: str) -> str:
        output = await self._git.run("cat-file", "blob", blob, repository=folder, limit_bytes=LINK_LIMIT_BYTES)
        return output.text

    # The push

    async def _push(self, folder: Path, asked: Publish, mirror: Mirror) -> str:
        """Push the commit; return where to."""
        if self._push_out:
            async with self._lend(mirror.address) as remote:
                await self._push_to(folder, asked, remote)
            return mirror.address.url
        clone = self._local_clone(mirror, asked.commit)
        await self._push_to(folder, asked, Remote(url=str(clone), protocols="file", place=str(clone)))
        return str(clone)

    async def _push_to(self, folder: Path, asked: Publish, remote: Remote) -> None:
        try:
            await self._git.run(
                *("push", "--porcelain", "--no-verify", "--no-signed", "--recurse-submodules=no", "--"),
                *(remote.url, f"{asked.commit}:refs/heads/{asked.branch}"),
                repository=folder,
                remote=remote,
                timeout_seconds=self._limits.push_seconds,
            )
        except GitFailed as error:
            if reason := refused_push(error, asked.branch, remote.place):
                raise Refused(reason) from None
            raise

    def _local_clone(self, mirror: Mirror, commit: str) -> Path:
        """A bare clone of the repository on this machine, where branches stay when nothing may be pushed."""
        folder = self._local_folder / f"{short_name(mirror.address)}.git"
        if not folder.is_dir():
            new = self._unfinished / f"clone-{uuid4().hex}"
            write_repository(
                new,
                commit_id=commit,
                head=mirror.listing.head or "refs/heads/main",
                borrows=[mirror.objects],
                refs=mirror.listing.refs,
                shallow=mirror.folder / "shallow",
            )
            folder.parent.mkdir(parents=True, exist_ok=True)
            new.rename(folder)
        return folder

    def _keep(self, folder: Path, asked: Publish, mirror: Mirror) -> None:
        """Move the checked objects to the published ones, as git itself does with what was pushed to it: packs, then
        indexes."""
        home = self._home_of(mirror.address)
        packs = sorted((folder / "objects/pack").iterdir(), key=lambda path: path.suffix == ".idx")
        for path in packs:
            path.replace(home / "objects/pack" / path.name)
        write_ref(home, f"refs/errand/{asked.task}", asked.commit)


def _check_names(asked: Publish) -> None:
    if not is_token(asked.task):
        raise Refused("That is not a task's id.")
    if not BRANCH.fullmatch(asked.branch) or asked.branch.endswith(".lock"):
        raise Refused(
            "Only branches named errand/<task>-<slug>, of small letters, digits, '-', '_' and '.', are pushed."
        )
    _check_commits(asked.base_commit, asked.commit)


def _check_commits(*commits: str) -> None:
    if not all(COMMIT_ID.fullmatch(commit) for commit in commits):
        raise Refused("A commit is named by its full id here.")


def refused_push(error: GitFailed, branch: str, place: str) -> str:
    """What the remote had against the branch; empty when the push failed for another reason."""
    line = next((line for line in error.output.splitlines() if line.startswith("!\t")), "")
    reason = line.rpartition("\t")[2]
    if not line:
        return ""
    if "non-fast-forward" in reason or "fetch first" in reason:
        return f"{branch} on {place} has commits that this task does not know of; they are not overwritten."
    said = [text.removeprefix("remote:").strip() for text in error.said.splitlines() if text.startswith("remote:")]
    if "workflow" in reason or any("workflow" in text for text in said):
        return (
            f"{place} takes no change of workflow files from Errand's credential: give it that permission, "
            f"or leave .github/workflows out of the task."
        )
    words = " ".join(text for text in said if text)[:500]
    return f"{place} refused the branch {branch}: {reason}{': ' + words if words else ''}"


def cut_diff(data: bytes) -> Diff:
    """A diff as text that JSON can carry in one message: control characters shown, cut at the end of a line."""
    text = data.decode(errors="replace").translate(SHOWN)
    encoded = text.encode()
    if len(encoded) <= DIFF_LIMIT_BYTES:
        return Diff(text=text)
    kept = encoded[:DIFF_LIMIT_BYTES]
    kept = kept[: kept.rfind(b"\n") + 1] or kept
    return Diff(text=kept.decode(errors="ignore"), cut=True)
