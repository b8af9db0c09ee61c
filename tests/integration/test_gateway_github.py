"""Signing in with GitHub, as a browser does it: through the real gateway and a GitHub that is stricter than the real
one."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
import pytest

from gateway import ticket
from protocol.routes import Service
from protocol.user import decode_user_decision
from services.bus import connect
from tests.integration.gateway_house import (
    OWNER_TOKEN,
    SECONDS,
    GatewayHouse,
    Scheduler,
    gateway_house,
    repos,
    rest,
)
from tests.integration.github_house import CLIENT_SECRET, Answer, GithubServer, github_server, settings

pytestmark = pytest.mark.anyio
START = "/api/sign-in/github/start"
CALLBACK = "/api/sign-in/github/callback"
LISTED = "alice,Bob,carol,dave,erin,frank,grace,heidi,ivan"


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GithubServer]:
    with github_server(tmp_path_factory.mktemp("github")) as server:
        for number, login in enumerate(
            ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "ivan", "mallory", "olivia")
        ):
            server.account(login, 100 + number)
        yield server


@pytest.fixture(scope="module")
def gateway(github: GithubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayHouse]:
    folder = tmp_path_factory.mktemp("gateway")
    told = settings(github, folder, ERRAND_GITHUB_USERS=LISTED, ERRAND_GITHUB_OWNER="olivia")
    with gateway_house(folder, ERRAND_SIGN_IN_ATTEMPTS="1000", **told) as house:
        github.redirect_uris = {house.url + CALLBACK}
        yield house


@pytest.fixture(autouse=True)
async def others(gateway: GatewayHouse) -> AsyncIterator[Scheduler]:
    async with repos(gateway.nats), Scheduler.running(gateway.nats) as scheduler:
        yield scheduler


@asynccontextmanager
async def browser() -> AsyncIterator[httpx2.AsyncClient]:
    """With its own cookies; follows nothing by itself."""
    async with httpx2.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        yield client


async def go_to_github(client: httpx2.AsyncClient, gateway: GatewayHouse) -> str:
    """Press the button; return the address that GitHub sends the browser back to."""
    left = await client.get(gateway.url + START)
    assert left.status_code == 303, left.text
    returned = await client.get(left.headers["location"])
    assert returned.status_code == 302, returned.text
    return returned.headers["location"]


async def signed_in(client: httpx2.AsyncClient, gateway: GatewayHouse) -> dict[str, str]:
    """The whole way, to the page's token for this device."""
    back = await client.get(await go_to_github(client, gateway))
    return await redeem(gateway, back)


async def redeem(gateway: GatewayHouse, back: httpx2.Response) -> dict[str, str]:
    assert back.status_code == 303, back.text
    assert back.headers["location"].startswith("/#code=")
    code = back.headers["location"].removeprefix("/#code=")
    async with rest(gateway) as page:
        answer = await page.post("/api/sign-in", json={"code": code, "device_name": "browser"})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_listed_account_signs_in_and_is_the_same_user_ever_after(
    gateway: GatewayHouse, github: GithubServer
) -> None:
    github.browser = "alice"
    async with browser() as client, browser() as another:
        offered = (await client.get(gateway.url + "/api/sign-in/github")).json()
        assert offered == {"available": True, "start": START}
        first = await signed_in(client, gateway)
        github.accounts["alice"].login = "alice-renamed"
        second = await signed_in(another, gateway)
    github.accounts["alice"].login = "alice"
    assert first["user"] == second["user"] != "owner"
    assert first["token"] != second["token"]
    async with rest(gateway, first["token"]) as page:
        me = (await page.get("/api/me")).json()
    assert (me["name"], me["role"], me["github"]) == ("alice", "user", "alice-renamed")
    assert len(me["devices"]) == 2


