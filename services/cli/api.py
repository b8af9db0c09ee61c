"""The gateway's REST, each failure a sentence that says what to do."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, TypeVar

import httpx2
import msgspec

from services.cli.account import SIGN_IN, Account
from services.cli.failure import Failure
from services.cli.text import clean, cut

TIMEOUT_SECONDS = 30.0
"""For one answer: SQL waits up to 10 s for the history."""
SAID_LIMIT_CHARS = 2_000
"""Of a server's sentence, this much is shown."""

T = TypeVar("T")


class Api:
    """Requests to one server, as one user; closed when its block is left."""

    def __init__(self, account: Account, *, transport: httpx2.BaseTransport | None = None) -> None:
        self._account = account
        self._client = httpx2.Client(
            base_url=account.server,
            headers={"Authorization": f"Bearer {account.token}"} if account.token else {},
            timeout=TIMEOUT_SECONDS,
            trust_env=not account.is_local,
            transport=transport,
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int | list[str]) -> bytes:
        return self._ask("GET", path, params={name: value for name, value in query.items() if value != ""})

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        return self._ask("POST", path, json=body)

    def put(self, path: str, body: Any) -> bytes:
        """`body` is what JSON can say, or a Struct."""
        return self._ask("PUT", path, json=msgspec.to_builtins(body))

    def delete(self, path: str, body: dict[str, Any]) -> bytes:
        return self._ask("DELETE", path, json=body)

    def _ask(self, method: str, path: str, **rest: Any) -> bytes:
        server = self._account.server
        try:
            response = self._client.request(method, path, **rest)
        except httpx2.ConnectError as error:
            raise Failure(_no_connection(server, error)) from None
        except httpx2.TimeoutException:
            raise Failure(
                f"{server} did not answer in time: try again, or run `errand doctor` on the server."
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise Failure(f"The request to {server} failed ({error}): check the address and try again.") from None
        if response.is_success:
            return response.content
        raise Failure(_refusal(self._account, response))


def read(content: bytes, shape: type[T]) -> T:
    """An answer as `shape`; unknown fields are ignored."""
    try:
        return msgspec.json.decode(content, type=shape)
    except msgspec.DecodeError as error:
        raise Failure(
            f"The server's answer cannot be read ({error}): check its address, or update the older of the two."
        ) from None


def path(*parts: str) -> str:
    """`/api/` and the parts, each one segment whatever a user typed."""
    return "/api/" + "/".join(_segments(parts))


def _segments(parts: Iterable[str]) -> Iterable[str]:
    from urllib.parse import quote

    for part in parts:
        if part.strip() in ("", ".", ".."):
            raise Failure(f"{part!r} names nothing: give the name or the id, as the list of them shows it.")
        yield quote(part, safe="")


def _no_connection(server: str, error: httpx2.ConnectError) -> str:
    cause = error.__cause__
    while cause is not None and not isinstance(cause, ssl.SSLCertVerificationError):
        cause = cause.__cause__ or cause.__context__
    if cause is not None:
        return f"The certificate of {server} is not trusted ({cause.verify_message}): check the address."
    return f"No Errand server answers at {server}: start it with `errand up`, or check the address."


def _refusal(account: Account, response: httpx2.Response) -> str:
    try:
        body = response.json()
        said = cut(clean(str(body["error"])).strip(), SAID_LIMIT_CHARS)
    except (ValueError, KeyError, TypeError):
        said = ""
    server = account.server
    if response.status_code == 401 and account.token:
        return f"{server} refused the token{f' ({said})' if said else ''}: {SIGN_IN}."
    if said:
        return said
    return f"{server} answers {response.status_code} and no reason: is this an Errand server?"
