"""The Docker Engine of this machine, by its HTTP API, as far as sandboxes need it.

With httpx2, which the model's client has loaded already: the `docker` package would cost a runner 8 MiB and 0.4 s more
(docs/decisions/0009).
"""

from __future__ import annotations

import errno
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

from sandbox.contract import SandboxUnavailable

NEWEST_API = (1, 44)
"""What this is written for; an older engine is spoken to in its own version."""
CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 60.0
"""A start on a busy disk takes long; nothing else does."""
ANSWER_LIMIT_CHARS = 2000


class EngineError(Exception):
    """The engine refused. The message is its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """One connection pool to one engine. Every method raises SandboxUnavailable when the engine does not answer."""

    def __init__(self, host: str) -> None:
        """`host` as in DOCKER_HOST: `unix:///path` or `tcp://host:port`. SandboxUnavailable for what is neither: the
        engine must see this machine's folders."""
        self.host = host
        scheme, _, place = self.host.partition("://")
        if scheme not in ("unix", "tcp") or not place:
            raise SandboxUnavailable(
                f"DOCKER_HOST={self.host} cannot be used: sandboxes need an engine on this machine, unix:// or tcp://"
            )
        path = place if scheme == "unix" else None
        # No certificates: they would cost 7 MiB, and what is on this machine needs none.
        transport = httpx2.AsyncHTTPTransport(uds=path, verify=False, trust_env=False)
        self._client = httpx2.AsyncClient(
            transport=transport,
            base_url="http://engine" if path else f"http://{place}",
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
        )
        self._prefix = ""

    async def version(self) -> str:
        """Of the engine."""
        found: str = (await self._json("GET", "/version"))["Version"]
        return found

    async def about(self) -> dict[str, Any]:
        """The machine as the engine sees it: `MemTotal`, `NCPU`, `SecurityOptions`, `MemoryLimit`, …"""
        return await self._json("GET", "/info")

    async def image(self, name: str) -> dict[str, Any] | None:
        """None when the engine does not have it."""
        return await self._found("GET", f"/images/{name}/json")

    async def build(self, name: str, context: bytes) -> AsyncIterator[str]:
        """Build `context`, a tar with a Dockerfile; yields what the build says. EngineError when it fails."""
        query = {"t": name, "rm": "1", "forcerm": "1"}
        headers = {"Content-Type": "application/x-tar"}
        async for line in self._lines("/build", query, content=context, headers=headers):
            yield line

    async def pull(self, name: str) -> AsyncIterator[str]:
        """Fetch an image that somebody else made."""
        async for line in self._lines("/images/create", {"fromImage": name}):
            yield line

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """The new container's id."""
        found: str = (await self._json("POST", "/containers/create", {"name": name}, config))["Id"]
        return found

    async def start(self, container: str) -> None:
        await self._json("POST", f"/containers/{container}/start")

    async def attach(self, container: str) -> httpx2.Response:
        """The stream to the container's stdin, stdout and stderr, before its start so that nothing is missed: the
        socket is in `extensions["network_stream"]`. To be closed by the caller."""
        query = {"stream": "1", "stdin": "1", "stdout": "1", "stderr": "1"}
        headers = {"Connection": "Upgrade", "Upgrade": "tcp"}
        path = f"{await self._version_prefix()}/containers/{container}/attach"
        request = self._client.build_request("POST", path, params=query, headers=headers)
        response = await self._send(request)
        if response.status_code != 101:
            raise await _refusal(response)
        return response

    async def inspect(self, container: str) -> dict[str, Any] | None:
        """None when it is gone."""
        return await self._found("GET", f"/containers/{container}/json")

    async def containers(self, label: str) -> list[dict[str, Any]]:
        """Those with this label (`name=value`), whatever their state."""
        filters = json.dumps({"label": [label]})
        return await self._json("GET", "/containers/json", {"all": "1", "filters": filters})

    async def rename(self, container: str, name: str) -> None:
        await self._json("POST", f"/containers/{container}/rename", {"name": name})

    async def remove(self, container: str) -> None:
        """Kill it and return when it is gone; also when it was."""
        try:
            await self._json("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})
        except EngineError as error:
            if error.status == 409:  # it is being removed, because it has ended
                await self._gone(container)
            elif error.status != 404:
                raise

    async def close(self) -> None:
        await self._client.aclose()

    async def _gone(self, container: str) -> None:
        try:
            await self._json("POST", f"/containers/{container}/wait", {"condition": "removed"})
        except EngineError as error:
            if error.status != 404:
                raise

    async def _found(self, method: str, path: str) -> dict[str, Any] | None:
        try:
            return await self._json(method, path)
        except EngineError as error:
            if error.status == 404:
                return None
            raise

    async def _json(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Any:
        url = await self._version_prefix() + path
        response = await self._send(self._client.build_request(method, url, params=query, json=body))
        if response.status_code >= 400:
            raise await _refusal(response)
        data = await response.aread()
        return json.loads(data) if data else None

    async def _lines(self, path: str, query: Mapping[str, str], **more: Any) -> AsyncIterator[str]:
        """What a long request says: JSON lines with `stream` or `status`, or one with `error`."""
        url = await self._version_prefix() + path
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        response = await self._send(self._client.build_request("POST", url, params=query, timeout=timeout, **more))
        try:
            if response.status_code >= 400:
                raise await _refusal(response)
            async for line in response.aiter_lines():
                said = json.loads(line)
                if "error" in said:
                    raise EngineError(500, said["error"])
                yield str(said.get("stream") or said.get("status") or "").strip()
        finally:
            await response.aclose()

    async def _version_prefix(self) -> str:
        if not self._prefix:
            response = await self._send(self._client.build_request("GET", "/_ping"))
            await response.aread()
            theirs = tuple(map(int, response.headers.get("Api-Version", "1.41").split(".")))
            self._prefix = "/v{}.{}".format(*min(theirs, NEWEST_API))
        return self._prefix

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._client.send(request, stream=True)
        except httpx2.TransportError as error:
            raise SandboxUnavailable(self._why_not(error)) from error

    def _why_not(self, error: Exception) -> str:
        if _errno(error) == errno.EACCES:
            return (
                f"this user may not use the Docker Engine at {self.host}: "
                "`sudo usermod -aG docker $USER`, then sign in again"
            )
        return f"no Docker Engine answers at {self.host} ({error})"


def _errno(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


async def _refusal(response: httpx2.Response) -> EngineError:
    data = await response.aread()
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data.decode("utf-8", "replace")
    return EngineError(response.status_code, message.strip()[:ANSWER_LIMIT_CHARS])