async def test_the_owners_login_is_the_owner(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "olivia"
    async with browser() as client:
        found = await signed_in(client, gateway)
    assert (found["user"], found["role"]) == ("owner", "owner")


async def test_the_cookie_is_for_this_server_alone_and_goes_away(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "bob"
    async with browser() as client:
        left = await client.get(gateway.url + START)
        cookie = left.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=lax" in cookie
        assert "max-age=600" in cookie
        assert client.cookies
        await client.get((await client.get(left.headers["location"])).headers["location"])
        assert not client.cookies


async def test_over_https_the_cookie_is_secure_and_tied_to_the_host(gateway: GatewayHouse) -> None:
    behind_tls = GatewayHouse(
        gateway.nats, **{**gateway.environment, "ERRAND_PUBLIC_URL": "https://errand.example.org"}
    )
    behind_tls.environment["ERRAND_PORT"] = str(behind_tls.port)
    behind_tls.start()
    try:
        async with browser() as client:
            left = await client.get(behind_tls.url + START)
    finally:
        behind_tls.terminate()
    cookie = left.headers["set-cookie"]
    assert cookie.startswith("__Host-errand-github=")
    assert "secure" in cookie.lower()
    assert "domain" not in cookie.lower()
    sent = parse_qs(urlsplit(left.headers["location"]).query)
    assert sent["redirect_uri"] == ["https://errand.example.org" + CALLBACK]


async def refused(client: httpx2.AsyncClient, url: str, status: int, words: str) -> None:
    answer = await client.get(url)
    assert (answer.status_code, "location" in answer.headers) == (status, False), answer.text
    assert answer.headers["content-type"].startswith("text/html")
    assert words in answer.text


async def test_an_answer_that_comes_again_is_refused(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "bob"
    async with browser() as client:
        back = await go_to_github(client, gateway)
        cookies = dict(client.cookies)
        await redeem(gateway, await client.get(back))
        await refused(client, back, 400, "start again")
        client.cookies.update(cookies)
        await refused(client, back, 400, "finished already")


async def test_another_browser_cannot_bring_the_answer(gateway: GatewayHouse, github: GithubServer) -> None:
    """Neither one without the cookie nor one with a sign-in of its own under way."""
    github.browser = "bob"
    async with browser() as victim, browser() as other:
        back = await go_to_github(victim, gateway)
        await refused(other, back, 400, "another browser")
        await other.get(gateway.url + START)
        await refused(other, back, 400, "another browser")


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "..", "9" * 5000, "ab.99999999999.Zm9v", "ab.-1.x", "é.1.x"])
async def test_a_made_up_cookie_is_refused(gateway: GatewayHouse, cookie: str) -> None:
    async with browser() as client:
        answer = await client.get(
            f"{gateway.url}{CALLBACK}?code=x&state=y", headers={"cookie": f"errand-github={cookie}".encode()}
        )
    assert answer.status_code == 400, answer.text


async def test_a_sign_in_that_took_too_long_is_refused(gateway: GatewayHouse, github: GithubServer) -> None:
    key = ticket.make_key(CLIENT_SECRET)
    late = ticket.issue(key, secrets.token_hex(16), datetime.now(UTC) - timedelta(minutes=11))
    in_time = ticket.issue(key, secrets.token_hex(16), datetime.now(UTC) - timedelta(minutes=9))
    async with browser() as client:
        for pending, words in ((late, "over ten minutes ago"), (in_time, "GitHub refused this sign-in")):
            client.cookies.set("errand-github", pending.cookie, domain="127.0.0.1", path="/")
            await refused(client, f"{gateway.url}{CALLBACK}?code=x&state={pending.state}", 400, words)


async def test_without_pkce_or_with_another_challenge_nobody_gets_in(
    gateway: GatewayHouse, github: GithubServer
) -> None:
    github.browser = "bob"
    async with browser() as client:
        location = (await client.get(gateway.url + START)).headers["location"]
        challenge = parse_qs(urlsplit(location).query)["code_challenge"][0]
        without = await client.get(location.replace(f"&code_challenge={challenge}", "&code_challenge="))
        assert without.status_code == 400
        returned = await client.get(location.replace(challenge, "A" * 43))
        await refused(client, returned.headers["location"], 400, "GitHub refused this sign-in")


async def test_a_code_works_once(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "bob"
    async with browser() as client:
        back = await go_to_github(client, gateway)
        await redeem(gateway, await client.get(back))
        used = parse_qs(urlsplit(back).query)["code"][0]
        fresh = await go_to_github(client, gateway)
        code = parse_qs(urlsplit(fresh).query)["code"][0]
        await refused(client, fresh.replace(code, used), 400, "GitHub refused this sign-in")


@pytest.mark.parametrize(
    "extra",
    [
        "?next=//evil.example",
        "?redirect_uri=https://evil.example/x",
        "?return_to=https:evil.example",
        "?start=https://evil.example#",
    ],
)
async def test_a_browser_is_sent_nowhere_else(gateway: GatewayHouse, github: GithubServer, extra: str) -> None:
    github.browser = "bob"
    async with browser() as client:
        left = await client.get(gateway.url + START + extra, headers={"x-forwarded-host": "evil.example"})
        assert left.headers["location"].startswith(github.base + "/login/oauth/authorize?")
        sent = parse_qs(urlsplit(left.headers["location"]).query)
        assert sent["redirect_uri"] == [gateway.url + CALLBACK]
        foreign = left.headers["location"].replace("redirect_uri=http", "redirect_uri=https")
        assert (await client.get(foreign)).status_code == 404
        back = (await client.get(left.headers["location"])).headers["location"]
        home = await client.get(f"{back}&{extra[1:]}", headers={"x-forwarded-host": "evil.example"})
    assert home.headers["location"].startswith("/#code=")


async def test_an_account_that_is_not_listed_stays_out(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "mallory"
    async with browser() as client:
        await refused(client, await go_to_github(client, gateway), 403, "mallory may not sign in here")
        assert [grant.dead for grant in github.grants if grant.account.login == "mallory"] == [True]
        again = await client.get(f"{gateway.url}{START}?choose=1")
        assert parse_qs(urlsplit(again.headers["location"]).query)["prompt"] == ["select_account"]
    async with rest(gateway, OWNER_TOKEN) as owner:
        users = (await owner.get("/api/users")).json()["users"]
    assert "mallory" not in [user["name"] for user in users]


async def test_who_takes_a_login_over_does_not_become_its_former_holder(
    gateway: GatewayHouse, github: GithubServer
) -> None:
    github.browser = "carol"
    async with browser() as client:
        await signed_in(client, gateway)
        former = (await signed_in(client, gateway))["user"]
        github.accounts["carol"].id = 666
        await refused(client, await go_to_github(client, gateway), 403, "another GitHub account")
        async with rest(gateway, OWNER_TOKEN) as owner:
            assert (await owner.delete(f"/api/users/{former}/github")).status_code == 204
        assert (await signed_in(client, gateway))["user"] != former


async def test_a_user_who_was_removed_leaves_no_token_alive(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "ivan"
    async with browser() as client, rest(gateway, OWNER_TOKEN) as owner:
        user = (await signed_in(client, gateway))["user"]
        assert (await owner.delete(f"/api/users/{user}")).status_code == 204
        await refused(client, await go_to_github(client, gateway), 403, "The owner removed this user")
    assert github.grants[-1].dead


async def test_who_says_no_at_github_is_told_so(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = ""
    async with browser() as client:
        await refused(client, await go_to_github(client, gateway), 403, "did not allow it")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/login/oauth/access_token", 503, "cannot be reached"),
        ("/api/v3/user", 500, "did not say whose account"),
        ("/api/v3/user", 200, "cannot be reached"),
    ],
)
async def test_a_github_that_stumbles_is_explained(
    gateway: GatewayHouse, github: GithubServer, path: str, status: int, words: str
) -> None:
    github.browser = "bob"
    async with browser() as client:
        back = await go_to_github(client, gateway)
        github.faults.append(Answer(path, status))
        await refused(client, back, 502, words)


async def test_any_gateway_finishes_what_another_began_also_after_a_restart(
    gateway: GatewayHouse, github: GithubServer
) -> None:
    github.browser = "dave"
    async with browser() as client:
        back = await go_to_github(client, gateway)
        gateway.kill()
        with another_gateway(gateway) as other:
            found = await redeem(other, await client.get(back.replace(gateway.url, other.url)))
        gateway.start()
        assert found["name"] == "dave"
        assert (await signed_in(client, gateway))["user"] == found["user"]


@contextmanager
def another_gateway(gateway: GatewayHouse) -> Iterator[GatewayHouse]:
    """Beside the first, for the same people."""
    other = GatewayHouse(gateway.nats, **gateway.environment)
    other.environment |= {"ERRAND_PORT": str(other.port), "ERRAND_PUBLIC_URL": gateway.url}
    other.start()
    try:
        yield other
    finally:
        other.terminate()


async def test_two_gateways_do_not_let_one_answer_in_twice(gateway: GatewayHouse, github: GithubServer) -> None:
    """Two good codes for one pending sign-in, at the same moment: the user's log decides which one counts."""
    github.browser = "erin"
    with another_gateway(gateway) as other:
        async with browser() as client:
            left = (await client.get(gateway.url + START)).headers["location"]
            backs = [(await client.get(left)).headers["location"] for _ in range(2)]
            backs[1] = backs[1].replace(gateway.url, other.url)
            answers: list[httpx2.Response] = []

            async def come_back(url: str) -> None:
                async with browser() as twin:
                    twin.cookies.update(client.cookies)
                    answers.append(await twin.get(url))

            async with anyio.create_task_group() as group:
                for back in backs:
                    group.start_soon(come_back, back)
    assert sorted(answer.status_code for answer in answers) == [303, 400], [answer.text for answer in answers]
    assert sorted(grant.dead for grant in github.grants if grant.account.login == "erin") == [False, True]


async def test_the_tokens_are_in_no_message_and_no_log_line(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "frank"
    async with browser() as client:
        token = (await signed_in(client, gateway))["token"]
    async with connect(gateway.nats.bus_config(Service.HISTORY), Service.HISTORY) as bus:
        stored = await bus.replay(">")
    linked = [
        event
        for message in stored
        if ".user." in message.subject and message.subject.startswith("evt.")
        for event in decode_user_decision(message.data).events
        if type(event).__name__ == "GithubLinked"
    ]
    assert any(event.login == "frank" for event in linked)
    seen = b"\n".join(message.data for message in stored).decode() + gateway.log.read_text()
    for secret in (*github.secrets(), *github.codes, token):
        assert secret not in seen


async def test_an_account_is_forgotten_on_request(gateway: GatewayHouse, github: GithubServer) -> None:
    github.browser = "grace"
    async with browser() as client:
        token = (await signed_in(client, gateway))["token"]
        async with rest(gateway, token) as page:
            me = (await page.get("/api/me")).json()
            assert me["github"] == "grace"
            own = f"/api/users/{me['user']}/github"
            assert (await page.delete("/api/users/owner/github")).status_code == 403
            assert (await page.delete(own)).status_code == 204
            assert (await page.get("/api/me")).json()["github"] == ""
        async with rest(gateway, OWNER_TOKEN) as owner:
            again = await owner.delete(own)
            assert (again.status_code, "No GitHub account" in again.json()["error"]) == (404, True)
            assert (await owner.delete("/api/users/u_nobody/github")).status_code == 404
        assert (await signed_in(client, gateway))["name"] == "grace"


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (None, "ok", "olivia may sign in"),
        (Answer("/applications/", 401), "fail", "does not know this client id"),
        (Answer("/applications/", 503), "fail", "answers 503"),
    ],
    ids=["well", "wrong-secret", "away"],
)
async def test_the_doctor_tries_the_app_and_names_what_to_register(
    gateway: GatewayHouse, github: GithubServer, fault: Answer | None, status: str, words: str
) -> None:
    github.faults += [fault] if fault else []
    async with rest(gateway, OWNER_TOKEN) as owner:
        checks = {check["name"]: check for check in (await owner.get("/api/doctor")).json()["checks"]}
    assert checks["github"]["status"] == status
    assert words in checks["github"]["text"]
    assert gateway.url + CALLBACK in checks["github"]["text"]


async def test_a_secret_that_is_gone_is_explained_and_ends_nothing(gateway: GatewayHouse, github: GithubServer) -> None:
    secret = Path(gateway.environment["ERRAND_GITHUB_CLIENT_SECRET_FILE"])
    aside = secret.rename(secret.with_suffix(".aside"))
    try:
        async with browser() as client:
            await refused(client, gateway.url + START, 500, "cannot be read")
            await refused(client, gateway.url + CALLBACK, 500, "cannot be read")
    finally:
        aside.rename(secret)
    github.browser = "bob"
    async with browser() as client:
        assert (await signed_in(client, gateway))["name"] == "bob"


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("ERRAND_GITHUB_CLIENT_SECRET_FILE", "", "ERRAND_GITHUB_CLIENT_SECRET_FILE is not set"),
        ("ERRAND_GITHUB_CLIENT_SECRET_FILE", "/nonexistent", "cannot be read"),
        ("ERRAND_GITHUB_CLIENT_SECRET_FILE", "/dev/null", "is empty"),
        ("ERRAND_GITHUB_URL", "github.com", "ERRAND_GITHUB_URL"),
        ("ERRAND_GITHUB_API_URL", "https://u:p@api", "ERRAND_GITHUB_API_URL"),
        ("ERRAND_GITHUB_URL", "https://a b", "ERRAND_GITHUB_URL"),
        ("ERRAND_GITHUB_URL", "http://github.example.org", "in the clear"),
    ],
)
async def test_a_wrong_setting_is_refused_with_its_name(
    gateway: GatewayHouse, setting: str, value: str, words: str
) -> None:
    for program in ("gateway", "services.repos"):
        environment = {**gateway.environment, "ERRAND_DATA": "/nonexistent", setting: value}
        done = await anyio.run_process([sys.executable, "-m", program], env=environment, check=False)
        assert done.returncode == 1
        assert words in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()


@pytest.fixture(scope="module")
def without_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayHouse]:
    with gateway_house(tmp_path_factory.mktemp("without-app")) as house:
        yield house


async def test_a_server_without_an_app_offers_nothing(without_app: GatewayHouse) -> None:
    async with browser() as client:
        assert (await client.get(without_app.url + "/api/sign-in/github")).json()["available"] is False
        await refused(client, without_app.url + START, 404, "ERRAND_GITHUB_CLIENT_ID")
        await refused(client, without_app.url + CALLBACK, 404, "ERRAND_GITHUB_CLIENT_ID")
