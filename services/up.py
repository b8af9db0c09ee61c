"""`errand up`: the whole house on this machine, in one data folder, with no account needed."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
from msgspec import Struct

from protocol.ids import OWNER, token_hash
from protocol.query import AskHealth, Health
from protocol.routes import Service, user_command_subject
from protocol.user import AddDevice, AddUser, CreateSignInCode, Role, UserCommand
from services import log, nats_server
from services.bus import Bus, BusConfig, Refused, Unavailable, connect
from services.supervisor import Program, Supervisor

READY_SECONDS = 60.0
LINK_HOURS = 24
LOCAL_DEVICE = "local"
SERVICES = (Service.SCHEDULER, Service.REPOS, Service.HISTORY, Service.RUNNER, Service.GATEWAY)
"""In the order of start; each waits for what it needs."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class CannotStart(Exception):
    """The message says what to do."""


class Settings(Struct, frozen=True, kw_only=True):
    """How to start."""

    data: Path
    bind: str = "127.0.0.1"
    port: int = 8420
    """Of the gateway; 0 takes a free one."""
    public_url: str = ""
    """Where phones reach the gateway, when that is not `http://<bind>:<port>`."""


class Ready(Struct, frozen=True, kw_only=True):
    """What `errand up` says once every service takes work; `--json` prints it as a line."""

    server: str
    link: str
    seconds: float
    notices: tuple[str, ...] = ()
    pids: dict[str, int] = {}
    ready: bool = True


def run(settings: Settings, environment: Mapping[str, str], announce: object) -> None:
    """Run until SIGINT or SIGTERM. `announce(ready)` is called once everything takes work. Raises CannotStart."""
    log.configure("up", "warning")
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(settings.data):
        try:
            anyio.run(_run, settings, environment, announce)
        except BaseExceptionGroup as group:
            raise _first(group) from None


async def _run(settings: Settings, environment: Mapping[str, str], announce: object) -> None:
    began = time.monotonic()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            supervisor = Supervisor(group)
            house = House(settings, environment)
            starting = anyio.CancelScope()

            async def start() -> None:
                with starting:
                    house.start(supervisor)
                    ready = await house.wait_until_ready(supervisor, began)
                    announce(ready)  # type: ignore[operator]

            async def stop_on_signal() -> None:
                async for _ in signals:
                    break
                starting.cancel()
                await supervisor.stop()
                group.cancel_scope.cancel()

            group.start_soon(stop_on_signal)
            try:
                await start()
            except Exception:
                with anyio.CancelScope(shield=True):
                    await supervisor.stop()
                raise


