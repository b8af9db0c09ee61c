"""The real `nats` CLI, with the context that `errand nats-context` wrote: it shows the house, and changes nothing."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journey.house import House, errand_up
from tests.journey.test_kills import make_repository
from tests.natscli.build import program

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTED = [
    shlex.split(line, comments=True)
    for block in BLOCK.findall((ROOT / "docs" / "tracing.md").read_text())
    for line in block.splitlines()
    if not line.startswith("go ")
]
TRACED = 40
"""More messages than a task of this scenario has."""


class Cli:
    """`errand` and `nats` on the server."""

    def __init__(self, house: House, config: Path) -> None:
        self.house = house
        self._nats = program()
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(config),
            "XDG_CONFIG_HOME": str(config),
            "ERRAND_DATA": str(house.data),
        }

    def errand(self, *arguments: str) -> str:
        command = (sys.executable, "-m", "services.cli", *arguments)
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True).stdout

    def nats(self, *arguments: str) -> str:
        """What it prints, out and err."""
        return self.start(*arguments).communicate(timeout=20)[0]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = (self._nats, "--context", "errand", "--timeout", "1s", *arguments)
        return subprocess.Popen(
            command, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def submit(self, prompt: str, repository: Path) -> str:
        """Watch a task to its end; its id."""
        said = self.errand("submit", prompt, "--repo", str(repository), "--watch", "--json")
        return next(json.loads(line)["task"] for line in said.splitlines() if '"task"' in line)


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with errand_up(tmp_path_factory.mktemp("house")) as house:
        cli = Cli(house, tmp_path_factory.mktemp("config"))
        cli.errand("nats-context")
        yield cli


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("repository") / "greeter")


@pytest.fixture(scope="module")
def task(cli: Cli, repository: Path) -> str:
    return cli.submit("[scenario: noop] to be looked at", repository)


def test_a_subscription_shows_a_running_task_readably_and_no_users_log(cli: Cli, repository: Path) -> None:
    """Everything by the widest subscription that is allowed, while a task runs and a user is added."""
    watching = cli.start("sub", "evt.>", "--count", str(TRACED), "--wait", "8s")
    commands = cli.start("sub", "cmd.>", "--count", str(TRACED), "--wait", "8s")
    for sub in (watching, commands):
        assert sub.stdout
        assert "Subscribing" in sub.stdout.readline()
    cli.errand("user", "add", "Bob")
    task = cli.submit("[scenario: noop] trace me", repository)
    seen, asked = watching.communicate(timeout=30)[0], commands.communicate(timeout=30)[0]
    subjects = re.findall(rf'Received on "evt\.owner\.{task}\.([a-z_.]+)"', seen)
    assert subjects[0] == "task.queued"
    assert subjects[-1] == "task.succeeded"
    assert {"task.running", "journal.attempt_started", "journal.step_started", "journal.step_finished"} <= set(subjects)
    assert '"type":"turn_ended","turn":1,"outcome":"succeeded"' in seen
    assert re.findall(r'Received on "cmd\.owner\.\w+\.(\w+)"', asked) == ["submit_task", "finish_attempt"]
    assert "Bob" not in seen + asked
    assert ".user." not in seen + asked


def test_the_streams_are_listed(cli: Cli, task: str) -> None:
    assert {"TASKS", "OUTPUT", "DEAD"} <= set(cli.nats("stream", "ls", "--names").split())
    assert "evt.> to live.>" in cli.nats("stream", "info", "TASKS")
    assert task in cli.nats("stream", "subjects", "TASKS")
    assert "Consumers" in cli.nats("consumer", "ls", "TASKS")


def test_the_services_answer_with_their_names_endpoints_and_counts(cli: Cli, task: str) -> None:
    listed = cli.nats("micro", "ls")
    assert [name for name in ("gateway", "scheduler", "runner", "repos", "history") if name not in listed] == []
    assert "qry.scheduler.claim_attempt" in cli.nats("micro", "info", "scheduler")
    counted = re.search(r"claim_attempt\s*│\s*(\d+)", cli.nats("micro", "stats", "scheduler"))
    assert counted
    assert int(counted[1]) >= 1
    assert "rtt=" in cli.nats("micro", "ping")


def test_the_last_event_of_a_kind_is_read_from_the_stream(cli: Cli, task: str) -> None:
    found = cli.nats("req", f"$JS.API.DIRECT.GET.TASKS.evt.owner.{task}.task.succeeded", "", "--raw")
    assert json.loads(found)["state"] == "succeeded"


@pytest.mark.parametrize("command", DOCUMENTED, ids=shlex.join)
def test_a_documented_command_works(cli: Cli, task: str, command: list[str]) -> None:
    program, *arguments = (word.replace("<task>", task) for word in command)
    if program == "errand":
        assert cli.errand(*arguments)
        return
    arguments = arguments[2:]  # the context
    said = cli.nats(*arguments, *(("--wait", "1s") if arguments[0] == "sub" else ()))
    assert "Permissions Violation" not in said
    assert "nats: error" not in said


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("pub", "cmd.owner.{task}.cancel_task", "{}"), "a command"),
        (("pub", "evt.owner.{task}.task.failed", "{}"), "an event"),
        (("pub", "live.owner.{task}.task.failed", "{}"), "an event as phones hear it"),
        (("pub", "out.owner.{task}", "{}"), "output"),
        (("pub", "_INBOX_scheduler.x", "{}"), "an answer to somebody else"),
        (("req", "qry.scheduler.list_tasks", '{"user": "owner"}'), "a query"),
        (("sub", "_INBOX_gateway.>"), "somebody else's answers"),
        (("sub", "evt.*.user.>"), "the users' logs"),
        (("sub", "evt.owner.user.device_added"), "a user's log"),
        (("sub", ">"), "everything"),
        (("sub", "$KV.>"), "the leases"),
        (("req", "$JS.API.DIRECT.GET.TASKS.evt.owner.user.user_added", ""), "a user's log, stored"),
        (("req", "$JS.API.DIRECT.GET.TASKS", '{"last_by_subj": "evt.owner.user.user_added"}'), "the same, by query"),
        (("stream", "get", "TASKS", "1"), "any message"),
        (("sub", "--stream", "TASKS", "--all", "evt.*.user.>"), "a consumer, which could deliver to anybody"),
        (("stream", "rm", "TASKS", "--force"), "a stream's end"),
        (("stream", "purge", "TASKS", "--force"), "a stream's emptying"),
        (("stream", "rmm", "TASKS", "1", "--force"), "a message's end"),
        (("stream", "add", "MINE", "--subjects", "x", "--defaults"), "a new stream"),
        (("kv", "put", "lease", "scheduler", "me"), "the scheduler's lease"),
        (("kv", "add", "mine"), "a new bucket"),
        (("object", "put", "blobs", __file__, "--force"), "a checkpoint"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_reader_is_refused(cli: Cli, task: str, arguments: tuple[str, ...], why: str) -> None:
    said = cli.nats(*(argument.format(task=task) if "{task}" in argument else argument for argument in arguments))
    assert "Permissions Violation" in said, said
    assert json.loads(cli.errand("show", task, "--json"))["state"] == "succeeded"
