"""The repos service on a real nats-server, real repositories, and a real git server over HTTP with a password."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio

from protocol.repo import AskSealingKey, BaseResolved, PrepareWorkspace, ResolveBase, SealingKey, WorkspacePrepared
from protocol.routes import Service, Stream, decision_subject, user_decision_subject
from protocol.task import AnyTaskEvent, Decision, TaskState, TaskSubmitted
from protocol.user import AnyUserEvent, HostAdded, HostKind, UserDecision
from services import envelope
from services.bus import Bus, connect
from services.github import GithubConfig
from services.repos.service import Config, Repos
from tests.integration.nats_house import NatsHouse
from tests.missing import missing

IDENTITY = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_{what}": "test@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def need_git_over_http() -> None:
    """Skip, or fail in CI, where git's own HTTP server part is not installed."""
    folder = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    if not (Path(folder) / "git-http-backend").exists():
        message = "git http-backend is missing: `apt install git`"
        missing(message)


def git(folder: Path, *arguments: str, data: bytes = b"", environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, input=data, capture_output=True, env={**IDENTITY, **(environment or {})}
    )
    assert done.returncode == 0, f"git {arguments}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


def make_origin(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """A bare repository with one commit on `main`."""
    work = folder.with_name(folder.name + ".work")
    work.mkdir(parents=True)
    git(work, "init", "-q", "-b", "main")
    add_commit(work, files or {"AGENTS.md": "Run the tests.\n", "src/one.py": "x = 1\n"}, "first")
    git(work, "clone", "-q", "--bare", str(work), str(folder))
    git(folder, "config", "http.receivepack", "true")
    return folder


def add_commit(work: Path, files: Mapping[str, str], message: str = "more") -> str:
    for name, text in files.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    git(work, "add", "-A")
    git(work, "commit", "-q", "--allow-empty", "-m", message)
    return git(work, "rev-parse", "HEAD")


def push_commit(origin: Path, files: Mapping[str, str], branch: str = "main") -> str:
    """Somebody else pushes to the origin."""
    work = origin.with_name(origin.name + ".work")
    commit = add_commit(work, files)
    git(work, "push", "-q", str(origin), f"HEAD:refs/heads/{branch}")
    return commit


def bundle(folder: Path, commit: str, base: str) -> bytes:
    """As a sandbox's checkpoint makes it."""
    git(folder, "update-ref", "refs/errand/checkpoint", commit)
    git(folder, "bundle", "create", "-q", "out.bundle", "refs/errand/checkpoint", f"^{base}")
    return (folder / "out.bundle").read_bytes()


class GitServer:
    """`git http-backend` behind a password. Counts fetches, and can hold them back or send them elsewhere."""

    def __init__(self, root: Path, token: str = "", bind: str = "127.0.0.1") -> None:
        self.token = token
        self.seen_authorizations: list[str] = []
        self.listings = 0
        self.redirect_to = ""
        self.hold = threading.Event()
        self.hold.set()
        self.held = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                # Git that was stopped reads no answer.
                with suppress(ConnectionError):
                    server._answer(self, root)

            do_POST = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer((bind, 0), Handler)
        self._http.daemon_threads = True
        self.host = f"{bind}:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, origin: Path) -> str:
        return f"http://{self.host}/{origin.name}"

    def stop(self) -> None:
        self.hold.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, root: Path) -> None:
        authorization = request.headers.get("Authorization", "")
        self.seen_authorizations.append(authorization)
        body = self._body(request)
        if self.token and _password(authorization) != self.token:
            return self._plain(request, 401, {"WWW-Authenticate": 'Basic realm="git"'})
        if self.redirect_to:
            return self._plain(request, 302, {"Location": self.redirect_to + request.path})
        self.held.set()
        self.hold.wait()
        path, _, query = request.path.partition("?")
        self.listings += query == "service=git-upload-pack"
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": request.command,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "REMOTE_USER": "someone",
                "REMOTE_ADDR": "127.0.0.1",
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        status = int(headers.pop("Status", "200").split()[0])
        return self._plain(request, status, headers, content)

    def _body(self, request: BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Transfer-Encoding") != "chunked":
            return request.rfile.read(int(request.headers.get("Content-Length", 0)))
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return body

    def _plain(
        self, request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], content: bytes = b""
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


def _password(authorization: str) -> str:
    kind, _, value = authorization.partition(" ")
    return base64.b64decode(value).decode().partition(":")[2] if kind == "Basic" else ""


@contextmanager
def git_server(root: Path, token: str = "", bind: str = "127.0.0.1") -> Iterator[GitServer]:
    need_git_over_http()
    server = GitServer(root, token, bind)
    try:
        yield server
    finally:
        server.stop()


def command_lines() -> list[str]:
    """Of every process of the machine, as anybody can read them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


class Asker:
    """Who asks a repos service."""

    def __init__(self, data: Path, runner: Bus, gateway: Bus, scheduler: Bus) -> None:
        self.data = data
        self.runner = runner
        self.gateway = gateway
        self._scheduler = scheduler

    async def resolve(
        self, repository: str | Path, base: str = "", *, task: str = "t1", is_owner: bool = True
    ) -> BaseResolved:
        asked = ResolveBase(task=task, repository=str(repository), base=base, is_owner=is_owner)
        return await self.runner.ask(Service.REPOS, asked, BaseResolved, timeout_seconds=30)

    async def prepare(
        self, repository: str | Path, commit: str, *, task: str = "t1", attempt: int = 1
    ) -> WorkspacePrepared:
        asked = PrepareWorkspace(
            task=task, attempt=attempt, repository=str(repository), commit=commit, branch=f"errand/{task}-work"
        )
        return await self.runner.ask(Service.REPOS, asked, WorkspacePrepared, timeout_seconds=30)

    async def add_host(
        self, host: str, secret: str, *, kind: str = "token", sealed_for: str = "", shared: bool = False
    ) -> None:
        """What the gateway and the scheduler do with `errand host add`."""
        key = await self.gateway.ask(Service.REPOS, AskSealingKey(), SealingKey)
        sealed = envelope.seal(key.public_key, sealed_for or host, secret)
        await self.decide(HostAdded(host=host, kind=HostKind(kind), sealed=sealed, shared=shared))

    async def submit(self, user: str, task: str, repository: str | Path, *more: AnyTaskEvent) -> None:
        """A task that the stream has, and what became of it."""
        submitted = TaskSubmitted(prompt="x", repository=str(repository), title="x")
        decision = Decision(state=TaskState.QUEUED, at=datetime.now(UTC), events=(submitted, *more))
        await self._scheduler.publish(decision_subject(user, task, TaskState.QUEUED), decision)

    async def decide(self, event: AnyUserEvent, *, user: str = "owner") -> None:
        decision = UserDecision(at=datetime.now(UTC), events=(event,))
        await self._scheduler.publish(user_decision_subject(user, decision), decision)


class World(Asker):
    """The repos service in this process, and who asks it."""

    def __init__(self, service: Repos, data: Path, runner: Bus, gateway: Bus, scheduler: Bus) -> None:
        super().__init__(data, runner, gateway, scheduler)
        self.service = service


@asynccontextmanager
async def world(
    house: NatsHouse, data: Path, *, github: GithubConfig | None = None, **settings: object
) -> AsyncIterator[World]:
    """A fresh data folder's service on the house's server, whose streams are emptied first."""
    data.mkdir(parents=True, exist_ok=True)
    async with (
        connect(house.bus_config(Service.SCHEDULER), Service.SCHEDULER) as scheduler,
        connect(house.bus_config(Service.RUNNER), Service.RUNNER) as runner,
        connect(house.bus_config(Service.GATEWAY), Service.GATEWAY) as gateway,
        connect(house.bus_config(Service.REPOS), Service.REPOS) as bus,
    ):
        await scheduler.make_streams()
        await scheduler.purge(Stream.TASKS, "evt.>")
        service = Repos(bus, Config(data=str(data), **settings), github or GithubConfig(), os.environ)
        started = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(service.run, started.set)
            await started.wait()
            yield World(service, data, runner, gateway, scheduler)
            await service.drain()
            group.cancel_scope.cancel()
