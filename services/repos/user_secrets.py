"""Users' secrets for set-ups: sealed in each user's log, opened here alone, and lent to one set-up at a time, in
envelopes that only the runner which asked can open."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from protocol.repo import LendSecrets
from protocol.secret import Secret, bound_to, bound_to_attempt
from services import envelope
from services.bus import Refused
from services.envelope import NotOpened
from services.repos.address import parse
from services.repos.user_logs import UserLogs
from services.repos.vault import Vault


class UserSecrets:
    """As of each use."""

    def __init__(self, logs: UserLogs, vault: Vault) -> None:
        self._logs = logs
        self._vault = vault

    async def digest(self, user: str, repository: str) -> str:
        """Of those that a set-up gets there: one set anew makes it another. Empty where there are none. Raises
        Unavailable."""
        found = chosen((await self._logs.read(user)).secrets, repository)
        if not found:
            return ""
        said = msgspec.json.encode(sorted((secret.name, secret.sealed) for secret in found.values()))
        return hashlib.blake2b(said, digest_size=16).hexdigest()

    async def lend(self, user: str, repository: str, asked: LendSecrets) -> dict[str, str]:
        """Each sealed anew, for who asked. Raises Refused and Unavailable."""
        found = chosen((await self._logs.read(user)).secrets, repository)
        return {
            name: envelope.seal(
                asked.public_key, bound_to_attempt(asked.task, asked.attempt, name), self._open(user, secret)
            )
            for name, secret in found.items()
        }

    def _open(self, user: str, secret: Secret) -> str:
        try:
            return self._vault.unseal(bound_to(user, secret.name, secret.repository), secret.sealed)
        except NotOpened:
            given = f"{secret.name} --repo {secret.repository}" if secret.repository else secret.name
            raise Refused(
                f"The secret {secret.name} cannot be opened with this installation's key. Give it again with "
                f"`errand secret set {given}`."
            ) from None


def chosen(secrets: Mapping[str, Secret], repository: str) -> dict[str, Secret]:
    """By name, those that are for `repository`; what was given for it alone comes before what is for all."""
    for_all = {secret.name: secret for secret in secrets.values() if not secret.repository}
    its_own = {secret.name: secret for secret in secrets.values() if is_same(secret.repository, repository)}
    return {**for_all, **its_own}


def is_same(given: str, repository: str) -> bool:
    """Whether both are the same address. What was given while nobody could look at it is not in its normal form."""
    try:
        return bool(given) and parse(given, is_owner=True).url == parse(repository, is_owner=True).url
    except Refused:
        return False
