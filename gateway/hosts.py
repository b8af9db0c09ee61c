"""Requests that are meant for another host, and addresses of proxies."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import msgspec

from gateway.config import Config
from services.config import WrongSetting
from services.listening import PAGE, is_own_name

MISDIRECTED = 421
App = Callable[[Any, Any, Any], Awaitable[None]]
MAPPED = int(IPv6Network("::ffff:0:0/96").network_address)


class OwnHosts:
    """ASGI middleware: what is meant for another name is answered by 421, a socket refused (403)."""

    def __init__(self, app: App, config: Config) -> None:
        self._app = app
        self._config = config

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        # No coroutine of its own, which would stay for as long as a socket does.
        host = next((value for name, value in scope["headers"] if name == b"host"), None)
        if host is None or self._is_ours(host.decode("latin-1")):
            return self._app(scope, receive, send)
        return _refuse(scope["type"], host.decode("latin-1"), send)

    def _is_ours(self, host: str) -> bool:
        return is_own_name(host, self._config.public_url, self._config.hosts)


async def _refuse(kind: str, host: str, send: Callable[[Any], Awaitable[None]]) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    error = (
        f"This server does not go by the name {host[:100]!r}. If it is yours, name it in ERRAND_PUBLIC_URL or "
        f"ERRAND_HOSTS; a proxy hands the name on that it was asked by ({PAGE})."
    )
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": MISDIRECTED, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode({"error": error})})


def proxies(setting: str) -> list[str]:
    """ERRAND_TRUSTED_PROXIES as uvicorn takes it; each IPv4 address also as a socket of both kinds shows it."""
    found: list[str] = []
    for part in filter(None, map(str.strip, setting.split(","))):
        try:
            network = ip_network(part)
        except ValueError as error:
            raise WrongSetting(
                f"ERRAND_TRUSTED_PROXIES: {error}; give addresses or networks such as 10.0.0.0/8, separated by commas."
            ) from None
        found.append(str(network))
        if isinstance(network, IPv4Network):
            found.append(f"{IPv6Network((MAPPED + int(network.network_address), 96 + network.prefixlen))}")
    return found
