"""The gateway as an actor: its parts put together, started in order and drained."""

from __future__ import annotations

import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import anyio

from gateway import app, server
from gateway.config import Config
from gateway.github import GithubDoor
from gateway.live.sockets import Sockets
from gateway.notices import Notices
from gateway.pages import Pages
from gateway.push.courier import Courier
from gateway.push.web_push import WebPush
from gateway.sign_in import Door
from gateway.tasks import Tasks
from gateway.users import Users
from protocol.query import AskHealth, Health
from protocol.routes import Service
from services.actor import healthy
from services.bus import Bus
from services.github import GithubConfig


class Gateway:
    """The phone's door."""

    def __init__(self, config: Config, github: GithubConfig, bus: Bus, bound: socket.socket) -> None:
        self._config = config
        self._github = github
        self._bound = bound
        self._bus = bus
        self._users = Users(bus)
        self._tasks = Tasks(bus, config.repository_cache_seconds)
        self._notices = Notices(bus)
        self._sockets = Sockets(bus, self._users, self._tasks, self._notices, config)
        self._web_push = WebPush(config.push_keys, config.contact, config.push_hosts)
        self._courier = Courier(bus, self._users, self._web_push, config.push_limit)
        self._server: server.Server | None = None
        self._stopped = anyio.Event()

    async def run(self, started: Callable[[], None]) -> None:
        await self._bus.wait_for_streams()
        async with anyio.create_task_group() as group:
            known = anyio.Event()
            group.start_soon(self._users.follow, known.set)
            group.start_soon(self._sockets.run)
            await known.wait()
            group.start_soon(self._courier.run)
            service = await self._bus.serve({AskHealth: self._answer_health}, version=_version())
            self._server = server.make(self._app(), self._config, started)
            await self._server.serve([self._bound])
            await service.stop()
            self._stopped.set()

    async def drain(self, *, for_good: bool = False) -> None:
        if self._server is None:
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self._courier.stop)
            await self._sockets.drain()
            self._server.should_exit = True
            await self._stopped.wait()

    def health(self) -> Health:
        return healthy(Service.GATEWAY, self._bus)

    async def _answer_health(self, _: AskHealth) -> Health:
        return self.health()

    def _app(self) -> app.Litestar:
        url, attempts = self._config.url, self._config.sign_in_attempts
        door = Door(self._users, url, attempts)
        github_door = GithubDoor(self._github, self._users, self._bus, url=url, attempts=attempts)
        return app.make(
            self._config,
            actor=self,
            bus=self._bus,
            users=self._users,
            door=door,
            github_door=github_door,
            tasks_=self._tasks,
            notices=self._notices,
            pages_=Pages(_version()),
            sockets=self._sockets,
            web_push=self._web_push,
        )


def _version() -> str:
    try:
        return version("errand")
    except PackageNotFoundError:
        return "0.0.0"
