"""Against a GitHub that others wrote and keep: npm's `emulate`, by Vercel. It knows no PKCE, no refresh tokens and no
git (see `github_house`), but it was not made after our own reading of GitHub's documentation."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec
import pytest

from protocol.repo import PullRequestWish
from protocol.task import PullRequest
from services.github import GithubApp, GithubConfig, GithubRefused
from services.repos.address import parse
from services.repos.hosts import Branch
from services.repos.hosts.github import Github
from tests.integration.gateway_house import OWNER_TOKEN, SECONDS, GatewayHouse, Scheduler, gateway_house, repos, rest
from tests.integration.github_house import CLIENT_ID, CLIENT_SECRET, secret_file
from tests.integration.nats_house import free_port
from tests.web.node import NODE, packages

pytestmark = pytest.mark.anyio
CALLBACK = "/api/sign-in/github/callback"
ELSEWHERE = "http://127.0.0.1:9/callback"
WISH = PullRequestWish(title="Mend it", summary="It works.", model="claude-x")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("emulated")


@pytest.fixture(scope="module")
def github(folder: Path) -> Iterator[GithubConfig]:
    """Running, with octocat, who may sign in at any port of this machine."""
    program = packages() / "emulate" / "dist" / "index.js"
    app = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "name": "Errand"}
    seed = {
        "github": {
            "users": [{"login": "octocat", "name": "Octo Cat"}],
            "repos": [{"owner": "octocat", "name": "app", "private": True}],
            "oauth_apps": [{**app, "redirect_uris": [ELSEWHERE, f"http://127.0.0.1:{free_port_of(folder)}{CALLBACK}"]}],
        }
    }
    (folder / "seed.json").write_text(json.dumps(seed))
    url = f"http://127.0.0.1:{free_port()}"
    command = [NODE, program, "start", "--service", "github", "--port", url.rpartition(":")[2], "--seed", "seed.json"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = ""
        while "Ready" not in said:
            line = process.stdout.readline()
            assert line, f"the emulator did not start: {said}"
            said += line
        yield GithubConfig(
            github_client_id=CLIENT_ID,
            github_client_secret_file=str(secret_file(folder)),
            github_url=url,
            github_api_url=url,
        )
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def free_port_of(folder: Path) -> int:
    """The gateway's, chosen before it starts: it is registered with the app."""
    path = folder / "port"
    if not path.exists():
        path.write_text(str(free_port()))
    return int(path.read_text())


@pytest.fixture(scope="module")
def gateway(github: GithubConfig, folder: Path) -> Iterator[GatewayHouse]:
    told = {
        **{f"ERRAND_{name.upper()}": value for name, value in msgspec.to_builtins(github).items() if value},
        "ERRAND_GITHUB_USERS": "octocat",
        "ERRAND_PORT": str(free_port_of(folder)),
    }
    with gateway_house(folder / "house", **told) as house:
        house.port = free_port_of(folder)
        house.url = f"http://127.0.0.1:{house.port}"
        yield house


async def allow(browser: httpx2.AsyncClient, url: str, login: str) -> str:
    """Press the account's button on GitHub's page; return where the browser is sent."""
    page = await browser.get(url)
    assert f'value="{login}"' in page.text, page.text
    asked = {key: values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    form = {"login": login, **{key: asked[key] for key in ("redirect_uri", "scope", "state", "client_id")}}
    answer = await browser.post(f"{urlsplit(url).scheme}://{urlsplit(url).netloc}/login/oauth/callback", data=form)
    assert answer.status_code == 302, answer.text
    return answer.headers["location"]


@pytest.fixture
async def browser() -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        yield client


async def test_sign_in(gateway: GatewayHouse, browser: httpx2.AsyncClient) -> None:
    async with repos(gateway.nats), Scheduler.running(gateway.nats):
        left = await browser.get(f"{gateway.url}/api/sign-in/github/start")
        back = await browser.get(await allow(browser, left.headers["location"], "octocat"))
        assert back.status_code == 303, back.text
        code = back.headers["location"].removeprefix("/#code=")
        async with rest(gateway) as page:
            answer = await page.post("/api/sign-in", json={"code": code, "device_name": "browser"})
    assert (answer.status_code, answer.json()["name"]) == (201, "octocat")


async def test_the_doctor_speaks_to_it(gateway: GatewayHouse) -> None:
    async with rest(gateway, OWNER_TOKEN) as owner:
        checks = {check["name"]: check for check in (await owner.get("/api/doctor")).json()["checks"]}
    assert "octocat may sign in" in checks["github"]["text"], checks["github"]


async def token(github: GithubConfig, browser: httpx2.AsyncClient) -> str:
    app = GithubApp(github)
    url = app.authorization_url(redirect_uri=ELSEWHERE, state="s", verifier="v" * 43)
    code = parse_qs(urlsplit(await allow(browser, url, "octocat")).query)["code"][0]
    tokens = await app.exchange(code, redirect_uri=ELSEWHERE, verifier="v" * 43)
    assert (await app.identify(tokens)).login == "octocat"
    with pytest.raises(GithubRefused, match="incorrect or expired"):
        await app.exchange(code, redirect_uri=ELSEWHERE, verifier="v" * 43)
    return tokens.access


async def test_a_pull_request_is_opened_brought_up_to_date_and_left_closed(
    github: GithubConfig, browser: httpx2.AsyncClient
) -> None:
    access = await token(github, browser)
    address = parse(f"{github.url}/octocat/app")
    branch = Branch(address=address, name="errand/t1-mend", base="main", task="t1")
    host = Github(github, "https://errand.example.org")
    opened = await host.offer(branch, WISH, access)
    assert opened.notices == ()
    assert opened.pull_request is not None
    pulls = f"{github.api_url}/repos/octocat/app/pulls"
    signed = {"authorization": f"Bearer {access}"}
    again = await host.offer(branch, PullRequestWish(title="More", summary="Documented, too."), access)
    assert again == opened
    shown = (await browser.get(f"{pulls}/{opened.pull_request.number}", headers=signed)).json()
    assert (shown["title"], shown["head"]["ref"], shown["base"]["ref"]) == ("Mend it", "errand/t1-mend", "main")
    assert "Documented, too." in shown["body"]
    assert "It works." not in shown["body"]
    url = f"{pulls}/{opened.pull_request.number}"
    assert (await browser.patch(url, json={"state": "closed"}, headers=signed)).status_code == 200
    closed = await host.offer(branch, WISH, access)
    assert closed.pull_request == PullRequest(number=opened.pull_request.number, url=opened.pull_request.url)
    assert "is closed" in closed.notices[0]


async def test_a_repository_that_is_not_there_is_explained(github: GithubConfig, browser: httpx2.AsyncClient) -> None:
    branch = Branch(address=parse(f"{github.url}/octocat/none"), name="errand/t1", base="main", task="t1")
    offered = await Github(github, "").offer(branch, WISH, await token(github, browser))
    assert offered.pull_request is None
    assert "does not show the repository" in offered.notices[0]
