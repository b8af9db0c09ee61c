"""The way to the server: names, a real TLS proxy before it with the documented lines, and what `errand doctor` says."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from protocol.live import SignedIn, SignIn
from protocol.query import Check
from services.cli.reaching import way
from tests.integration.gateway_house import OWNER_TOKEN, GatewayHouse, Phone, gateway_house, rest
from tests.integration.nats_house import free_port
from tests.integration.tls_proxy import PEER, TlsProxy, need_nginx

pytestmark = pytest.mark.anyio
ATTEMPTS = 3


class House:
    """A gateway, and the proxy whose address is its public URL."""

    def __init__(self, gateway: GatewayHouse, proxy: TlsProxy) -> None:
        self.gateway = gateway
        self.proxy = proxy

    def client(self, peer: str = "127.0.0.1") -> httpx2.AsyncClient:
        """A phone at an address of loopback."""
        context = ssl.create_default_context(cafile=str(self.proxy.authority))
        transport = httpx2.AsyncHTTPTransport(verify=context, local_address=peer)
        return httpx2.AsyncClient(base_url=self.proxy.url, transport=transport)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    need_nginx()
    data, port = tmp_path_factory.mktemp("gateway"), free_port()
    proxy = TlsProxy(tmp_path_factory.mktemp("proxy"), port)
    settings = {
        "ERRAND_PUBLIC_URL": proxy.url,
        "ERRAND_TRUSTED_PROXIES": PEER,
        "ERRAND_SIGN_IN_ATTEMPTS": str(ATTEMPTS),
        "ERRAND_DATA": str(data),
    }
    with gateway_house(data, port=port, **settings) as gateway, proxy.running():
        yield House(gateway, proxy)


@pytest.fixture
async def owner(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    async with house.client() as client:
        client.headers["authorization"] = f"Bearer {OWNER_TOKEN}"
        yield client


async def test_rest_and_the_live_socket_come_through_the_documented_proxy(
    house: House, owner: httpx2.AsyncClient
) -> None:
    answer = await owner.get("/api/me")
    assert (answer.status_code, answer.json()["user"]) == (200, "owner")
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    context = ssl.create_default_context(cafile=str(house.proxy.authority))
    address = house.proxy.url.replace("https", "wss") + "/api/live"
    async with connect(address, ssl=context, origin=house.proxy.url, proxy=None) as socket:  # pyright: ignore[reportArgumentType]
        phone = Phone(socket)
        await phone.send(SignIn(token=OWNER_TOKEN))
        assert (await phone.until(SignedIn)).user == "owner"


async def test_push_is_offered_behind_tls(owner: httpx2.AsyncClient) -> None:
    assert (await owner.get("/api/push")).json()["available"]


async def tries(client: httpx2.AsyncClient, **headers: str) -> list[int]:
    body = {"code": "wrong", "device_name": "phone"}
    return [(await client.post("/api/sign-in", json=body, headers=headers)).status_code for _ in range(ATTEMPTS + 1)]


async def test_attempts_to_sign_in_are_counted_by_the_phone_and_not_by_the_proxy(house: House) -> None:
    async with house.client("127.0.0.7") as first, house.client("127.0.0.8") as second:
        assert await tries(first) == [401] * ATTEMPTS + [429]
        assert await tries(second) == [401] * ATTEMPTS + [429], "another phone has attempts of its own"
    async with house.client("127.0.0.9") as liar:
        told = await tries(liar, **{"x-forwarded-for": "203.0.113.1"})
        again = await tries(liar, **{"x-forwarded-for": "203.0.113.2"})
    assert (told, again) == ([401] * ATTEMPTS + [429], [429] * (ATTEMPTS + 1)), (
        "the proxy's word counts, not the phone's"
    )


async def test_headers_of_who_is_no_proxy_are_not_believed(house: House) -> None:
    async with rest(house.gateway) as client:
        told = await tries(client, **{"x-forwarded-for": "203.0.113.1"})
        again = await tries(client, **{"x-forwarded-for": "203.0.113.2"})
    assert (told, again) == ([401] * ATTEMPTS + [429], [429] * (ATTEMPTS + 1))


async def test_a_name_that_is_not_ours_is_refused(house: House) -> None:
    async with rest(house.gateway, OWNER_TOKEN) as client:
        for path in ("/", "/api/me", "/api/health"):
            answer = await client.get(path, headers={"host": "evil.example:8420"})
            assert answer.status_code == 421
            assert "ERRAND_HOSTS" in answer.json()["error"]
        for name in ("localhost", "192.168.1.5:8420", "gateway:8420"):
            assert (await client.get("/api/me", headers={"host": name})).status_code == 200
    address = f"ws://127.0.0.1:{house.gateway.port}/api/live"
    with pytest.raises(InvalidStatus):
        # A page of another site that turned its own name to our address is its own origin.
        async with connect(
            address, proxy=None, origin="http://evil.example", additional_headers={"host": "evil.example"}
        ):  # pyright: ignore[reportArgumentType]
            raise AssertionError


# What the doctor says


def statuses(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.status for check in checks}


async def installation(gateway: GatewayHouse) -> str:
    async with rest(gateway) as client:
        return (await client.get("/api/installation")).json()["id"]


def trust(monkeypatch: pytest.MonkeyPatch, proxy: TlsProxy) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(proxy.authority))


def doctor(house: House, environment: Mapping[str, str]) -> dict[str, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "doctor", "--json"],
        env={**os.environ, "ERRAND_SERVER": house.gateway.url, "ERRAND_TOKEN": OWNER_TOKEN, **environment},
        capture_output=True,
        check=False,
    )
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


async def test_errand_doctor_goes_the_whole_way(house: House, tmp_path: Path) -> None:
    environment = {"ERRAND_DATA": str(tmp_path), "SSL_CERT_FILE": str(house.proxy.authority)}
    checks = doctor(house, {**environment, "ERRAND_SIGN_IN_ATTEMPTS": "4"})
    for name in ("server", "notifications", "public address", "certificate", "live socket", "page"):
        assert checks[name]["status"] == "ok", checks[name]
    assert checks["public address"]["text"] == f"{house.proxy.url} leads here"
    assert "90 days" in checks["certificate"]["text"]
    assert f"=4, but the server was started with {ATTEMPTS}, and that holds" in checks["settings"]["text"]


async def test_an_untrusted_certificate_is_said_to_be_one(house: House) -> None:
    [check] = way(house.proxy.url, await installation(house.gateway))
    assert (check.name, check.status) == ("public address", "fail")
    assert "not trusted" in check.text


async def test_another_errand_is_told_from_ours(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch, house.proxy)
    [check] = way(house.proxy.url, "0123456789abcdef")
    assert "another Errand answers" in check.text


async def test_a_certificate_that_ends_soon_is_warned_of(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TlsProxy(tmp_path, house.gateway.port, days=5).running() as proxy:
        trust(monkeypatch, proxy)
        checks = way(proxy.url, await installation(house.gateway))
    assert statuses(checks)["certificate"] == "warn"


@pytest.mark.parametrize(
    ("changes", "name", "sentence"),
    [
        ({'proxy_set_header Connection "upgrade";': ""}, "live socket", "hand the WebSocket on"),
        ({"proxy_set_header Host $host;": "proxy_set_header Host upstream.example;"}, "public address", "ERRAND_HOSTS"),
        ({"proxy_pass http://127.0.0.1": "proxy_pass http://127.0.0.2"}, "public address", "answers 502"),
        ({"proxy_pass http": "return 200 hello; proxy_pass http"}, "public address", "something else answers"),
    ],
)
async def test_what_is_wrong_with_a_proxy_is_found(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], name: str, sentence: str
) -> None:
    with TlsProxy(tmp_path, house.gateway.port, changes=changes).running() as proxy:
        trust(monkeypatch, proxy)
        checks = {check.name: check for check in way(proxy.url, await installation(house.gateway))}
    assert checks[name].status == "fail"
    assert sentence in checks[name].text


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("https://localhost:1", "Nothing answers"),
        ("https://nowhere.invalid", "has no address"),
    ],
)
def test_an_address_without_a_server_is_said_to_be_one(url: str, sentence: str) -> None:
    [check] = way(url, "x")
    assert sentence in check.text


async def test_plain_http_is_what_it_is(house: House) -> None:
    checks = {check.name: check for check in way(house.gateway.url, await installation(house.gateway))}
    assert "Only this machine" in checks["public address"].text
    elsewhere = way("http://127.0.0.1:1", await installation(house.gateway), house.gateway.url)
    assert statuses(elsewhere) == {"public address": "ok", "live socket": "ok", "page": "ok"}, "seen from a container"
    [broken] = way(house.gateway.url.replace("http", "https"), "x")
    assert "does not speak TLS" in broken.text
