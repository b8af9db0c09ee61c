"""The Web Push channel by itself: which addresses it takes, and that it goes where it looked."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import trustme

from gateway.push.keys import load, make
from gateway.push.news import News
from gateway.push.web_push import Subscription, SubscriptionKeys, Undelivered, Unusable, WebPush, post
from services.config import WrongSetting

pytestmark = pytest.mark.anyio
NEWS = News("Done: Fix it", "", "t1", "/#/task/t1")
POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
"""Of the browser in RFC 8291, appendix A."""
KEYS = SubscriptionKeys(p256dh=POINT, auth="BTBZMqHH6r4Tts7J_aSIgg")


def channel(tmp_path: Path, *addresses: str) -> WebPush:
    """Whatever is looked up has these addresses, one after the other."""
    answers = list(addresses)

    async def look_up(name: str) -> Sequence[str]:
        return [answers.pop(0) if len(answers) > 1 else answers[0]]

    return WebPush(tmp_path / "push.key", "https://errand.example", "", look_up)


async def test_a_name_is_looked_at_again_at_each_push(tmp_path: Path) -> None:
    subscription = Subscription("https://push.example/x", KEYS)
    web_push = channel(tmp_path, "140.82.121.3", "127.0.0.1")
    await web_push.check(subscription)
    with pytest.raises(Unusable, match="no public address"):
        await web_push.send(subscription, NEWS, 60)
    assert "no public address" in web_push.problem()


@contextmanager
def https_server(authority: trustme.CA, name: str) -> Iterator[tuple[int, list[str]]]:
    """On 127.0.0.1, with a certificate for `name`; yields its port and the hosts it was asked for."""
    hosts: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hosts.append(self.headers["host"])
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(307)
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port, hosts
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


async def test_it_goes_to_the_address_and_wants_the_names_certificate_and_follows_nobody() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with httpx2.AsyncClient(verify=context, trust_env=False) as client:
        with https_server(authority, "push.example") as (port, hosts):
            endpoint = urlsplit(f"https://push.example:{port}/x")
            assert await post(client, endpoint, "127.0.0.1", {}, b"body") == (307, "")
            assert hosts == [f"push.example:{port}"]
        with https_server(authority, "other.example") as (port, hosts):
            with pytest.raises(Undelivered):
                await post(client, urlsplit(f"https://push.example:{port}/x"), "127.0.0.1", {}, b"body")
            assert hosts == []


async def test_what_is_sealed_for_one_device_opens_for_no_other(tmp_path: Path) -> None:
    from services.envelope import NotOpened

    await make(tmp_path / "push.key")
    web_push, subscription = channel(tmp_path, "140.82.121.3"), Subscription("https://push.example/x", KEYS)
    sealed = web_push.seal("u1", "d1", subscription)
    assert web_push.unseal("u1", "d1", sealed) == subscription
    for user, device in (("u1", "d2"), ("u2", "d1")):
        with pytest.raises(NotOpened):
            web_push.unseal(user, device, sealed)


async def test_the_keys_are_made_once_and_broken_ones_are_said_to_be_broken(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "push.key"
    await make(path)
    first = load(path)
    await make(path)
    assert load(path) == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert channel(tmp_path / "secrets", "1.1.1.1").problem() == ""
    path.write_text("something else")
    assert "is broken" in channel(tmp_path / "secrets", "1.1.1.1").problem()


async def test_keys_that_cannot_be_made_are_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        await make(tmp_path / "file" / "push.key")


def test_without_a_folder_there_are_no_keys() -> None:
    assert "ERRAND_DATA" in WebPush(None, "", "").problem()
    with pytest.raises(Undelivered, match="the keys cannot be read"):
        WebPush(None, "", "").unseal("u", "d", "")


@pytest.mark.parametrize("setting", ["https://push.lan", "a b", "push.lan:99999"])
def test_a_wrong_push_host_is_named(setting: str) -> None:
    with pytest.raises(WrongSetting, match="ERRAND_PUSH_HOSTS"):
        WebPush(None, "", setting)
