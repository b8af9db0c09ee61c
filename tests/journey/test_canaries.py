"""Canary credentials in every place where the house keeps its own, and where the machine's user does: a task's commands
find none of them, and none is in anything that the house writes or shows."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocol.base import encode
from protocol.journal import StepFinished
from protocol.routes import Service
from protocol.task import TaskState
from sandbox.config import DOCKER_HOST, Config
from sandbox.docker import connect
from services.up import free_port
from tests.contract.test_sandbox import skip_unless_available
from tests.integration.repos_house import command_lines, git_server, make_origin
from tests.journey import credential_search
from tests.journey.house import House, Phone, errand_up, phone
from tests.journey.test_github import errand, files_with

pytestmark = pytest.mark.anyio
SEARCH = Path(credential_search.__file__)
PROMPT = f"[scenario: program] run={SEARCH.name}"
HOMES = (
    ".aws/credentials",
    ".config/gh/hosts.yml",
    ".docker/config.json",
    ".git-credentials",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".ssh/id_ed25519",
)
"""Where a user's tools keep theirs."""
SHORT = 30
"""A line of a key's file that is no longer is no secret of its own: `-----BEGIN PRIVATE KEY-----`."""
VARIABLES = ("AWS_SECRET_ACCESS_KEY", "DOCKER_AUTH_CONFIG", "GH_TOKEN", "GITHUB_TOKEN", "SSH_AUTH_SOCK")


class Canaries:
    """Made by the name of their place."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def new(self, place: str) -> str:
        self.known[place] = credential_search.CANARY.decode() + secrets.token_hex(16)
        return self.known[place]

    def write(self, path: Path, text: str = "{}") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text.format(self.new(str(path))))
        path.chmod(0o600)
        return path

    def seen_in(self, text: str) -> list[str]:
        return [place for place, word in self.known.items() if any(form in text for form in self.forms(word))]

    @staticmethod
    def forms(word: str) -> list[str]:
        return [form.decode() for form in credential_search.forms(word.encode())]


@pytest.fixture
async def driver(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Its name, where this machine has it."""
    if request.param == "docker":
        docker = connect(Config(), DOCKER_HOST, tmp_path / "try", "test")
        try:
            await skip_unless_available(docker)
        finally:
            await docker.close()
    return request.param


@contextmanager
def scripted_model() -> Iterator[str]:
    """Its URL: a house that has a key starts none itself."""
    port = free_port()
    command = [sys.executable, "-m", "agents.models.scripted", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def plant(canaries: Canaries, folder: Path) -> dict[str, str]:
    """In the files of the house and of its user, before it starts; returns its environment."""
    for service in Service:
        canaries.write(folder / "data" / "secrets" / f"nats-{service}")
    canaries.write(folder / "data" / "secrets" / "github-app.pem")
    for name in HOMES:
        canaries.write(folder / "home" / name)
    canaries.write(folder / "home" / ".gitconfig", "[http]\n\textraHeader = X-Key: {}\n")
    client_secret = canaries.write(folder / "app" / "client-secret")
    return {
        "HOME": str(folder / "home"),
        "ANTHROPIC_API_KEY": canaries.new("the model's key"),
        "ERRAND_GITHUB_CLIENT_ID": "Iv23errandtests",
        "ERRAND_GITHUB_CLIENT_SECRET_FILE": str(client_secret),
        **{name: canaries.new(name) for name in VARIABLES},
    }


def take_made(canaries: Canaries, house: House) -> None:
    """What the house has made itself is looked for as well."""
    canaries.known["the command line's token"] = house.token
    for path in (house.data / "secrets").glob("*.key"):
        for line in path.read_text().splitlines():
            if len(line) > SHORT:
                canaries.known[path.name] = line.strip()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("driver", ["bubblewrap", "docker"], indirect=True)
async def test_no_credential_is_ever_inside_a_sandbox_or_in_what_the_house_writes(driver: str, tmp_path: Path) -> None:
    canaries = Canaries()
    told = plant(canaries, tmp_path)
    files = {SEARCH.name: SEARCH.read_text(), ".errand/setup.sh": 'echo "set up with $REGISTRY_TOKEN"\n'}
    origin = make_origin(tmp_path / "origins" / "app.git", files)
    with (
        scripted_model() as model,
        git_server(origin.parent, canaries.new("git's token")) as server,
        errand_up(
            tmp_path / "data",
            **told,
            ERRAND_SANDBOX=driver,
            ERRAND_MODEL_URL=model,
            ERRAND_SCRIPTED="1",
            ERRAND_MODEL="scripted",
            ERRAND_LOG_LEVEL="debug",
        ) as house,
    ):
        give(house, canaries.known["git's token"], "host", "add", server.host)
        give(house, canaries.new("a secret for set-ups"), "secret", "set", "REGISTRY_TOKEN")
        take_made(canaries, house)
        async with phone(house) as owner:
            task = await owner.submit(PROMPT, server.url(origin), key="search")
            done = await owner.ended(task)
            assert done.state is TaskState.SUCCEEDED, f"{done.reason}\n{house.logs()}"
            assert canaries.seen_in("".join(server.seen_authorizations)), "the credential was used"
            assert_found_only_decoys(owner, task)
            assert "set up with [REGISTRY_TOKEN]" in shown_to(owner, task), "the secret was used"
            assert canaries.seen_in(shown_to(owner, task)) == []
        assert canaries.seen_in("\n".join(command_lines())) == []
        assert canaries.seen_in(history_of(house)) == []
        assert_not_on_disk(canaries, house.data)
    assert_not_on_disk(canaries, tmp_path / "data")
    forget_set_up(tmp_path / "data", driver, server.url(origin))


def forget_set_up(data: Path, driver: str, repository: str) -> None:
    """Or an engine would keep its image for ever."""
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "setup", "forget", "--repo", repository],
        env={**os.environ, "ERRAND_DATA": str(data), "ERRAND_SANDBOX": driver},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, "is forgotten" in done.stdout) == (0, True), done.stdout + done.stderr