class House:
    """The programs of one machine and what they are told."""

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._data = settings.data.resolve()
        self._key = environment.get("ANTHROPIC_API_KEY", "")
        self._nats_url = environment.get("ERRAND_NATS_URL", "")
        self._port = settings.port or free_port()
        self.server = f"http://{_host(settings.bind)}:{self._port}"
        if not _is_free(settings.bind, self._port):
            raise CannotStart(f"Port {self._port} on {settings.bind} is taken: choose another with --port.")

    def start(self, supervisor: Supervisor) -> None:
        nats_server.make_passwords(self._data)
        (self._data / "logs").mkdir(exist_ok=True)
        if not self._nats_url:
            port = 4222 if _is_free("127.0.0.1", 4222) else free_port()
            self._nats_url = f"nats://127.0.0.1:{port}"
            config = nats_server.write_config(self._data, port)
            supervisor.start(self._program("nats", [nats_server.program(), "-c", str(config)], {}))
        (self._data / "nats-url").write_text(self._nats_url)
        if not self._key and not self._environment.get("ERRAND_MODEL_URL"):
            model_port = free_port()
            self._scripted_url = f"http://127.0.0.1:{model_port}"
            command = [sys.executable, "-m", "agents.models.scripted", "--port", str(model_port)]
            supervisor.start(self._program("model", command, {}))
        for service in SERVICES:
            module = "gateway" if service is Service.GATEWAY else f"services.{service}"
            command = [sys.executable, "-m", module]
            supervisor.start(self._program(service, command, self._service_settings(service)))

    def _service_settings(self, service: Service) -> dict[str, str]:
        told = {
            "ERRAND_DATA": str(self._data),
            "ERRAND_NATS_URL": self._nats_url,
            "ERRAND_NATS_PASSWORD_FILE": str(nats_server.password_file(self._data, service)),
        }
        if service is Service.GATEWAY:
            told |= {"ERRAND_BIND": self._settings.bind, "ERRAND_PORT": str(self._port)}
            if self._settings.public_url:
                told["ERRAND_PUBLIC_URL"] = self._settings.public_url
        if service is Service.RUNNER:
            if self._key:
                told["ANTHROPIC_API_KEY"] = self._key
            elif hasattr(self, "_scripted_url"):
                told |= {"ERRAND_MODEL_URL": self._scripted_url, "ERRAND_SCRIPTED": "1", "ERRAND_MODEL": "scripted"}
        return told

    def _program(self, name: str, command: list[str], told: dict[str, str]) -> Program:
        # Nobody but the runner sees the key of the model's API.
        inherited = {key: value for key, value in self._environment.items() if key != "ANTHROPIC_API_KEY"}
        environment = {**inherited, **told}
        return Program(name=name, command=command, environment=environment, log=self._data / "logs" / f"{name}.log")

    async def wait_until_ready(self, supervisor: Supervisor, began: float) -> Ready:
        """Sign this machine in and return when every service takes work. Raises CannotStart with the one that does not."""
        config = BusConfig(
            nats_url=self._nats_url,
            nats_password_file=str(nats_server.password_file(self._data, Service.OPERATOR)),
        )
        waiting_for = "nats"
        try:
            with anyio.fail_after(READY_SECONDS):
                async with _connected(config) as bus:
                    await bus.make_streams()
                    link = await self._sign_in(bus)
                    notices: tuple[str, ...] = ()
                    for service in SERVICES:
                        waiting_for = service.value
                        notices += await _until_healthy(bus, service)
                    waiting_for = "gateway"
                    await anyio.to_thread.run_sync(_until_signed_in, self.server, self._token)
        except TimeoutError:
            raise CannotStart(_why_not(self._data, waiting_for)) from None
        seconds = round(time.monotonic() - began, 2)
        return Ready(server=self.server, link=link, seconds=seconds, notices=notices, pids=supervisor.pids())

    async def _sign_in(self, bus: Bus) -> str:
        """Make the owner, sign this machine in for the command line, and return a one-time link for a phone."""
        client = self._data / "client.json"
        self._token = _token_of(client) or secrets.token_urlsafe(32)
        code = f"{OWNER}.{secrets.token_urlsafe(24)}"
        hashed = token_hash(self._token)
        expires = datetime.now(UTC) + timedelta(hours=LINK_HOURS)
        commands: tuple[UserCommand, ...] = (
            AddUser(key="owner", name="owner", role=Role.OWNER),
            AddDevice(
                key=f"local-{hashed[:16]}", device=LOCAL_DEVICE, device_name=socket.gethostname(), token_hash=hashed
            ),
            CreateSignInCode(key=f"up-{token_hash(code)[:16]}", code_hash=token_hash(code), expires_at=expires),
        )
        for command in commands:
            await bus.publish(user_command_subject(OWNER, command), command)
        text = msgspec.json.encode({"server": self.server, "token": self._token}).decode()
        nats_server.write_secret(client, text)
        return f"{self._settings.public_url or self.server}/#code={code}"


@contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Two houses over one data folder would fight over the store."""
    with (data / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip()
            raise CannotStart(f"Errand runs already over {data} (process {pid}): stop it, or use --data.") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class _connected:
    """A connection as the operator, tried until the server takes it."""

    def __init__(self, config: BusConfig) -> None:
        self._config = config

    async def __aenter__(self) -> Bus:
        while True:
            self._context = connect(self._config, Service.OPERATOR)
            with suppress(Unavailable):
                return await self._context.__aenter__()
            await anyio.sleep(0.02)

    async def __aexit__(self, *error: object) -> None:
        await self._context.__aexit__(None, None, None)


async def _until_healthy(bus: Bus, service: Service) -> tuple[str, ...]:
    """Return the service's notices once it takes work."""
    while True:
        with suppress(Unavailable, Refused):
            health = await _ask_health(bus, service)
            if health.healthy and health.detail != "standby":
                return health.notices
        await anyio.sleep(0.02)


async def _ask_health(bus: Bus, service: Service) -> Health:
    return await bus.ask(service, AskHealth(), Health, timeout_seconds=2)


def _until_signed_in(server: str, token: str) -> None:
    """The last proof: this machine's own token opens the door."""
    request = urllib.request.Request(f"{server}/api/me", headers={"Authorization": f"Bearer {token}"})
    for _ in range(200):
        with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=2):
            return
        time.sleep(0.02)


def _why_not(data: Path, name: str) -> str:
    lines = []
    with suppress(OSError):
        lines = (data / "logs" / f"{name}.log").read_text(errors="replace").splitlines()[-5:]
    told = "\n".join(f"  {line[:300]}" for line in lines)
    return f"{name} did not start within {READY_SECONDS:g} s. Its log, {data}/logs/{name}.log, ends with:\n{told}"


def _token_of(client: Path) -> str:
    with suppress(OSError, ValueError, msgspec.MsgspecError):
        return str(msgspec.json.decode(client.read_bytes()).get("token", ""))
    return ""


def _first(group: BaseExceptionGroup) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _is_free(bind: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with closing(socket.socket(family)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bind, port))
        except OSError:
            return False
        return True


def _host(bind: str) -> str:
    return f"[{bind}]" if ":" in bind else bind
