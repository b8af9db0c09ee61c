"""`errand up`: the whole house on this machine, in one data folder, with no account needed."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import anyio.abc
import msgspec
from msgspec import Struct

from protocol.cells import Cell, CellName
from protocol.routes import Service
from services import listening, nats_server
from services.background import background
from services.config import from_environment
from services.supervisor import Program, Supervisor

SERVICES = (Service.SCHEDULER, Service.REPOS, Service.HISTORY, Service.RUNNER, Service.GATEWAY)
"""In the order of start; each waits for what it needs."""

PYTHON = (sys.executable, "-P", "-m")
"""`-P`: what lies in the folder one happens to stand in is not imported."""
INHERITED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "DOCKER_HOST",
        "XDG_RUNTIME_DIR",
        "VIRTUAL_ENV",
        "PYTHONPATH",
        "PYTHONPYCACHEPREFIX",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "GIT_SSL_CAINFO",
        "REQUESTS_CA_BUNDLE",
    }
)


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
ROOM_BYTES = 16 * 1024 * 1024
"""With less room no service comes up, and none could log why."""
HOPELESS_DEATHS = 3
LOG_LINES = 5
NATS_SECONDS = 3.0
"""For a NATS server that was there before us to answer; our own gets as long as everything else."""


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
    allow_http: bool = False
    """Listen beyond loopback by plain HTTP."""


class Place(Struct, frozen=True):
    """What the supervisor, which does not speak to NATS, must know of it."""

    cell: CellName = ""


class Welcome(Struct, frozen=True, kw_only=True):
    """What `services.welcome` found once everything takes work."""

    link: str
    notices: tuple[str, ...] = ()


class Ready(Struct, frozen=True, kw_only=True):
    """What `errand up` says once every service takes work; `--json` prints it as a line."""

    server: str
    """Where this machine reaches it."""
    link: str
    seconds: float
    reach: str = ""
    """Who else reaches it, and what does not work at that address."""
    notices: tuple[str, ...] = ()
    pids: dict[str, int] = {}
    ready: bool = True


def run(settings: Settings, environment: Mapping[str, str], announce: Callable[[Ready], None]) -> None:
    """Run until SIGINT, by which a person ends it, or SIGTERM, after which it may come back at once. `announce(ready)`
    is called once everything takes work. Raises CannotStart."""
    try:
        _run_alone(settings, environment, announce)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise CannotStart(_no_room(settings.data)) from None


def _run_alone(settings: Settings, environment: Mapping[str, str], announce: Callable[[Ready], None]) -> None:
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        (settings.data / "lock").touch()
    except OSError as error:
        if error.errno in FULL:
            raise
        raise CannotStart(
            f"{settings.data} cannot be written ({error.strerror}): choose another with --data."
        ) from None
    if shutil.disk_usage(settings.data).free < ROOM_BYTES:
        raise CannotStart(_no_room(settings.data))
    with _only_one(settings.data):
        try:
            anyio.run(_run, settings, environment, announce)
        except BaseExceptionGroup as group:
            raise _first(group) from None


async def _run(settings: Settings, environment: Mapping[str, str], announce: Callable[[Ready], None]) -> None:
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
                    announce(ready)

            async def stop_on_signal() -> None:
                number = await anext(aiter(signals))
                starting.cancel()
                await supervisor.stop(number)
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
        self._cell = Cell(from_environment(Place, environment).cell)
        self._scripted_url = ""
        self._port = settings.port or free_port()
        self.server = listening.local_url(settings.bind, self._port)
        self.url = settings.public_url or _url_for_phones(settings.bind, self._port)
        if reason := self._why_not(settings):
            raise CannotStart(reason)

    def _why_not(self, settings: Settings) -> str:
        reason = listening.refusal(settings.bind, settings.public_url, allow_http=settings.allow_http)
        return reason or _why_taken(settings.bind, self._port)

    def start(self, supervisor: Supervisor) -> None:
        nats_server.make_passwords(self._data)
        (self._data / "logs").mkdir(exist_ok=True)
        port = free_port() if _why_taken("127.0.0.1", 4222) else 4222
        # Also written where another server is used: its operator installs the users that it lists.
        config = nats_server.write_config(self._data, port, (self._data, self._cell))
        if not self._nats_url:
            self._nats_url = f"nats://127.0.0.1:{port}"
            supervisor.start(self._program("nats", [nats_server.program(), "-c", str(config)], {}))
        (self._data / "nats-url").write_text(self._nats_url)
        if not self._key and not self._environment.get("ERRAND_MODEL_URL"):
            model_port = free_port()
            self._scripted_url = f"http://127.0.0.1:{model_port}"
            command = [*PYTHON, "agents.models.scripted", "--port", str(model_port)]
            supervisor.start(self._program("model", command, {}))
        for service in SERVICES:
            module = "gateway" if service is Service.GATEWAY else f"services.{service}"
            command = [*PYTHON, module]
            supervisor.start(self._program(service, command, self._service_settings(service)))

    def _service_settings(self, service: Service) -> dict[str, str]:
        told = {
            "ERRAND_DATA": str(self._data),
            "ERRAND_NATS_URL": self._nats_url,
            "ERRAND_NATS_PASSWORD_FILE": str(nats_server.password_file(self._data, service)),
        }
        if service is Service.GATEWAY:
            told |= {
                "ERRAND_BIND": self._settings.bind,
                "ERRAND_PORT": str(self._port),
                "ERRAND_PUBLIC_URL": self.url,
                "ERRAND_ALLOW_HTTP": str(int(self._settings.allow_http)),
            }
        if service is Service.REPOS and self._settings.public_url:
            told["ERRAND_PUBLIC_URL"] = self._settings.public_url
        if service is Service.RUNNER:
            if self._key:
                told["ANTHROPIC_API_KEY"] = self._key
            elif self._scripted_url:
                told |= {"ERRAND_MODEL_URL": self._scripted_url, "ERRAND_SCRIPTED": "1", "ERRAND_MODEL": "scripted"}
        return told

    def _program(self, name: str, command: list[str], told: dict[str, str]) -> Program:
        environment = {**inherited(self._environment), **told}
        return Program(name=name, command=command, environment=environment, log=self._data / "logs" / f"{name}.log")

    async def wait_until_ready(self, supervisor: Supervisor, began: float) -> Ready:
        """Return when every service takes work and this machine is signed in. Raises CannotStart, with why not."""
        told = {
            "ERRAND_DATA": str(self._data),
            "ERRAND_NATS_URL": self._nats_url,
            "ERRAND_NATS_PASSWORD_FILE": str(nats_server.password_file(self._data, Service.OPERATOR)),
            "ERRAND_SERVER": self.server,
            "ERRAND_PUBLIC_URL": self.url,
        }
        if self._environment.get("ERRAND_NATS_URL"):
            told["ERRAND_NATS_SECONDS"] = str(NATS_SECONDS)
        # In a process of its own, which ends: what it imports would weigh on this one for as long as the house stands.
        async with background() as group:
            group.start_soon(_until_hopeless, supervisor)
            done = await anyio.run_process(
                [*PYTHON, "services.welcome"], env={**inherited(self._environment), **told}, check=False
            )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()[-2000:]
            raise CannotStart(said + _log_of(supervisor, done.stdout.decode().strip()))
        welcome = msgspec.json.decode(done.stdout, type=Welcome)
        return Ready(
            server=self.server,
            link=welcome.link,
            reach=listening.what_works(self.url),
            notices=welcome.notices,
            seconds=round(time.monotonic() - began, 2),
            pids=supervisor.pids(),
        )


async def _until_hopeless(supervisor: Supervisor) -> None:
    """Raise CannotStart once a program has died again and again before the house stood, as with a wrong setting."""
    while True:
        for name, times in supervisor.deaths.items():
            if times >= HOPELESS_DEATHS:
                raise CannotStart(f"{name} does not start.{_log_of(supervisor, name)}")
        await anyio.sleep(0.05)


def _no_room(data: Path) -> str:
    return f"The disk of {data} is full: make room there, or choose another folder with --data."


def _log_of(supervisor: Supervisor, name: str) -> str:
    """The end of what a program has logged, to stand behind a sentence; empty where there is nothing."""
    lines = supervisor.said(name)[-LOG_LINES:]
    return "".join([" Its log says:", *(f"\n  {line[:300]}" for line in lines)]) if lines else ""


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


def _first(group: BaseExceptionGroup) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a service gets of the user's environment: nobody knows what secrets the rest of it holds."""
    return {name: value for name, value in environment.items() if name in INHERITED or name.startswith("ERRAND_")}


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _why_taken(bind: str, port: int) -> str:
    """Why nobody can listen there; empty where one can."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with closing(socket.socket(family)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bind, port))
        except OSError as error:
            return _said(error, bind, port)
        return ""


def _said(error: OSError, bind: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {bind} is taken: choose another with --port."
    if error.errno == errno.EACCES:
        return f"Port {port} needs root: choose one from 1024 up with --port."
    return f"{bind} is no address of this machine: choose another with --bind."


def _url_for_phones(bind: str, port: int) -> str:
    """Of the addresses that `bind` stands for, the one that leads out of this machine."""
    if bind not in listening.ANY:
        return listening.url_of(bind, port)
    family, elsewhere = (socket.AF_INET6, "2001:db8::1") if ":" in bind else (socket.AF_INET, "192.0.2.1")
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as asking:
        try:
            asking.connect((elsewhere, 9))  # of UDP this sends nothing
        except OSError:
            return listening.local_url(bind, port)
        return listening.url_of(asking.getsockname()[0], port)
