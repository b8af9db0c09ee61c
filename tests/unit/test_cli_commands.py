"""The command line itself: what it takes, what it refuses, and what it loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from services.cli import COMMANDS, errand
from services.cli.commands.doctor import check_disk, check_git, check_sandbox, check_settings, server_checks
from services.cli.commands.nats_context import context, context_file
from services.cli.failure import Failure
from services.cli.tasks import the_one_of

NO_ONE = {"ERRAND_SERVER": "http://127.0.0.1:1", "ERRAND_TOKEN": "x"}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_the_help_that_the_list_promises(name: str) -> None:
    command = errand.get_command(click.Context(errand), name)
    assert command is not None
    assert command.name == name
    assert (command.help or "").replace("\n", " ").startswith(COMMANDS[name].removesuffix("."))
    assert CliRunner().invoke(errand, [name, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["lss"], 2, "Did you mean 'ls'?"),
        (["submit"], 2, "Missing argument 'PROMPT'"),
        (["submit", "x", "--budget-usd", "-1"], 2, "neither a number from 0 nor `unlimited`"),
        (["submit", "x", "--budget-usd", "nan"], 2, "neither a number"),
        (["submit", "x", "--budget-steps", "1.5"], 2, "neither a whole number"),
        (["submit", "x", "--priority", "11"], 2, "11 is not in the range"),
        (["priority", "t", "-11"], 2, "-11 is not in the range"),
        (["submit", " "], 1, "The prompt is empty"),
        (["submit", "x" * 100_001], 1, "limit is 100,000"),
        (["submit", "x", "--key", "k" * 201], 1, "longer than 200 bytes"),
        (["submit", "x", "--key", ""], 2, "leave --key out"),
        (["pause", "--tag", "x", "--key", ""], 2, "leave --key out"),
        (["submit", "x", "--repo", ""], 1, "`--repo` is empty"),
        (["submit", "x", "--repo", " "], 1, "`--repo` is empty"),
        (["message", "taaaaaaaaaaaaaaaa", " "], 1, "The message is empty"),
        (["sql", ""], 1, "The query is empty"),
        (["sql", "SELECT 1", "--csv", "--json"], 2, "Choose one"),
        (["ls", "--state", "lost"], 2, "'lost' is not one of"),
        (["up", "--port", "70000"], 2, "70000 is not in the range"),
        (["ls"], 1, "No Errand server answers at http://127.0.0.1:1: start it with `errand up`"),
        (["show", "t"], 1, "No Errand server answers"),
        (["queue", "limit", "gpu", "9" * 32], 2, "is not in the range 1<=x<=100000"),
        (["queue", "resume", ""], 1, "'' names nothing: give the name or the id"),
        (["login", "nonsense"], 1, "not a sign-in link"),
        (["setup", "ls"], 1, "run this where the runner runs"),
        (["setup", "forget"], 1, "Say which"),
        (["login", "http://127.0.0.1:1/#code=x"], 1, "No Errand server answers"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    environment = {**NO_ONE, "ERRAND_DATA": str(tmp_path)}
    result = CliRunner().invoke(errand, arguments, env=environment)
    assert says in result.output
    assert result.exit_code == code
    assert "Traceback" not in result.output
    as_json = arguments if "--json" in arguments else [*arguments, "--json"]
    result = CliRunner().invoke(errand, as_json, env=environment)
    assert list(json.loads(result.stdout)) == ["error"]
    assert result.exit_code == code


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "caf\udce9"],
        ["submit", "x", "--repo", "/caf\udce9"],
        ["submit", "-"],
        ["message", "taaaaaaaaaaaaaaaa", "-"],
        ["sql", "-"],
        ["sql", "SELECT 'caf\udce9'"],
    ],
)
def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path, arguments: list[str]) -> None:
    environment = {**NO_ONE, "ERRAND_DATA": str(tmp_path)}
    result = CliRunner().invoke(errand, arguments, env=environment, input=b"caf\xe9")
    assert result.output.startswith("errand: This is not UTF-8: ")
    assert result.exit_code == 1


def test_a_machine_that_is_not_signed_in_is_told_how(tmp_path: Path) -> None:
    nobody = {"ERRAND_DATA": str(tmp_path), "ERRAND_SERVER": "", "ERRAND_TOKEN": ""}
    result = CliRunner().invoke(errand, ["ls"], env=nobody)
    assert result.output.startswith("errand: This machine is not signed in: run `errand up`")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["ls"], ["submit", "x", "--repo", "/r"], ["watch", "taaaaaaaaaaaaaaaa"]]
)
def test_the_client_loads_none_of_the_servers_packages(tmp_path: Path, arguments: list[str]) -> None:
    program = (
        "import sys\nfrom services.cli import errand\n"
        f"try: errand({arguments!r})\nexcept SystemExit: pass\n"
        "print(sorted({'litestar', 'duckdb', 'anthropic', 'nats', 'uvicorn', 'structlog'} & set(sys.modules)))"
    )
    environment = {**NO_ONE, "ERRAND_DATA": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("said", "status"),
    [("git version 2.39.5", "ok"), ("git version 2.20.1", "fail"), ("", "fail"), ("nonsense", "fail")],
)
def test_the_doctor_knows_an_old_git(said: str, status: str) -> None:
    assert check_git(said).status == status


def test_the_doctor_looks_at_the_disk_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert str(tmp_path) in check_disk(tmp_path / "not" / "yet").text


@pytest.mark.parametrize(
    ("setting", "status", "said"),
    [
        ("auto", "warn", "bubblewrap works (there is no Docker Engine at {socket}), without a limit of memory"),
        ("docker", "fail", "none: there is no Docker Engine at {socket}."),
        ("unsandboxed", "warn", "UNSANDBOXED: commands run on this machine as you."),
    ],
)
def test_the_doctor_says_which_sandbox_there_is_and_why(
    setting: str, status: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRAND_SANDBOX", setting)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    check = check_sandbox(tmp_path)[0]
    assert (check.name, check.status) == ("sandbox", status)
    assert check.text.startswith(said.format(socket=tmp_path / "no.sock"))


@pytest.mark.parametrize("no_color", ["1", ""])
def test_a_terminal_has_colours_unless_its_user_wants_none(no_color: str, tmp_path: Path) -> None:
    environment = {**NO_ONE, "ERRAND_DATA": str(tmp_path), "ERRAND_SANDBOX": "unsandboxed", "NO_COLOR": no_color}
    result = CliRunner().invoke(errand, ["doctor"], env=environment, color=True)
    assert ("\x1b[" in result.output) is not bool(no_color)
    assert result.exit_code == 1, "no server answers"


def test_the_doctor_says_what_no_service_would_start_with() -> None:
    [check] = check_settings({"ERRAND_SANDBOX": "dokcer", "ERRAND_DATA": ""})
    assert (check.name, check.status) == ("settings", "fail")
    assert check.text.startswith('ERRAND_SANDBOX: "dokcer" is not auto, docker')


def test_the_doctor_shows_what_the_server_says_of_itself_as_text() -> None:
    checks = server_checks({"checks": [{"name": "nats", "status": "fail", "text": "\x1b[2Jgone"}, {"status": "?"}]})
    assert [(check.name, check.status, check.text) for check in checks] == [
        ("nats", "fail", "gone"),
        ("server", "warn", ""),
    ]


def test_the_nats_context_is_private_and_reads_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "secrets").mkdir(parents=True)
    (data / "secrets" / "nats-reader").write_text("hush\n")
    (data / "nats-url").write_text("nats://127.0.0.1:4222")
    environment = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "ERRAND_NATS_URL": ""}
    result = CliRunner().invoke(errand, ["nats-context", "--data", str(data)], env=environment)
    assert result.exit_code == 0, result.output
    assert "hush" not in result.output
    path = context_file(str(tmp_path / "config"))
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == context("nats://127.0.0.1:4222", "hush")


def test_a_nats_context_needs_the_servers_data(tmp_path: Path) -> None:
    result = CliRunner().invoke(errand, ["nats-context", "--data", str(tmp_path)])
    assert "run this on the server" in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("given", "found"), [("s1", "s1"), ("s12", "s12"), ("s2", "s2x"), ("s3", ""), ("", "")], ids=str
)
def test_an_id_is_meant_by_its_beginning_where_no_other_begins_so(given: str, found: str) -> None:
    assert the_one_of(given, ["s1", "s12", "s2x"]) == found


def test_a_beginning_of_several_ids_asks_for_more() -> None:
    with pytest.raises(Failure, match="may be any of s1, s12: give more"):
        the_one_of("s", ["s1", "s12"])


def test_a_welcome_beside_errand_up_says_what_to_do_instead() -> None:
    result = CliRunner().invoke(errand, ["welcome"], env={"ERRAND_DATA": "", "ERRAND_SERVER": ""})
    assert result.exit_code == 1
    assert "ERRAND_DATA and ERRAND_SERVER are not set" in result.output
    assert "`errand user link` makes a new link" in result.output
