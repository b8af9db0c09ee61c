"""A push service over real HTTP, and the browsers that use it. It refuses what is not signed as RFC 8292 says (checked
by another library than the one that signs); they open what was sealed for them as RFC 8291 says."""

from __future__ import annotations

import base64
import json
import os
import queue
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import ECKey

SECONDS = 20.0
"""For anything a test waits for: longer than a dead gateway's decision takes to become another's."""
DAY_SECONDS = 24 * 3600


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Browser:
    """One subscription, with the keys that only the browser has."""

    def __init__(self, service: PushService, name: str) -> None:
        self.endpoint = f"{service.url}/push/{name}"
        self._private = ec.generate_private_key(ec.SECP256R1())
        self._auth = os.urandom(16)
        self.shown: queue.Queue[dict[str, Any]] = queue.Queue()
        """Notifications, with the request's headers under `headers`."""
        self.answers: list[int] = []
        """What the service answers to the next requests, instead of taking them."""
        self.hold = threading.Event()
        self.hold.set()
        """Cleared: the service takes the request and lets it wait."""
        self.asked = threading.Semaphore(0)
        """Released once a request has come."""

    def to_json(self) -> dict[str, Any]:
        """As `PushSubscription.toJSON()` gives it."""
        point = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": b64url(point), "auth": b64url(self._auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    def open(self, body: bytes) -> dict[str, Any]:
        plain = http_ece.decrypt(body, private_key=self._private, auth_secret=self._auth, version="aes128gcm")
        return json.loads(plain)

    def notification(self) -> dict[str, Any]:
        """The next one that is shown."""
        return self.shown.get(timeout=SECONDS)


class PushService:
    def __init__(self, url: str) -> None:
        self.url = url
        self.browsers: dict[str, Browser] = {}

    def browser(self, name: str) -> Browser:
        return self.browsers.setdefault(f"/push/{name}", Browser(self, name))

    def receive(self, path: str, headers: Any, body: bytes) -> int:
        """Take one request; return the status."""
        browser = self.browsers[path]
        browser.asked.release()
        if problem := self.problem(headers, body):
            raise AssertionError(problem)
        assert browser.hold.wait(SECONDS)
        if browser.answers:
            return browser.answers.pop(0)
        browser.shown.put({**browser.open(body), "headers": dict(headers.items())})
        return 201

    def problem(self, headers: Any, body: bytes) -> str:
        """What RFC 8030, 8188 and 8292 forbid."""
        signed = re.fullmatch(r"vapid t=([\w.-]+), ?k=([\w-]+)", headers["authorization"])
        if signed is None:
            return "the Authorization header is not of the scheme `vapid`"
        point = base64.urlsafe_b64decode(signed[2] + "=" * (-len(signed[2]) % 4))
        key = {"kty": "EC", "crv": "P-256", "x": b64url(point[1:33]), "y": b64url(point[33:])}
        claims = jwt.decode(signed[1], ECKey.import_key(key), algorithms=["ES256"]).claims
        if claims["aud"] != self.url:
            return f"the audience is {claims['aud']}"
        if not time.time() < claims["exp"] <= time.time() + DAY_SECONDS:
            return "the signature's end is not within a day"
        if not claims["sub"].startswith(("https://", "mailto:")):
            return f"the contact is {claims['sub']}"
        if headers["content-encoding"] != "aes128gcm" or int(headers["ttl"]) < 0 or len(body) > 4096:
            return "coding, TTL or size"
        return "" if re.fullmatch(r"[\w-]{1,32}", headers["topic"]) else "the topic"


@contextmanager
def push_service() -> Iterator[PushService]:
    failures: list[BaseException] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            try:
                status = service.receive(self.path, self.headers, body)
            except BaseException as failure:
                failures.append(failure)
                status = 400
            try:
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()
            except OSError:
                pass  # the gateway was killed meanwhile

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service = PushService(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        for browser in service.browsers.values():
            browser.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()
    assert failures == []
