"""What the containers of compose.yaml do before their service."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol.routes import Service
from services.container import gateway, init, runner

COMPOSE = Path(__file__).parents[2] / "compose.yaml"
NOTHING = dict.fromkeys(init.GIVEN, "")
KEEPERS = ("nats", "gateway", "scheduler", "runner", "repos", "history", "operator")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in KEEPERS:
        (tmp_path / f"secrets-{name}").mkdir()
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_each_service_finds_its_own_password_alone_and_only_the_server_knows_them_all(folder: Path) -> None:
    init.make(folder, NOTHING)
    made = files(folder)
    assert set(made) == {
        *(f"secrets-{name}/nats-{name}" for name in KEEPERS if name != "nats"),
        "secrets-operator/nats-reader",
        "secrets-nats/nats.conf",
    }
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.rglob("*") if path.is_file())
    passwords = {name: text for name, text in made.items() if name != "secrets-nats/nats.conf"}
    assert all(password in made["secrets-nats/nats.conf"] for password in passwords.values())
    assert len(set(passwords.values())) == len(Service)


def test_made_again_the_passwords_stay(folder: Path) -> None:
    init.make(folder, NOTHING)
    before = files(folder)
    init.make(folder, NOTHING)
    assert files(folder) == before


def test_what_is_given_reaches_those_who_need_it_and_goes_when_it_is_given_no_more(folder: Path) -> None:
    init.make(folder, {"anthropic_api_key": "sk-1", "github_client_secret": "gh-1"})
    given = {name: text for name, text in files(folder).items() if "/given/" in name}
    assert given == {
        "secrets-runner/given/anthropic_api_key": "sk-1",
        "secrets-gateway/given/github_client_secret": "gh-1",
        "secrets-repos/given/github_client_secret": "gh-1",
    }
    init.make(folder, NOTHING)
    assert not any("/given/" in name for name in files(folder))


def test_a_key_in_the_settings_of_every_service_is_refused_with_where_it_belongs() -> None:
    init.refuse({"ANTHROPIC_API_KEY": ""}, NOTHING)
    with pytest.raises(SystemExit, match="ANTHROPIC_API_KEY_FILE") as refused:
        init.refuse({"ANTHROPIC_API_KEY": "sk-secret"}, NOTHING)
    assert "sk-secret" not in str(refused.value)


def test_a_key_file_without_a_key_is_refused() -> None:
    with pytest.raises(SystemExit, match="no key in it"):
        init.refuse({"ANTHROPIC_API_KEY_FILE": "./key"}, NOTHING)


def test_a_misspelt_setting_is_refused_before_a_service_starts() -> None:
    with pytest.raises(SystemExit, match="Did you mean ERRAND_SANDBOX_EGRESS"):
        init.refuse({"ERRAND_SANDBX_EGRESS": "example.com", "ERRAND_IMAGE": "errand"}, NOTHING)


def test_the_scripted_model_answers_only_where_there_is_neither_a_key_nor_another_model() -> None:
    assert runner.settings({}, "")["ERRAND_SCRIPTED"] == "1"
    assert runner.settings({"A": "b"}, "sk-1") == {"A": "b", "ANTHROPIC_API_KEY": "sk-1"}
    assert runner.settings({"ERRAND_MODEL_URL": "http://m"}, "") == {"ERRAND_MODEL_URL": "http://m"}


def test_the_engines_socket_is_the_runners_alone() -> None:
    services = re.split(r"\n  (?=\w+:\n)", COMPOSE.read_text().split("\nservices:")[1].split("\nnetworks:")[0])
    assert [part.split(":")[0] for part in services if "docker.sock" in part] == ["runner"]


ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth1\t00000000\t010013AC\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""


def test_a_proxy_on_the_host_is_believed_unless_others_are_named() -> None:
    assert gateway.settings({}, ROUTES) == {"ERRAND_TRUSTED_PROXIES": "172.19.0.1"}
    assert gateway.settings({}, ROUTES.splitlines()[0]) == {"ERRAND_TRUSTED_PROXIES": ""}
    named = {"ERRAND_TRUSTED_PROXIES": "10.0.0.7"}
    assert gateway.settings(named, ROUTES) == named
