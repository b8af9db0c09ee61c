"""Where the gateway listens, and by which names it goes."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.hosts import proxies
from gateway.server import bind
from services.config import WrongSetting
from services.listening import is_own_name, is_secure, local_url, refusal, url_of, what_works
from services.up import CannotStart, House, Settings


@pytest.mark.parametrize(
    ("address", "public_url", "allow_http", "refused", "why"),
    [
        ("127.0.0.1", "", False, "", "this machine alone"),
        ("::1", "", False, "", "the same"),
        ("localhost", "", False, "", "the same by name"),
        ("127.8.8.8", "", False, "", "all of 127/8 is loopback"),
        ("0.0.0.0", "", False, "plain HTTP", "every network"),
        ("::", "", False, "plain HTTP", "every network"),
        ("192.168.1.5", "", False, "plain HTTP", "a home network is a network"),
        ("203.0.113.5", "", False, "plain HTTP", "the internet"),
        ("203.0.113.5", "", True, "", "told so"),
        ("0.0.0.0", "https://errand.example", False, "", "TLS before it"),
        ("127.0.0.1", "https://errand.example", False, "", "TLS before it, on this machine"),
        ("0.0.0.0", "http://127.0.0.1:8420", False, "", "a container whose port is published on loopback alone"),
        ("127.0.0.1", "http://errand.example", False, "plain HTTP", "a proxy without TLS"),
        ("127.0.0.1", "http://errand.example", True, "", "told so"),
        ("999.1.1.1", "", True, "no address to listen on", "no address"),
        ("errand.example", "", True, "no address to listen on", "a name"),
        ("127.0.0.1", "errand.example", False, "no address of a server", "without a scheme"),
        ("127.0.0.1", "https://errand.example/path", False, "no address of a server", "with a path"),
        ("127.0.0.1", "https://me:secret@errand.example", False, "no address of a server", "with a password"),
    ],
)
def test_where_it_listens(address: str, public_url: str, allow_http: bool, refused: str, why: str) -> None:
    reason = refusal(address, public_url, allow_http=allow_http)
    assert (refused in reason) if refused else reason == "", why


def test_the_refusal_names_the_three_ways_out() -> None:
    reason = refusal("0.0.0.0", "", allow_http=False)
    for way in ("ERRAND_PUBLIC_URL=https://", "tunnel", "--allow-http (ERRAND_ALLOW_HTTP=1)"):
        assert way in reason


def test_the_gateway_itself_refuses_too_with_the_setting() -> None:
    with pytest.raises(WrongSetting, match=r"ERRAND_BIND: .* plain HTTP"):
        bind(Config(bind="0.0.0.0"))


@pytest.mark.parametrize(
    ("host", "ours", "why"),
    [
        ("errand.example", True, "the public URL's name"),
        ("ERRAND.example:443", True, "in capitals, with a port"),
        ("127.0.0.1:8420", True, "an address: nobody can turn one to another"),
        ("192.168.1.5:8420", True, "the same"),
        ("[::1]:8420", True, "the same"),
        ("localhost:8420", True, "this machine"),
        ("x.localhost", True, "this machine"),
        ("gateway:8420", True, "one word: a container, or the machine's own name"),
        ("pi.local", True, "mDNS"),
        ("other.example", True, "ERRAND_HOSTS"),
        ("evil.example", False, "rebound"),
        ("errand.example.evil.example", False, "rebound"),
        ("127.0.0.1.evil.example", False, "rebound"),
        ("evil.example:8420", False, "rebound"),
        ("evil.example#.local", False, "two readings"),
        ("x@localhost", False, "two readings"),
        ("", False, "none"),
        ("[::1", False, "broken"),
    ],
)
def test_the_names_it_goes_by(host: str, ours: bool, why: str) -> None:
    assert is_own_name(host, "https://errand.example/", "other.example, ") is ours, why


@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("https://errand.example", True),
        ("http://localhost:8420", True),
        ("http://127.0.0.1:8420", True),
        ("http://[::1]:8420", True),
        ("http://192.168.1.5:8420", False),
        ("http://errand.example", False),
    ],
)
def test_where_browsers_allow_push(url: str, secure: bool) -> None:
    assert is_secure(url) is secure


def test_what_works_is_said_for_each_kind_of_address() -> None:
    assert "errand doctor" in what_works("https://errand.example")
    assert "Only this machine" in what_works("http://127.0.0.1:8420")
    assert "need HTTPS" in what_works("http://192.168.1.5:8420")


def test_an_address_as_this_machine_reaches_it() -> None:
    assert local_url("0.0.0.0", 8420) == "http://127.0.0.1:8420"
    assert local_url("::", 8420) == "http://[::1]:8420"
    assert url_of("::1", 1) == "http://[::1]:1"


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("", []),
        ("10.0.0.0/8", ["10.0.0.0/8", "::ffff:a00:0/104"]),
        ("127.0.0.1, ::1", ["127.0.0.1/32", "::ffff:7f00:1/128", "::1/128"]),
    ],
)
def test_proxies_are_addresses_and_networks(setting: str, found: list[str]) -> None:
    assert proxies(setting) == found


@pytest.mark.parametrize("setting", ["*", "proxy.example", "10.0.0.1/8", "999.1.1.1"])
def test_a_wrong_proxy_is_named(setting: str) -> None:
    with pytest.raises(WrongSetting, match="ERRAND_TRUSTED_PROXIES"):
        proxies(setting)


def test_errand_up_says_what_is_wrong_with_an_address(tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for settings, sentence in (
            ({"bind": "999.1.1.1"}, "no address to listen on"),
            ({"bind": "203.0.113.5", "allow_http": True}, "no address of this machine"),
            ({"bind": "0.0.0.0"}, "--allow-http"),
            ({"port": taken.getsockname()[1]}, "is taken"),
        ):
            with pytest.raises(CannotStart, match=sentence):
                House(Settings(data=tmp_path, **settings), {})
