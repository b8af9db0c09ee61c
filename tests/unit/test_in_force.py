"""What `errand doctor` says of settings: the server's, and where its own shell has others."""

from __future__ import annotations

import pytest

from protocol.query import SettingInForce
from services.bus import BusConfig
from services.cli.in_force import Told, differing, in_the_server, wrong_here
from services.config import in_force, variable
from services.github import GithubConfig
from services.scheduler.scheduler import Config as Scheduler
from services.settings_page import CONFIGS, settings


def told(service: str, **values: str) -> Told:
    return Told(service, tuple(SettingInForce(variable(name), value) for name, value in values.items()))


def test_what_a_service_tells_is_as_the_environment_would_have_it() -> None:
    config = Scheduler(running_per_user=3, daily_usd_per_user=2.5)
    of = {setting.name: setting for setting in in_force(config)}
    assert of["ERRAND_RUNNING_PER_USER"] == SettingInForce("ERRAND_RUNNING_PER_USER", "3")
    assert of["ERRAND_DAILY_USD_PER_USER"].value == "2.5"
    assert of["ERRAND_PRIORITY_SECONDS"] == SettingInForce("ERRAND_PRIORITY_SECONDS", "300", is_default=True)


def test_no_secret_is_told() -> None:
    bus = BusConfig(nats_url="nats://gateway:hush@10.0.0.5:4222,nats://gateway:hush@10.0.0.6")
    told = in_force(bus, GithubConfig(), ANTHROPIC_API_KEY="hush", OTHER_KEY="")
    assert "hush" not in str(told)
    of = {setting.name: setting.value for setting in told}
    assert (of["ANTHROPIC_API_KEY"], of["OTHER_KEY"]) == ("set", "")
    assert of["ERRAND_NATS_URL"] == "nats://…@10.0.0.5:4222,nats://…@10.0.0.6"


def test_what_the_server_was_started_with_is_shown_once_for_all_services_that_agree() -> None:
    agreeing = (told("gateway", log_level="info", slots="3"), told("runner", slots="3", queue="", data="/data"))
    assert in_the_server(agreeing).text.startswith(
        "the server was started with ERRAND_LOG_LEVEL=info, ERRAND_QUEUE='', ERRAND_SLOTS=3;"
    )
    differing = (told("gateway", log_level="info"), told("runner", log_level="debug"))
    assert "ERRAND_LOG_LEVEL=info (gateway) or debug (runner);" in in_the_server(differing).text


@pytest.mark.parametrize(
    ("here", "says", "why"),
    [
        ({"ERRAND_SLOTS": "4"}, "ERRAND_SLOTS=4, but the server was started with 3, and that holds", "another"),
        ({"ERRAND_SLOTS": "3.0"}, "", "the same number"),
        ({"ERRAND_SLOTS": ""}, "", "empty counts as not set"),
        ({"ERRAND_PUSH": "true"}, "", "the same switch"),
        (
            {"ERRAND_SANDBOX_EGRESS": " , "},
            "EGRESS=' , ', but the server was started with nothing",
            "odd",
        ),
        ({"ERRAND_DATA": "/elsewhere", "ERRAND_BIND": "0.0.0.0"}, "", "each process has its own"),
        ({"ERRAND_TOKEN": "hush"}, "", "the command line's own"),
    ],
)
def test_a_shell_that_has_another_value_is_told_which_holds(here: dict[str, str], says: str, why: str) -> None:
    server = (told("runner", slots="3", sandbox_egress="", data="/data", bind="::1"), told("repos", push="1"))
    found = [check.text for check in differing(server, here)]
    assert [says in text for text in found] == ([True] if says else []), (why, found)


@pytest.mark.parametrize(
    ("here", "says"),
    [
        ({}, []),
        ({"ERRAND_SLOTS": "2", "ERRAND_LOG_LEVEL": "debug", "ERRAND_TOKEN": "x"}, []),
        ({"ERRAND_SLOT": "2"}, ["ERRAND_SLOT is no setting. Did you mean ERRAND_SLOTS?"]),
        (
            {"ERRAND_LOG_LEVEL": "loud"},
            ['ERRAND_LOG_LEVEL: "loud" is not debug, info, warning or error. For example: ERRAND_LOG_LEVEL=info'],
        ),
    ],
)
def test_what_no_service_would_start_with_is_said_once(here: dict[str, str], says: list[str]) -> None:
    assert list(wrong_here(here)) == says


def test_each_setting_means_the_same_to_every_service() -> None:
    """Or a shell that agrees with one would differ from another."""
    defaults: dict[str, set[object]] = {}
    for config in CONFIGS:
        for setting in settings(config):
            defaults.setdefault(setting.name, set()).add(setting.default)
    assert {name for name, found in defaults.items() if len(found) > 1} <= {"data", "nats_seconds"}
