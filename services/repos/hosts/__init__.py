"""What git hosts have beside git: pull requests. One file a host."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from protocol.repo import PullRequestWish
from protocol.task import PullRequest
from services.repos.address import Address


class Branch(Struct, frozen=True, kw_only=True):
    """A branch that was pushed, and where it is to go."""

    address: Address
    name: str
    base: str
    """The branch to merge it into."""
    task: str


class Offered(Struct, frozen=True):
    """What came of offering a branch."""

    pull_request: PullRequest | None = None
    notices: tuple[str, ...] = ()
    """What the user is to know, above all why there is none."""


class Host(Protocol):
    def has(self, address: Address) -> bool:
        """Whether the repository is at this host."""
        ...

    async def offer(self, branch: Branch, wish: PullRequestWish, token: str) -> Offered:
        """Open the branch's pull request, or bring it up to date. Asked again it finds the one that is there. Raises
        nothing that the host can cause: the branch is pushed whatever becomes of this."""
        ...
