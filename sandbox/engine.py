"""The Docker Engine of this machine as far as sandboxes need it: the `docker` package, in threads of its own."""

from __future__ import annotations

import errno
import io
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread

from sandbox.contract import SandboxUnavailable

if TYPE_CHECKING:
    from docker import APIClient

ANSWER_SECONDS = 60
"""A start on a busy disk takes long; nothing else does."""
MAKE_SECONDS = 3600
"""How long an image that is being made may say nothing."""
CALLS_AT_ONCE = 16
ANSWER_LIMIT_CHARS = 2000
T = TypeVar("T")


class EngineError(Exception):
    """The engine refused. The message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """One engine. Every method raises SandboxUnavailable when it does not answer, and EngineError when it refuses.

    A call that is cancelled is not waited for, and may still be carried out.
    """

    def __init__(self, host: str) -> None:
        """`host` as in DOCKER_HOST: `unix:///path` or `tcp://host:port`. SandboxUnavailable for what is neither: the
        engine must see this machine's folders."""
        scheme, _, place = host.partition("://")
        if scheme not in ("unix", "tcp") or not place:
            raise SandboxUnavailable(
                f"DOCKER_HOST={host} cannot be used: sandboxes need an engine on this machine, unix:// or tcp://"
            )
        self.host = host
        self._client: APIClient | None = None
        self._threads = anyio.CapacityLimiter(CALLS_AT_ONCE)

    async def version(self) -> dict[str, Any]:
        """Of the engine and its parts: `Version`, `Components`, …"""
        return await self._ask(lambda client: client.version())

    async def about(self) -> dict[str, Any]:
        """The machine as the engine sees it: `MemTotal`, `NCPU`, `SecurityOptions`, `MemoryLimit`, …"""
        return await self._ask(lambda client: client.info())

    async def image(self, name: str) -> dict[str, Any] | None:
        """None when the engine does not have it."""
        return await self._found(lambda client: client.inspect_image(name))

    async def build(
        self,
        name: str,
        context: bytes,
        *,
        dockerfile: str = "Dockerfile",
        labels: Mapping[str, str] | None = None,
        network: str | None = None,
        arguments: Mapping[str, str] | None = None,
    ) -> AsyncIterator[str]:
        """Build `context`, a tar with a Dockerfile; yields what the build says. EngineError when it fails."""
        how: dict[str, Any] = {"custom_context": True, "rm": True, "forcerm": True, "dockerfile": dockerfile}
        how |= {"labels": labels, "network_mode": network, "buildargs": dict(arguments or {})}

        def begin(client: APIClient) -> Iterator[dict[str, Any]]:
            tar = io.BytesIO(context)
            return client.build(fileobj=tar, tag=name, decode=True, **how)

        async for line in self._lines(begin):
            yield line

    async def pull(self, name: str) -> AsyncIterator[str]:
        """Fetch an image that somebody else made."""
        async for line in self._lines(lambda client: client.pull(name, stream=True, decode=True)):
            yield line

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """The new container's id."""
        found: str = (await self._ask(lambda client: client.create_container_from_config(dict(config), name)))["Id"]
        return found

    async def start(self, container: str) -> None:
        await self._ask(lambda client: client.start(container))

    async def attach(self, container: str) -> socket.socket:
        """The stream to the container's stdin, stdout and stderr, before its start so that nothing is missed. Does not
        block; to be closed by the caller."""
        return await self._ask(partial(_attach, container))

    async def relay(self, container: str, command: list[str], uid: int) -> socket.socket:
        """Run a command beside what runs there; the stream to its stdin, stdout and stderr, as `attach`."""
        return await self._ask(partial(_relay, container, command, uid))

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """None when it is gone."""
        return await self._found(lambda client: client.inspect_container(container))

    async def images(self, label: str) -> list[dict[str, Any]]:
        """Those with this label (`name=value`)."""
        return await self._ask(lambda client: client.images(filters={"label": [label]}))

    async def add_files(self, container: str, folder: str, archive: Iterable[bytes]) -> None:
        """Unpack a tar into a folder of a container that is not running."""
        async with self._own_client() as client:
            await self._in_thread(lambda: client.put_archive(container, folder, archive))

    async def commit(self, container: str, repository: str, tag: str, changes: Sequence[str]) -> None:
        """Keep a container as an image, with `changes` as lines of a Dockerfile."""
        async with self._own_client() as client:
            await self._in_thread(lambda: client.commit(container, repository, tag, changes=list(changes)))

    async def remove_image(self, name: str) -> bool:
        """False while a container is made of it; True also when it was gone."""
        try:
            await self._ask(lambda client: client.remove_image(name))
        except EngineError as error:
            if error.status == 409:
                return False
            if error.status != 404:
                raise
        return True

    async def containers(self, label: str) -> list[dict[str, Any]]:
        """Those with this label (`name=value`), whatever their state."""
        return await self._ask(lambda client: client.containers(all=True, filters={"label": [label]}))

    async def rename(self, container: str, name: str) -> None:
        await self._ask(lambda client: client.rename(container, name))

    async def remove(self, container: str) -> None:
        """Kill it and return when it is gone; also when it was."""
        try:
            await self._ask(lambda client: client.remove_container(container, force=True, v=True))
        except EngineError as error:
            if error.status == 409:  # it is being removed, because it has ended
                await self._found(lambda client: client.wait(container, condition="removed"))
            elif error.status != 404:
                raise

    async def unused_volumes(self, label: str) -> list[dict[str, Any]]:
        """Those with this label (`name=value`) that are no container's."""
        filters = {"label": [label], "dangling": True}
        return (await self._ask(lambda client: client.volumes(filters=filters)))["Volumes"] or []

    async def remove_volume(self, name: str) -> None:
        await self._found(lambda client: client.remove_volume(name))

    async def close(self) -> None:
        if self._client is not None:
            self._client.close()

    async def _found(self, call: Callable[[APIClient], T]) -> T | None:
        try:
            return await self._ask(call)
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    async def _lines(self, begin: Callable[[APIClient], Iterator[dict[str, Any]]]) -> AsyncIterator[str]:
        """What a long request says."""
        async with self._own_client() as client:
            lines = await self._in_thread(partial(begin, client))
            while (said := await self._in_thread(partial(next, lines, None))) is not None:
                if "error" in said:
                    raise EngineError(500, said["error"])
                yield str(said.get("stream") or said.get("status") or "").strip()

    @asynccontextmanager
    async def _own_client(self) -> AsyncIterator[APIClient]:
        """For a long request: the others' answers come sooner."""
        client = await self._in_thread(partial(self._connect, MAKE_SECONDS))
        try:
            yield client
        finally:
            client.close()

    async def _ask(self, call: Callable[[APIClient], T]) -> T:
        if self._client is None:
            self._client = await self._in_thread(partial(self._connect, ANSWER_SECONDS))
        return await self._in_thread(partial(call, self._client))

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(self._translated, call, abandon_on_cancel=True, limiter=self._threads)

    def _connect(self, timeout_seconds: int) -> APIClient:
        # 8 MiB and 0.4 s: only where an engine is there, and not while the event loop waits.
        from docker import APIClient

        return APIClient(self.host, version="auto", timeout=timeout_seconds)

    def _translated(self, call: Callable[[], T]) -> T:
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException

        try:
            self._knock()
            return call()
        except APIError as error:
            raise EngineError(error.status_code or 500, str(error.explanation)[:ANSWER_LIMIT_CHARS]) from error
        except (DockerException, RequestException, OSError) as error:
            raise SandboxUnavailable(self._why_not(error)) from error

    def _knock(self) -> None:
        """OSError where nobody listens. The docker package 7.2 would leave its socket to the garbage collector."""
        if self.host.startswith("unix://"):
            with socket.socket(socket.AF_UNIX) as door:
                door.connect(self.host.removeprefix("unix://"))

    def _why_not(self, error: Exception) -> str:
        if _errno(error) == errno.EACCES:
            return (
                f"this user may not use the Docker Engine at {self.host}: "
                "`sudo usermod -aG docker $USER`, then sign in again"
            )
        return f"no Docker Engine answers at {self.host} ({error})"


def _attach(container: str, client: APIClient) -> socket.socket:
    return _own(client.attach_socket(container, {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1}))


def _relay(container: str, command: list[str], uid: int, client: APIClient) -> socket.socket:
    made = client.exec_create(container, command, stdin=True, user=f"{uid}:{uid}", workdir="/")
    return _own(client.exec_start(made["Id"], socket=True))


def _own(stream: Any) -> socket.socket:
    ours = socket.socket(fileno=os.dup(stream.fileno()))
    ours.setblocking(False)
    stream._response.close()  # where the package keeps the connection for as long as the stream is wanted
    return ours


def _errno(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return None
