"""The example clients of docs/examples do what they say, over a line that breaks where it hurts most."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.journey.cut_line import CutLine, cut_line
from tests.journey.house import House, errand_up
from tests.journey.test_kills import make_repository
from tests.web.node import NODE, ROOT

pytestmark = pytest.mark.anyio

CLIENTS = {
    "python": (sys.executable, ROOT / "docs/examples/client.py"),
    "node": (NODE, ROOT / "docs/examples/client.js"),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with errand_up(tmp_path_factory.mktemp("house")) as house:
        yield house


def asked(house: House, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {house.token}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(house.ready.server + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


async def answer(command: Sequence[Path | str], environment: Mapping[str, str], line: CutLine) -> str:
    """Run a client up to its question, break its line, answer `blue`; what it printed."""
    pipe = subprocess.PIPE
    client = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    assert client.stdin
    assert client.stdout
    with anyio.fail_after(90):
        shown = await client.stdout.readuntil(b"> ")
        line.cut()
        client.stdin.write(b"blue\n")
        rest, errors = await client.communicate()
    assert client.returncode == 0, errors.decode()
    return (shown + rest).decode()


@pytest.mark.parametrize("language", CLIENTS)
async def test_an_example_client_goes_from_the_link_to_the_branch_over_a_line_that_breaks(
    house: House, tmp_path: Path, language: str
) -> None:
    repository = make_repository(tmp_path / "greeter")
    account = tmp_path / "account.json"
    environment = {"ERRAND_CLIENT": str(account), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    code = asked(house, "POST", "/api/sign-in-codes", {})["link"].partition("#")[2]
    prompt = f"[scenario: ask] as {language}"
    # The first socket breaks after the handshake and the greeting: the task's acceptance is lost.
    async with cut_line(house.ready.server, -1, 2) as (line, server):
        signing_in = await anyio.run_process([*CLIENTS[language], f"{server}/#{code}"], env=environment)
        assert signing_in.stdout.decode() == f"Signed in to {server}.\n"
        shown = await answer([*CLIENTS[language], str(repository), prompt], environment, line)
        assert line.connections == 4, "to sign in, and one more after each break"
    assert account.stat().st_mode & 0o777 == 0o600
    assert "Which colour? red / blue" in shown
    branch = shown.strip().rpartition("Branch: ")[2]
    made = await anyio.run_process(["git", "show", f"{branch}:ANSWER.md"], cwd=repository)
    assert "blue" in made.stdout.decode()
    mine = [task for task in asked(house, "GET", "/api/tasks")["tasks"] if prompt in task["title"]]
    assert len(mine) == 1, "the key makes it one task"