def give(house: House, secret: str, *words: str) -> None:
    given = subprocess.run(
        [sys.executable, "-m", "services.cli", *words],
        env={"PATH": "/usr/bin:/bin", "ERRAND_SERVER": house.ready.server, "ERRAND_TOKEN": house.token},
        input=secret,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert given.returncode == 0, given.stderr


def assert_found_only_decoys(owner: Phone, task: str) -> None:
    texts = [
        frame.entry.event.result.text
        for frame in owner.events[task]
        if (entry := getattr(frame, "entry", None)) and isinstance(entry.event, StepFinished)
        if "decoys" in getattr(frame.entry.event.result, "text", "")
    ]
    report: Mapping[str, object] = json.loads(texts[0][texts[0].index("{") : texts[0].rindex("}") + 1])
    assert report["found"] == []
    assert report["decoys"] == ["/proc/child/environ", "/tmp/home/.gitconfig", "/tmp/in-a-file", "git config"]
    assert isinstance(report["looked"], int)
    assert report["looked"] > 100


def shown_to(owner: Phone, task: str) -> str:
    return "\n".join(encode(frame).decode() for frame in (*owner.events[task], *owner.others))


def history_of(house: House) -> str:
    """Every row of every table and view that the owner may ask."""
    names = json.loads(errand(house, house.token, "sql", "--json", "select table_name from information_schema.tables"))
    rows = ", ".join(f'(select list(t)::varchar from "{row[0]}" t)' for row in names["rows"])
    said = errand(house, house.token, "sql", "--json", f"select {rows}")
    assert SEARCH.name in said
    return said


def assert_not_on_disk(canaries: Canaries, data: Path) -> None:
    """The store with its streams, objects and output, the history, logs, mirrors and workspaces: all but the two places
    for secrets."""
    assert "/nats/" in files_with(SEARCH.name, data), "what is looked through is readable"
    patterns = "\n".join(form for word in canaries.known.values() for form in canaries.forms(word))
    command = ["grep", "-rlaF", "-f", "-", "--exclude-dir=secrets", "--exclude=client.json", str(data)]
    found = subprocess.run(command, input=patterns, capture_output=True, text=True).stdout
    assert found == ""
    assert base64.b64decode("Y2FuYXJ5") == credential_search.CANARY[:6], "base64 is looked for too"
