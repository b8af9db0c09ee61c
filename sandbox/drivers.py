"""Which driver new attempts get. It may change while the runner lives: an engine comes up, an image has been made."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from sandbox.bubblewrap import Bubblewrap
from sandbox.config import DOCKER_HOST, Config, egress, limits, only_docker_has, setup_rules
from sandbox.contract import LOOKING, Capabilities, Driver, ImageMissing, SandboxUnavailable
from sandbox.egress.policy import Egress, words_of
from sandbox.limits import MIB
from sandbox.owners import Owners
from sandbox.register import Register
from sandbox.setup import Setups
from sandbox.unsandboxed import Unsandboxed
from sandbox.warm import Warm

if TYPE_CHECKING:
    from sandbox.docker import Docker

LOOK_SECONDS = 5.0
"""How often it is looked again for a better driver, and for containers that nobody holds. Less than the tries of a turn
take whose engine has gone away."""
STEP = re.compile(r"Step (\S+) :")
BUILD_AGAIN_SECONDS = 600.0
"""The wait after an image that could not be made."""


class Drivers:
    """The drivers that a setting allows, the one in use, and why it is that one. `auto` never means unsandboxed."""

    def __init__(self, config: Config, data: Path, docker_host: str = "") -> None:
        """`data` is the installation's data folder, `docker_host` as in DOCKER_HOST."""
        self._config = config
        self._data = data
        self._host = docker_host or DOCKER_HOST
        # A name that no runner has had: in a container the next one has the same host and process id.
        self._owners = Owners(data / "sandbox", f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}")
        self._docker: Warm[Docker] | None = None
        self._docker_found = anyio.Event()
        self._other = self._without_engine()
        self.able: Capabilities | None = None
        """What the one in use gives."""
        self.driver: Driver | None = None
        """For new attempts; None while there is none."""
        self.why = LOOKING
        """Why this one, or why there is none: for the user."""
        self.notice = ""
        """What every user should know, while there is something."""
        self.found = anyio.Event()
        """Set once there is a driver."""

    @property
    def egress(self) -> Egress:
        """What new sandboxes can reach of the network: nothing where the driver cannot hold them to it."""
        return egress(self._config) if self.able is not None and self.able.egress else Egress()

    @property
    def ignored_bytes(self) -> int:
        """How much of what git ignores is saved with a task's work."""
        return self._config.sandbox_ignored_mib * MIB

    @property
    def wants_egress(self) -> bool:
        """Whether the settings name anything to reach."""
        return bool(words_of(self._config.sandbox_egress))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What who runs this machine should mend."""
        return self.able.warnings if self.able is not None else ()

    async def keep(self, tell: Callable[[str, str], None]) -> None:
        """Look from time to time, make a missing image, keep sandboxes warm, remove what nobody holds, until
        cancelled. Whenever something else is found, `tell` is called with the driver's name, or nothing, and why."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_docker_warm)
            if isinstance(self._other, Warm):
                group.start_soon(self._other.keep)
            told: tuple[object, ...] = ("", "", ())
            while True:
                is_missing = await self._look_and_sweep()
                name = self.driver.name if self.driver else ""
                if told != (now := (name, self.why, self.warnings)):
                    tell(name, self.why)
                    told = now
                await anyio.sleep(await self._make_image() if is_missing else LOOK_SECONDS)

    def rest(self) -> None:
        """No new task comes: start nothing ahead of one."""
        for driver in (self._docker, self._other):
            if isinstance(driver, Warm):
                driver.rest()

    async def look(self) -> None:
        """Find the best driver that works at this moment. ImageMissing where Docker would, if it had its image."""
        if self._config.sandbox in ("auto", "docker"):
            try:
                docker = self._found_docker()
                return self._use(docker, f"Docker Engine answers at {self._host}", await docker.capabilities())
            except ImageMissing as error:
                await self._use_other(str(error))
                self.notice = self._waiting(str(error))
                raise
            except SandboxUnavailable as error:
                return await self._use_other(str(error))
            except OSError as error:
                trouble = f"{error.filename} cannot be used ({error.strerror}): give it to the user who runs Errand"
                return await self._use_other(trouble)
        return await self._use_other("as ERRAND_SANDBOX says")

    def image_is_being_made(self) -> bool:
        """By whichever process of this installation."""
        return self._docker is not None and self._docker.driver.image.is_being_made()

    def setups(self) -> list[Setups]:
        """Where this machine keeps what set-ups left: in a folder, and in an engine where there is one."""
        found = [self._other.driver.setups] if isinstance(self._other, Warm) else []
        if self._config.sandbox in ("auto", "docker"):
            with suppress(SandboxUnavailable):
                found.append(self._found_docker().driver.setups)
        return [setups for setups in found if setups is not None]

    async def close(self) -> None:
        """When all sandboxes have stopped."""
        with anyio.CancelScope(shield=True):
            for driver in (self._docker, self._other):
                if isinstance(driver, Warm):
                    await driver.driver.close()

    async def _keep_docker_warm(self) -> None:
        await self._docker_found.wait()
        assert self._docker is not None
        await self._docker.keep()

    def _found_docker(self) -> Warm[Docker]:
        """Imported only where there may be an engine: machines without one do not pay for it."""
        if self._docker is None:
            socket_path = Path(self._host.removeprefix("unix://"))
            if self._host.startswith("unix://") and not socket_path.exists():
                raise SandboxUnavailable(f"there is no Docker Engine at {socket_path}")
            from sandbox.docker import connect_as

            self._owners.hold()
            docker = connect_as(self._config, self._host, self._owners)
            self._docker = Warm(docker, self._config.sandbox_warm, self._config.sandbox_warm_seconds)
        return self._docker

    async def _use_other(self, why: str) -> None:
        if self._other is None:
            wish = only_docker_has(self._config) if self._config.sandbox == "auto" else ""
            asked = f" {wish} asks for Docker: tasks wait for it, and ERRAND_SANDBOX=bubblewrap gives that up"
            return self._use(None, f"{why}.{asked}" if wish else why)
        try:
            able = await self._other.capabilities()
        except SandboxUnavailable as error:
            return self._use(None, f"{why}. {error}" if self._config.sandbox == "auto" else str(error))
        return self._use(self._other, why, able)

    def _use(self, driver: Driver | None, why: str, able: Capabilities | None = None) -> None:
        self.driver, self.why, self.able = driver, why, able
        if driver is not None and driver is self._docker:
            self.notice = ""
            self._docker_found.set()
        if driver is not None:
            self.found.set()
        elif self.found.is_set():
            self.found = anyio.Event()

    async def _make_image(self) -> float:
        """Returns after how many seconds to look again."""
        assert self._docker is not None
        if not self._config.sandbox_build:
            self.notice = self._waiting(f"{self.why}: `python -m sandbox.image` does it")
            return LOOK_SECONDS
        try:
            async for line in self._docker.driver.image.make():
                if step := STEP.match(line):
                    self.notice = self._waiting(f"the Docker sandbox's image is being made (step {step[1]})")
        except SandboxUnavailable as error:
            self.notice = self._waiting(str(error))
            return BUILD_AGAIN_SECONDS
        return 0

    def _waiting(self, for_what: str) -> str:
        meanwhile = "run in bubblewrap" if self.driver else "wait"
        return f"{for_what[0].upper()}{for_what[1:]}. Until then tasks {meanwhile}."

    async def _look_and_sweep(self) -> bool:
        """Whether an image is missing."""
        try:
            await self.look()
        except ImageMissing:
            return True
        if self._docker is not None and self.driver is self._docker:
            await self._docker.sweep()
        if self._other is not None:  # it may be what was in use before
            await self._other.sweep()
        return False

    def _without_engine(self) -> Driver | None:
        match self._config.sandbox:
            case "auto" if only_docker_has(self._config):
                return None
            case "auto" | "bubblewrap":
                register = Register(self._owners, Bubblewrap.name, self._config.sandbox_lease_seconds)
                rules = setup_rules(self._config)
                driver = Bubblewrap(limits(self._config), register, folder=self._data / "sandbox", rules=rules)
                return Warm(driver, self._config.sandbox_warm, self._config.sandbox_warm_seconds)
            case "unsandboxed":
                return Unsandboxed()
            case "docker":
                return None
