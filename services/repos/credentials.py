"""The hosts' credentials: sealed in the owner's log, opened here alone, lent to one git process at a time; to that of
another user's task only where the owner shares them. Who signed in with GitHub gets there with the own account instead.

A token is read by git from that process's environment, through a credential helper that is bound to the address's own
scheme and host: it follows no redirect. A key lies, for as long as one ssh needs it, in memory-backed storage that only
we can read.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import Struct

from protocol.ids import OWNER
from protocol.user import HostKind
from services.bus import Refused
from services.envelope import NotOpened
from services.repos.accounts import Accounts
from services.repos.address import Address
from services.repos.git import Remote
from services.repos.reach import Reach, http_settings, ssh_options
from services.repos.user_logs import UserLogs
from services.repos.vault import Vault
from services.secrets_file import write_secret

MEMORY_FOLDER = Path("/dev/shm")
DEFAULT_USERNAME = "x-access-token"
"""What GitHub wants with a token; GitLab, Gitea and Bitbucket take any."""

# Its argv shows the names of the variables, never what is in them.
HELPER = (
    "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' "
    '"$ERRAND_GIT_USERNAME" "$ERRAND_GIT_PASSWORD"; }; f'
)
SSH = (
    *("ssh", "-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
    *("-o", "StrictHostKeyChecking=accept-new", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=10"),
    *("-o", "ControlPath=none", "-o", "ClearAllForwardings=yes"),
)


class Credential(Struct, frozen=True):
    """An opened credential."""

    host: str
    kind: str
    username: str
    secret: str
    is_own: bool = False
    """The account with which the task's user signed in at the host, not one that the owner gave."""

    def __repr__(self) -> str:
        return f"Credential({self.host!r}, {self.kind!r})"


class Credentials:
    """What users have at `github_host` by signing in, and what the owner gave by `errand host add`, as of each use."""

    def __init__(
        self, logs: UserLogs, vault: Vault, accounts: Accounts, data: Path, reach: Reach, github_host: str
    ) -> None:
        self._logs = logs
        self._vault = vault
        self._accounts = accounts
        self._github_host = github_host
        self._reach = reach
        self._known_hosts = data / "known_hosts"
        self._lent_folder = MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else data / "secrets"
        # The same for each start on this data folder, so that a start finds what a killed process left.
        self._lent_prefix = f"errand-key-{hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]}-"

    def prepare(self) -> None:
        """Take away what a killed process had lent."""
        for left in self._lent_folder.glob(f"{self._lent_prefix}*"):
            shutil.rmtree(left, ignore_errors=True)

    async def has_own(self, address: Address, user: str) -> bool:
        """Whether the user sees what is at the address with the own account there, and so maybe more than others."""
        return self._is_github(address) and address.scheme != "ssh" and await self._accounts.is_linked(user)

    @asynccontextmanager
    async def lend(self, address: Address) -> AsyncIterator[Remote]:
        """The remote at `address`, with its host's credential for as long as the block lasts. Refused for a host that
        the address's user may not reach."""
        if address.scheme == "path":
            yield Remote(url=address.url, protocols=address.protocols, place=address.url)
            return
        addresses = await self._reach.addresses(address)
        if address.scheme == "ssh":
            credential = await self._given(address.host, is_owner=address.for_owner)
            with self._key_on_disk(address, credential) as key:
                command = self._ssh_command(key, ssh_options(address, addresses))
                yield _by_ssh(address, command, has_credential=key is not None)
        else:
            user = OWNER if address.for_owner else address.private_to
            async with self._token(address, user) as credential:
                yield _by_http(address, credential, http_settings(address, addresses))

    @asynccontextmanager
    async def lend_token(self, address: Address, user: str) -> AsyncIterator[str]:
        """The token for the API of the address's host, for as long as the block lasts; empty when there is none."""
        async with self._token(address, user) as credential:
            yield credential.secret if credential and credential.kind == HostKind.TOKEN else ""

    @asynccontextmanager
    async def _token(self, address: Address, user: str) -> AsyncIterator[Credential | None]:
        """The user's own account comes first: what it may not, no credential of the owner's may for it."""
        async with self._accounts.lend(user if self._is_github(address) else "") as token:
            if token:
                yield Credential(address.host, HostKind.TOKEN, DEFAULT_USERNAME, token, is_own=True)
            else:
                yield await self._given(address.host, is_owner=address.for_owner)

    def _is_github(self, address: Address) -> bool:
        return address.host == self._github_host

    async def _given(self, host: str, *, is_owner: bool) -> Credential | None:
        sealed = (await self._logs.read(OWNER)).hosts.get(host)
        if sealed is None or not (sealed.shared or is_owner):
            return None
        try:
            secret = self._vault.unseal(host, sealed.sealed)
        except NotOpened:
            raise Refused(
                f"The credential for {host} cannot be opened with this installation's key. "
                f"Give it again with `errand host add {host}`."
            ) from None
        return Credential(host, sealed.kind, sealed.username or DEFAULT_USERNAME, secret)

    @contextmanager
    def _key_on_disk(self, address: Address, credential: Credential | None) -> Iterator[Path | None]:
        if credential is None:
            yield None
            return
        if credential.kind != HostKind.SSH_KEY:
            raise Refused(
                f"Errand has a token for {address.host}, which an ssh address cannot use. Give the repository's https "
                f"address, or a key with `errand host add {address.host}`."
            )
        with tempfile.TemporaryDirectory(prefix=self._lent_prefix, dir=self._lent_folder) as folder:  # mode 0700
            key = Path(folder) / "key"
            write_secret(key, credential.secret.strip() + "\n")
            yield key

    def _ssh_command(self, key: Path | None, more: Sequence[str]) -> str:
        # ssh splits the values of its options once more, by its own rules.
        identity = f'IdentityFile="{key}"' if key else "IdentityFile=none"
        options = (f'UserKnownHostsFile="{self._known_hosts}"', identity, *more)
        return shlex.join([*SSH, *(word for option in options for word in ("-o", option))])


def _by_ssh(address: Address, command: str, *, has_credential: bool) -> Remote:
    return Remote(
        url=address.url,
        protocols=address.protocols,
        place=address.host,
        environment={"GIT_SSH_COMMAND": command, "GIT_SSH_VARIANT": "ssh"},
        has_credential=has_credential,
    )


def _by_http(address: Address, credential: Credential | None, settings: Mapping[str, str]) -> Remote:
    remote = Remote(url=address.url, protocols=address.protocols, place=address.host, settings=settings)
    if credential is None or credential.kind != HostKind.TOKEN:
        return remote
    return Remote(
        url=address.url,
        protocols=address.protocols,
        place=address.host,
        environment={"ERRAND_GIT_USERNAME": credential.username, "ERRAND_GIT_PASSWORD": credential.secret},
        settings={**settings, f"credential.{address.scheme}://{address.host}.helper": HELPER},
        secrets=(credential.secret,),
        has_credential=True,
        is_own_account=credential.is_own,
    )
