"""Queries to the repos service: the mirror cache on a runner's host, and the publisher that holds the credentials."""

from __future__ import annotations

from protocol.base import Message
from protocol.task import Published


class CheckRepository(Message):
    """Whether a repository can be used by `user`: answered at once where a mirror exists, otherwise by asking the remote."""

    user: str
    repository: str
    is_owner: bool = False
    """Paths on the server are the owner's only."""


class RepositoryKnown(Message):
    repository: str
    """As it is written from now on: normalised, without credentials."""
    default_branch: str = ""


class ResolveBase(Message):
    """Bring the mirror up to date and name the commit to start from."""

    task: str
    repository: str
    base: str = ""
    """Branch, tag or commit; empty means the remote's default branch."""
    is_owner: bool = False


class BaseResolved(Message):
    commit: str
    instructions: str = ""
    """AGENTS.md or CLAUDE.md at that commit, cut at 32 KiB."""


class PrepareWorkspace(Message):
    """Make a fresh workspace for an attempt from the mirror: a clone that borrows the mirror's objects, on `branch` at `commit`."""

    task: str
    attempt: int
    repository: str
    commit: str
    branch: str


class WorkspacePrepared(Message):
    path: str
    """Folder on the runner's host."""
    readonly_paths: tuple[str, ...] = ()
    """Host folders the workspace borrows objects from, to be seen inside at the same path."""


class ReleaseWorkspace(Message):
    """The attempt's sandbox has stopped: its workspace may go."""

    task: str
    attempt: int


class WorkspaceReleased(Message):
    pass


class Publish(Message):
    """Check a bundle and push its commit. Idempotent: the same commit on the same branch is pushed once."""

    task: str
    repository: str
    base_commit: str
    commit: str
    blob: str
    """The bundle's name in the object store."""
    branch: str
    is_owner: bool = False


class PublishDone(Message):
    published: Published


class ShowDiff(Message):
    """What a task changed."""

    repository: str
    base_commit: str
    commit: str
    task: str


class Diff(Message):
    text: str
    """Unified diff; cut at 256 KiB."""
    cut: bool = False


class AskSealingKey(Message):
    """The publisher's public key, to seal a credential with."""


class SealingKey(Message):
    public_key: str
    """X25519, base64."""


class SealedCredential(Message):
    """What is inside a sealed envelope; never stored, logged or sent open."""

    secret: str
