"""Goes the way that a phone goes, from here: the public address, its certificate, the live socket, the page."""

from __future__ import annotations

import re
import socket
import ssl
import time
from contextlib import closing
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2
import msgspec

from protocol.query import Check
from services.cli.text import cut, one_line
from services.listening import PAGE, is_loopback, is_secure, what_works

SECONDS = 10.0
SOON_DAYS = 14
"""A certificate that ends sooner should have been renewed."""
DAY_SECONDS = 86_400
SAID_CHARS = 300
NOTHING_BEHIND = (502, 503, 504)
MANIFEST = re.compile(rb'<link\s[^>]*rel="?manifest"?[^>]*>')
ADDRESS = re.compile(rb'href="?([^" >]+)')


class Wrong(Exception):
    """The sentence says what was found, and what to do."""


def way(url: str, installation: str, server: str = "") -> list[Check]:
    """The way to the server whose public address and id these are; what comes after a break is not looked at.

    An address of its own loopback leads elsewhere from another machine or container. `server`, where we reached it, is
    looked at instead.
    """
    public = urlsplit(url)
    reached = server if server and public.scheme == "http" and is_loopback(public.hostname or "") else url
    parts = urlsplit(reached)
    context = ssl.create_default_context() if parts.scheme == "https" else None
    with httpx2.Client(
        timeout=SECONDS, verify=context or True, trust_env=not is_loopback(parts.hostname or "")
    ) as client:
        try:
            check_address(client, reached, installation)
        except Wrong as wrong:
            return [Check("public address", "fail", str(wrong))]
        said = f"{url} leads here" if public.scheme == "https" else what_works(url)
        checks = [Check("public address", "ok" if is_secure(url) else "warn", said)]
        if context is not None:
            checks.append(check_certificate(parts.hostname or "", parts.port or 443, context))
        return [*checks, check_socket(reached, context), check_page(client, reached, secure=is_secure(url))]


def check_address(client: httpx2.Client, url: str, installation: str) -> None:
    """Raises Wrong when it does not lead here."""
    found = _installation(_get(client, url, "/api/installation"), url)
    if found != installation:
        raise Wrong(f"At {url} another Errand answers: see ERRAND_PUBLIC_URL, and where the proxy leads.")


def _installation(answer: httpx2.Response, url: str) -> str:
    if answer.status_code in NOTHING_BEHIND:
        raise Wrong(
            f"At {url} a proxy answers {answer.status_code}: Errand does not run, or it looks elsewhere for it."
        )
    try:
        said = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        raise Wrong(f"At {url} something else answers ({answer.status_code}): see ERRAND_PUBLIC_URL.") from None
    if "error" in said:
        raise Wrong(f"{url} answers {answer.status_code}: {cut(one_line(str(said['error'])), SAID_CHARS)}")
    return str(said.get("id", ""))


def _get(client: httpx2.Client, url: str, path: str) -> httpx2.Response:
    try:
        return client.get(urljoin(url, path))
    except httpx2.HTTPError as error:
        raise Wrong(_why_not(url, error)) from None


def _why_not(url: str, error: BaseException) -> str:
    """In the words of whoever has to mend it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate of {url} is not trusted: {cause.verify_message}. Phones refuse it as well."
        if isinstance(cause, ssl.SSLError):
            return f"{url} does not speak TLS: put a server before Errand that does ({PAGE})."
        if isinstance(cause, socket.gaierror):
            return f"{urlsplit(url).hostname} has no address: give it a DNS record, or wait until the new one is known."
        cause = cause.__cause__ or cause.__context__
    return (
        f"Nothing answers at {url} ({type(error).__name__}): see that the proxy runs and the firewall lets its port "
        "through. Some networks do not let their own machines use their public address."
    )


def check_certificate(host: str, port: int, context: ssl.SSLContext) -> Check:
    try:
        with (
            closing(socket.create_connection((host, port), SECONDS)) as plain,
            context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            ends = ssl.cert_time_to_seconds(str((secured.getpeercert() or {})["notAfter"]))
    except (OSError, KeyError) as error:
        return Check("certificate", "fail", _why_not(f"https://{host}:{port}", error))
    days = int((ends - time.time()) / DAY_SECONDS)
    text = f"good until {time.strftime('%Y-%m-%d', time.gmtime(ends))}, {days} days"
    if days < SOON_DAYS:
        return Check("certificate", "warn", f"{text}: see why it is not renewed.")
    return Check("certificate", "ok", text)


def check_socket(url: str, context: ssl.SSLContext | None) -> Check:
    """Whether a page of this address gets a socket; it does not sign in."""
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect

    address = url.replace("http", "ws", 1) + "/api/live"
    try:
        with connect(address, origin=url, ssl=context, open_timeout=SECONDS, proxy=None) as live:  # pyright: ignore[reportArgumentType]
            live.send('{"type":"sign_in","token":""}')
            live.recv(SECONDS)
    except (WebSocketException, OSError, TimeoutError) as error:
        hint = f"a proxy must hand the WebSocket on ({PAGE})"
        return Check("live socket", "fail", f"The page cannot follow tasks: {one_line(str(error))}; {hint}.")
    return Check("live socket", "ok", "gets through")


def check_page(client: httpx2.Client, url: str, *, secure: bool) -> Check:
    """Whether phones offer to install it."""
    if not secure:
        return Check("page", "warn", f"works in the browser, and cannot be installed without HTTPS ({PAGE})")
    try:
        link = MANIFEST.search(_get(client, url, "/").content)
        place = ADDRESS.search(link[0]) if link else None
        manifest = _get(client, url, place[1].decode()) if place else None
        complete = (
            manifest is not None and {"name", "icons", "start_url"} <= msgspec.json.decode(manifest.content).keys()
        )
    except (Wrong, msgspec.DecodeError, AttributeError, UnicodeDecodeError) as error:
        return Check("page", "fail", f"The page does not come whole: {one_line(str(error))}")
    return Check("page", "ok", "can be installed") if complete else Check("page", "fail", "It has no manifest.")
