"""Queries to the repos service: the mirror cache on a runner's host, and the publisher that holds the credentials."""

from __future__ import annotations

import re

from protocol.base import Message, Part
from protocol.task import Published

RESOLVE_SECONDS = 250.0
"""How long who sends `ResolveBase` or `PrepareWorkspace` should wait. A first copy that takes longer goes on; the
refusal that comes then is `unavailable`, so the next attempt finds it further or done."""
PUBLISH_SECONDS = 250.0
"""How long who sends `Publish` should wait. NATS lets a service answer for five minutes."""
CHECK_SECONDS = 12.0
"""How long who sends `CheckRepository` should wait."""
BRANCH = re.compile(r"errand/[a-z0-9](?:[a-z0-9_-]|\.(?=[a-z0-9])){0,120}")
"""The branches that are pushed, `errand/<task>-<slug>`; none can be mistaken for a ref with a meaning of its own."""
HOST = re.compile(
    r"(?P<name>[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:]+(?:\.[0-9.]+)?\])(?::(?P<port>[0-9]{1,5}))?"
)
"""A git host: lower-case name or bracketed IPv6 address, and a port where it is not the default of https or ssh."""


def normal_host(text: str) -> str:
    """A git host as `errand host add` takes it and `AddHost` carries it: `GitHub.com` -> `github.com`. ValueError with
    a sentence.

    The host stands for https and ssh at their own ports; for plain http the port is part of it (`git.lan:80`), so that
    a token given for https never travels in the clear.
    """
    host = text.strip().lower()
    for default in (":443", ":22"):
        host = host.removesuffix(default)
    match = HOST.fullmatch(host)
    if match is None or not 0 < int(match["port"] or 1) < 65536:
        raise ValueError("A git host is a name and a port if need be, such as github.com or git.example.org:8443.")
    return host


class CheckRepository(Message, frozen=True):
    """Whether a repository can be used by `user`: answered at once where a mirror exists, otherwise by asking the
    remote."""

    user: str
    repository: str
    is_owner: bool = False
    """Paths on the server, internal hosts and credentials that are not shared are the owner's only."""


class RepositoryKnown(Message, frozen=True):
    repository: str
    """As it is written from now on: normalised, without credentials."""
    default_branch: str = ""


class ResolveBase(Message, frozen=True):
    """Bring the mirror up to date and name the commit to start from."""

    task: str
    repository: str
    base: str = ""
    """Branch, tag or commit; empty means the remote's default branch."""
    is_owner: bool = False
    user: str = ""
    """Whose task it is: with that user's own sign-in at the host it may see more."""


class BaseResolved(Message, frozen=True):
    commit: str
    instructions: str = ""
    """AGENTS.md or CLAUDE.md at that commit, cut at 32 KiB."""


class PrepareWorkspace(Message, frozen=True):
    """Make a fresh workspace for an attempt from the mirror: a clone that borrows the mirror's objects, on `branch` at
    `commit`."""

    task: str
    attempt: int
    repository: str
    commit: str
    branch: str
    checkout: bool = True
    """False: the files are checked out in the sandbox, onto its own disk; the folder has the repository alone."""
    keep: int = 0
    """Not afresh: this earlier attempt's, as it is, because its sandbox lives on."""
    for_setup: bool = False
    """Another one beside the attempt's, in which the repository's set-up runs before the agent."""


class SetupFound(Part, frozen=True):
    """How the repository wants its sandboxes prepared, as it says at one commit."""

    inputs: str
    """A digest of the files that what is prepared depends on: the same files, the same digest."""
    script: str = ""
    """A file of the repository that is run, such as `.errand/setup.sh`."""
    image: str = ""
    """An image that is to be used in place of Errand's."""
    dockerfile: str = ""
    """A file of the repository, next to all that it copies, from which such an image is built."""
    notices: tuple[str, ...] = ()
    """Sentences for the user: what is not heeded."""
    secrets: str = ""
    """A digest of the secrets that the task's user has for it: one set anew makes it another. Empty: there are none."""


class WorkspacePrepared(Message, frozen=True):
    path: str
    """Folder on the runner's host; empty where there is none that could be kept."""
    readonly_paths: tuple[str, ...] = ()
    """Host folders the workspace borrows objects from, to be seen inside at the same path."""
    setup: SetupFound | None = None


class ReleaseWorkspace(Message, frozen=True):
    """The attempt's sandbox has stopped: its workspace may go, and the one of its set-up."""

    task: str
    attempt: int
    for_setup: bool = False
    """Only the one of its set-up."""


class WorkspaceReleased(Message, frozen=True):
    pass


class PullRequestWish(Part, frozen=True):
    """What a pull request is to say."""

    title: str
    summary: str
    """Markdown, by the model."""
    base: str = ""
    """As the task has it; where it is no branch, the default branch is meant."""
    model: str = ""
    scripted: bool = False
    """By the scripted model, and so it is said."""
    unfinished: bool = False
    """The turn failed or reached a limit: as a draft."""


class Publish(Message, frozen=True):
    """Check a bundle and push its commit. Idempotent: the same commit on the same branch is pushed once."""

    task: str
    repository: str
    base_commit: str
    commit: str
    blob: str
    """The bundle's name in the object store; empty where `commit` was published before."""
    branch: str
    """`errand/<task>-<slug>`, see `BRANCH`."""
    is_owner: bool = False
    user: str = ""
    pull_request: PullRequestWish | None = None
    """Opened or updated after the push, where the host has them. What goes wrong there becomes a notice."""


class PublishDone(Message, frozen=True):
    published: Published
    notices: tuple[str, ...] = ()
    """Sentences for the user: what to look at before merging."""


class ShowDiff(Message, frozen=True):
    """What a task changed."""

    repository: str
    base_commit: str
    commit: str
    task: str
    is_owner: bool = False
    user: str = ""


class Diff(Message, frozen=True):
    text: str
    """Unified diff; cut at 256 KiB."""
    cut: bool = False


class AskSealingKey(Message, frozen=True):
    """The publisher's public key, to seal a credential with."""


class SealingKey(Message, frozen=True):
    public_key: str
    """X25519, base64: what `services.envelope.seal` takes."""


class LendSecrets(Message, frozen=True):
    """For the set-up of an attempt that runs: the secrets that the task's user has for its repository."""

    task: str
    attempt: int
    public_key: str
    """Of a key that the runner made for this one question: nobody else can read the answer on its way."""


class SecretsLent(Message, frozen=True):
    sealed: dict[str, str]
    """By name, each in an envelope for that key (`protocol.secret.bound_to_attempt`)."""
