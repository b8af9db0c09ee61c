"""Which of our users a GitHub account is. Pure.

The list names logins, because people know those. But a login can be given up and taken by somebody else: the first
sign-in binds the account's number, and from then on the number counts.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from gateway.errors import Problem
from protocol.evolve import User
from protocol.ids import OWNER, user_id
from services.github import GithubConfig, Identity


class Admitted(Struct, frozen=True):
    user: str
    listed: str
    """The entry of the list that lets the account in."""


def admit(who: Identity, github: GithubConfig, users: Iterable[User]) -> Admitted:
    """The user that `who` is, or becomes. Raises Problem where the list does not have the account."""
    bound = [user for user in users if user.github is not None and user.github.host == github.host]
    listed = _entry(who, github, bound)
    if listed is None:
        raise Problem(403, f"The GitHub account {who.login} may not sign in here: ask the owner of this server.")
    if any(_holds(user, listed, who) for user in bound):
        raise Problem(
            403,
            f"{who.login} is another GitHub account than the one that signed in here under this login before: "
            f"ask the owner of this server.",
        )
    return Admitted(OWNER if listed == github.owner else _user(who, github), listed)


def _entry(who: Identity, github: GithubConfig, bound: list[User]) -> str | None:
    """An account stays in under the entry that let it in first, whatever its login is by now."""
    for user in bound:
        if user.github and user.github.account == who.account and user.github.listed in github.logins:
            return user.github.listed
    login = who.login.casefold()
    return login if login in github.logins else None


def _holds(user: User, listed: str, who: Identity) -> bool:
    return user.github is not None and user.github.listed == listed and user.github.account != who.account


def _user(who: Identity, github: GithubConfig) -> str:
    return user_id(f"{github.host}/{who.account}")
