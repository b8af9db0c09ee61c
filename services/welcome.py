"""Signs the owner's machine in and says when every service takes work. `errand up` runs it and waits for its answer."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from protocol.ids import OWNER, token_hash
from protocol.query import AskHealth, Health
from protocol.routes import Service, user_command_subject
from protocol.user import AddDevice, AddUser, CreateSignInCode, Role, UserCommand
from sandbox.contract import LOOKING
from services import log
from services.bus import Bus, BusConfig, Refused, Unavailable, connect
from services.config import Seconds, from_environment
from services.secrets_file import write_secret
from services.up import SERVICES, Welcome

READY_SECONDS = 60.0
AGAIN_SECONDS = 0.02
SURE_SECONDS = 2.0
"""A runner that has found no sandbox for so long will find none before somebody does something."""
LINK_HOURS = 24
LOCAL_DEVICE = "local"


class Config(Struct, frozen=True, kw_only=True):
    """What `errand up` tells."""

    data: str
    server: str
    public_url: str = ""
    nats_seconds: Seconds = READY_SECONDS
    """How long NATS may be away."""


class NotReady(Exception):
    """Some service takes no work yet; the message says which."""

    def __init__(self, message: str, log: str = "") -> None:
        """`log`: the service whose log may tell more."""
        super().__init__(message)
        self.log = log


class Welcomer:
    """Makes the owner, signs this machine in, waits for the services."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client = Path(config.data) / "client.json"
        self._token = _token_of(self._client) or secrets.token_urlsafe(32)
        self.waiting_for = "nats"
        """The service that was not ready yet when last looked."""
        self.why = ""
        """What it says itself, where it says something."""

    async def welcome(self, bus_config: BusConfig) -> Welcome:
        async with _connected(bus_config, self._config.nats_seconds) as bus:
            await bus.make_streams()
            link = await self._sign_in(bus)
            notices: tuple[str, ...] = ()
            for service in SERVICES:
                self.waiting_for = service.value
                notices += await self._until_healthy(bus, service)
        await anyio.to_thread.run_sync(self._until_signed_in, abandon_on_cancel=True)
        return Welcome(link=link, notices=notices)

    async def _sign_in(self, bus: Bus) -> str:
        """Sign this machine in for the command line, and return a one-time link for a phone."""
        code = f"{OWNER}.{secrets.token_urlsafe(24)}"
        hashed, code_hash = token_hash(self._token), token_hash(code)
        expires = datetime.now(UTC) + timedelta(hours=LINK_HOURS)
        name = socket.gethostname()
        commands: tuple[UserCommand, ...] = (
            AddUser(key="owner", name="owner", role=Role.OWNER),
            AddDevice(key=f"local-{hashed[:16]}", device=LOCAL_DEVICE, device_name=name, token_hash=hashed),
            CreateSignInCode(key=f"up-{code_hash[:16]}", code_hash=code_hash, expires_at=expires),
        )
        for command in commands:
            await bus.publish(user_command_subject(OWNER, command), command)
        account = {"server": self._config.server, "token": self._token}
        write_secret(self._client, msgspec.json.encode(account).decode())
        return f"{self._config.public_url or self._config.server}/#code={code}"

    async def _until_healthy(self, bus: Bus, service: Service) -> tuple[str, ...]:
        """Return the service's notices once it takes work. Raises NotReady when the runner has no sandbox."""
        began = anyio.current_time()
        self.why = ""
        while True:
            with suppress(Unavailable, Refused):
                health = await bus.ask(service, AskHealth(), Health, timeout_seconds=2)
                if health.healthy and health.detail != "standby":
                    return health.notices
                self.why = health.detail
            is_sure = self.why not in ("", LOOKING) and anyio.current_time() - began > SURE_SECONDS
            if service is Service.RUNNER and is_sure:
                raise NotReady(f"There is no sandbox for tasks: {self.why.rstrip('.')}. `errand doctor` looks closer.")
            await anyio.sleep(AGAIN_SECONDS)

    def _until_signed_in(self) -> None:
        """The last proof: this machine's own token opens the door."""
        headers = {"Authorization": f"Bearer {self._token}"}
        request = urllib.request.Request(f"{self._config.server}/api/me", headers=headers)
        while True:
            with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=2):
                return
            time.sleep(AGAIN_SECONDS)


@asynccontextmanager
async def _connected(config: BusConfig, seconds: float) -> AsyncIterator[Bus]:
    """A connection as the operator, tried until the server takes it. Raises NotReady when none does in time."""
    deadline = anyio.current_time() + seconds
    while True:
        context = connect(config, Service.OPERATOR)
        try:
            bus = await context.__aenter__()
        except Unavailable as error:
            if anyio.current_time() >= deadline:
                raise NotReady(_no_nats(config.nats_url, str(error))) from None
            await anyio.sleep(AGAIN_SECONDS)
            continue
        try:
            yield bus
        finally:
            await context.__aexit__(None, None, None)
        return


def _no_nats(url: str, why: str) -> str:
    shown = re.sub(r"//[^/@,]*@", "//", url)  # a password may stand there
    if "authorization" in why.lower():
        return (
            f"The NATS server at {shown} (ERRAND_NATS_URL) does not know Errand's users: put those of "
            "`secrets/nats.conf` in the data folder into its `authorization` (docs/running.md)."
        )
    return f"No NATS server answers at {shown} (ERRAND_NATS_URL)."


def _token_of(client: Path) -> str:
    with suppress(OSError, msgspec.MsgspecError, AttributeError):
        return str(msgspec.json.decode(client.read_bytes()).get("token", ""))
    return ""


async def welcome(config: Config, bus_config: BusConfig) -> Welcome:
    """Raises NotReady after `READY_SECONDS`."""
    welcomer = Welcomer(config)
    with anyio.move_on_after(READY_SECONDS):
        return await welcomer.welcome(bus_config)
    name, why = welcomer.waiting_for, f": {welcomer.why}" if welcomer.why else ""
    raise NotReady(f"{name} did not start within {READY_SECONDS:g} s{why}.", log=name)


def from_settings(environment: Mapping[str, str]) -> Welcome:
    """The whole of it, with the settings of this process."""
    log.configure("welcome", "error")
    config, bus_config = from_environment(Config, environment), from_environment(BusConfig, environment)
    return anyio.run(welcome, config, bus_config)


def main() -> int:
    try:
        print(msgspec.json.encode(from_settings(os.environ)).decode())
    except NotReady as error:
        print(error.log)
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
