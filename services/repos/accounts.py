"""The users' GitHub accounts: their tokens are opened here alone, lent to one piece of work at a time, and changed for
newer ones before they end.

GitHub kills both old tokens as soon as a refresh token is used. So there is one change at a time a user, and what it
brought is on disk, sealed, before anything else is done: NATS may be away, this process may die. Then it goes into the
user's log, and only after that it is used. What stays is the moment between GitHub's answer and the write: who loses
tokens in it signs in again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from protocol.evolve import Github
from protocol.ids import token_hash
from protocol.routes import user_command_subject
from protocol.task import Receipt, ReceiptStatus
from protocol.user import RotateGithubTokens
from services import log
from services.bus import Bus, Refused, Unavailable
from services.envelope import NotOpened
from services.github import GithubApp, GithubAway, GithubConfig, GithubRefused, Tokens, bound_to
from services.repos.user_logs import UserLogs
from services.repos.vault import Vault
from services.secrets_file import write_secret

EARLY = timedelta(minutes=15)
"""So long before their end tokens are changed: a push may take its time."""
LATE = timedelta(minutes=2)
"""So long before their end they are changed although somebody works with them."""
RECEIPT_SECONDS = 8.0
LOOK_SECONDS = 0.05
SIGN_IN_AGAIN = "GitHub does not take Errand's sign-in for you any more: sign in with GitHub again, then repeat this."

_decode_tokens = msgspec.json.Decoder(Tokens).decode


class Pending(Struct, frozen=True):
    """Newer tokens that the log may not have yet."""

    replaces: str
    sealed: str


_decode_pending = msgspec.json.Decoder(Pending).decode


class Accounts:
    """Lends users' access tokens."""

    def __init__(self, bus: Bus, logs: UserLogs, vault: Vault, github: GithubConfig) -> None:
        self._bus = bus
        self._logs = logs
        self._vault = vault
        self._github = github
        self._app = GithubApp(github)
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        self._lent: Counter[str] = Counter()
        """How many work with a user's token at this moment."""

    async def is_linked(self, user: str) -> bool:
        """Whether the user signed in with GitHub. Raises Unavailable."""
        return bool(user) and await self._linked(user) is not None

    @asynccontextmanager
    async def lend(self, user: str) -> AsyncIterator[str]:
        """The user's access token for as long as the block lasts, empty for who has none. Raises Refused and
        Unavailable."""
        tokens = await self._fresh(user) if user else None
        self._lent[user] += 1
        try:
            yield tokens.access if tokens else ""
        finally:
            self._lent[user] -= 1

    async def _linked(self, user: str) -> Github | None:
        if not self._github.signs_in:
            return None
        linked = (await self._logs.read(user)).github
        return linked if linked and linked.host == self._github.host else None

    async def _fresh(self, user: str) -> Tokens | None:
        async with self._locks[user]:
            linked = await self._linked(user)
            if linked is None:
                return None
            if pending := self._pending(user, linked):
                return await self._store(user, pending)
            tokens = self._open(user, linked.sealed)
            return await self._change(user, linked, tokens) if self._is_ending(user, tokens) else tokens

    def _is_ending(self, user: str, tokens: Tokens) -> bool:
        if tokens.access_ends_at is None or not tokens.refresh:
            return False
        return tokens.access_ends_at - datetime.now(UTC) < (LATE if self._lent[user] else EARLY)

    async def _change(self, user: str, linked: Github, tokens: Tokens) -> Tokens:
        pending: Pending | None = None
        try:
            # Who is stopped meanwhile would let GitHub's answer go, and with it the only tokens that live.
            with anyio.CancelScope(shield=True):
                pending = await self._renew(user, linked, tokens)
        except GithubAway as away:
            raise Refused(str(away), "unavailable") from None
        except GithubRefused:
            return await self._changed_elsewhere(user, linked)
        assert pending is not None, "nobody cancels what is shielded"
        return await self._store(user, pending)

    async def _renew(self, user: str, linked: Github, tokens: Tokens) -> Pending:
        newer = await self._app.refresh(tokens)
        pending = Pending(token_hash(linked.sealed), self._seal(user, newer))
        write_secret(self._file(user), msgspec.json.encode(pending).decode())
        log.get().info("github_tokens_changed", user=user, ends_at=str(newer.access_ends_at))
        return pending

    async def _changed_elsewhere(self, user: str, linked: Github) -> Tokens:
        """GitHub refuses the refresh token: the user has signed in anew meanwhile, or has to."""
        now = await self._linked(user)
        if now is None or now.sealed == linked.sealed:
            raise Refused(SIGN_IN_AGAIN)
        return self._open(user, now.sealed)

    # On their way into the log

    def _file(self, user: str) -> Path:
        return self._vault.folder / f"github-{user}.sealed"

    def _pending(self, user: str, linked: Github) -> Pending | None:
        """Tokens that an earlier change brought and the log does not have yet."""
        try:
            pending = _decode_pending(self._file(user).read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        if pending.replaces == token_hash(linked.sealed):
            return pending
        self._file(user).unlink(missing_ok=True)
        return None

    async def _store(self, user: str, pending: Pending) -> Tokens:
        """Put newer tokens into the user's log, and return what is there then."""
        command = RotateGithubTokens(
            key=f"github tokens {pending.replaces[:32]}", sealed=pending.sealed, replaces=pending.replaces
        )
        await self._bus.publish(user_command_subject(user, command), command, key=f"{user}.{command.key}")
        receipt = await self._receipt(user, command.key)
        self._file(user).unlink(missing_ok=True)
        if receipt.status is not ReceiptStatus.CONSUMED:
            log.get().warning("github_tokens_not_stored", user=user, reason=receipt.reason)
        linked = await self._linked(user)
        if linked is None or token_hash(linked.sealed) == pending.replaces:
            raise Refused(SIGN_IN_AGAIN)
        return self._open(user, linked.sealed)

    async def _receipt(self, user: str, key: str) -> Receipt:
        with anyio.move_on_after(RECEIPT_SECONDS):
            while True:
                if receipt := (await self._logs.read(user)).receipts.get(key):
                    return receipt
                await anyio.sleep(LOOK_SECONDS)
        raise Unavailable("The scheduler did not store new GitHub tokens in time.")

    # Envelopes

    def _seal(self, user: str, tokens: Tokens) -> str:
        return self._vault.seal(bound_to(self._github.host, user), msgspec.json.encode(tokens).decode())

    def _open(self, user: str, sealed: str) -> Tokens:
        try:
            return _decode_tokens(self._vault.unseal(bound_to(self._github.host, user), sealed))
        except (NotOpened, msgspec.MsgspecError):
            raise Refused(
                "Your GitHub sign-in cannot be opened with this installation's key: sign in with GitHub again."
            ) from None
