"""What a task changed, read from git's own lists, and what of it may not be pushed or must be looked at. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

from msgspec import Struct

SYMLINK = "120000"
SUBMODULE = "160000"
RUNS_BY_ITSELF = re.compile(
    r"\.github/(workflows|actions)/.*|\.gitlab-ci\.yml|\.circleci/.*|\.travis\.yml|azure-pipelines\.yml|Jenkinsfile"
    r"|\.drone\.yml|\.woodpecker(/.*|\.ya?ml)|\.forgejo/workflows/.*|\.gitea/workflows/.*|bitbucket-pipelines\.yml"
    r"|\.buildkite/.*",
    re.IGNORECASE,
)
"""Files that a host may run as soon as a branch with them is pushed."""
SHOWN_LIMIT = 5


class Changed(Struct, frozen=True):
    """One path as it is afterwards; `blob` is all zeros where it was deleted."""

    path: str
    mode: str
    blob: str

    @property
    def is_deleted(self) -> bool:
        return not self.blob.strip("0")


class Change(Struct, frozen=True):
    """All that differs between two commits."""

    entries: tuple[Changed, ...]
    insertions: int
    deletions: int


def read_change(output: bytes) -> Change:
    """From `git diff-tree -r -z -M --raw --numstat`: first the raw entries, then the counted ones."""
    fields = iter(output.decode(errors="surrogateescape").split("\0"))
    entries: list[Changed] = []
    insertions = deletions = 0
    for field in fields:
        if field.startswith(":"):
            _, mode, _, blob, status = field[1:].split(" ")
            path = next(fields)
            if status[0] in "RC":
                path = next(fields)
            entries.append(Changed(path, mode, blob))
        elif field:
            added, deleted, path = field.split("\t", 2)
            if not path:  # a rename: both names follow
                path = next(fields) and next(fields)
            # A binary file has "-" in both.
            insertions += int(added) if added.isdigit() else 0
            deletions += int(deleted) if deleted.isdigit() else 0
    return Change(tuple(entries), insertions, deletions)


def leaves_the_tree(path: str, target: str) -> bool:
    """Whether a symlink at `path` points outside the repository, or into its `.git`."""
    if target.startswith("/"):
        return True
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return reached == ".." or reached.startswith("../") or reached.split("/")[0].lower() == ".git"


def escapes(links: Sequence[tuple[str, str]]) -> str:
    """Why these links (path, target) may not be pushed; empty when they may."""
    outside = [f"{path} -> {target}" for path, target in links if leaves_the_tree(path, target)]
    return f"The change has symlinks that leave the repository: {_shown(outside)}." if outside else ""


def notices(change: Change) -> tuple[str, ...]:
    """What a person should look at before merging."""
    present = [entry for entry in change.entries if not entry.is_deleted]
    found = []
    if ran := [entry.path for entry in change.entries if RUNS_BY_ITSELF.fullmatch(entry.path)]:
        found.append(f"The branch changes what the git host runs by itself: {_shown(ran)}.")
    if any(entry.path.lower() == ".gitmodules" for entry in change.entries):
        found.append("The branch changes .gitmodules: look at the addresses in it.")
    if modules := [entry.path for entry in present if entry.mode == SUBMODULE]:
        found.append(f"The branch changes submodules, whose content was not looked at: {_shown(modules)}.")
    return tuple(found)


def _shown(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN_LIMIT} more" if len(items) > SHOWN_LIMIT else ""
    # A path may be any bytes; what is shown must be text.
    return (", ".join(items[:SHOWN_LIMIT]) + more).encode(errors="replace").decode()
