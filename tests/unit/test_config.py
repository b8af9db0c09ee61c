"""A wrong setting is refused by its name, with what it may be."""

from __future__ import annotations

import re

import msgspec
import pytest

from sandbox.config import Config as Sandboxes
from services.bus import BusConfig
from services.config import WrongSetting, from_environment, refusals, variable
from services.github import GithubConfig
from services.runner.runner import Config as Runner
from services.scheduler.scheduler import Config as Scheduler
from services.setting_words import example, taken
from services.settings_page import SERVICES, settings


@pytest.mark.parametrize(
    ("config", "name", "value", "says"),
    [
        (
            Sandboxes,
            "SANDBOX",
            "chroot",
            '"chroot" is not auto, docker, bubblewrap or unsandboxed. For example: {}=auto',
        ),
        (Sandboxes, "SANDBOX_BUILD", "maybe", '"maybe" is not 1 or 0. For example: {}=1'),
        (Runner, "SLOTS", "many", '"many" is not a whole number from 1 to 1024. For example: {}=2'),
        (Runner, "SLOTS", "1.5", '"1.5" is not a whole number from 1 to 1024. For example: {}=2'),
        (Runner, "SLOTS", "0", '"0" is not a whole number from 1 to 1024. For example: {}=2'),
        (Runner, "SLOTS", "9" * 200, f'"{"9" * 80}…" is not a whole number from 1 to 1024. For example: {{}}=2'),
        (Sandboxes, "SANDBOX_CPUS", "few", '"few" is not a number from 0.01 to 4096. For example: {}=2'),
        (Sandboxes, "SANDBOX_SETUP_SECONDS", "0", '"0" is not a number above 0, at most 7200. For example: {}=900'),
        (Sandboxes, "SANDBOX_WARM_SECONDS", "nan", '"nan" is not a number from 0 to 604800. For example: {}=900'),
        (Sandboxes, "SANDBOX_WARM_SECONDS", "inf", '"inf" is not a number from 0 to 604800. For example: {}=900'),
        (Scheduler, "DAILY_USD_PER_USER", "nan", '"nan" is not a number from 0 to 1000000'),
        (Scheduler, "DAILY_USD_PER_USER", "-1", '"-1" is not a number from 0 to 1000000'),
        (Sandboxes, "SANDBOX_EGRESS", "10.0.0.1", "10.0.0.1 is no host to allow: give names such as"),
        (Runner, "QUEUE", "GPU pool", '"GPU pool" is not a name of at most 40 lower-case letters, digits'),
        (Runner, "LABELS", "gpu,", '"gpu," is not at most 16 names separated by commas, each of at most 40'),
        (BusConfig, "CELL", "B!", '"B!" is not 1 to 16 characters of a-z and 0-9, and none of cmd,'),
        (Runner, "LOG_LEVEL", "loud\n", '"loud?" is not debug, info, warning or error. For example: {}=info'),
        (
            GithubConfig,
            "GITHUB_URL",
            "https://me:hush@h/?t=hush",
            '"https://…@h/?…" is not an address that begins with',
        ),
    ],
)
def test_a_wrong_setting_is_refused_with_what_it_may_be(
    config: type[msgspec.Struct], name: str, value: str, says: str
) -> None:
    name = f"ERRAND_{name}"
    with pytest.raises(WrongSetting) as refused:
        from_environment(config, {name: value, "ERRAND_DATA": "/data"})
    assert str(refused.value).startswith(f"{name}: {says.format(name)}")


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(WrongSetting) as refused:
        from_environment(Runner, {"ERRAND_SLOTS": "0", "ERRAND_SCRIPTED": "perhaps"})
    assert [line.split(" is not ")[0] for line in str(refused.value).splitlines()] == [
        "ERRAND_DATA",
        'ERRAND_SLOTS: "0"',
        'ERRAND_SCRIPTED: "perhaps"',
    ]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ERRAND_SANDBX_EGRESS", "Did you mean ERRAND_SANDBOX_EGRESS?"),
        ("ERRAND_EGRESS", "Did you mean ERRAND_SANDBOX_EGRESS?"),
        ("ERRAND_SLOT", "Did you mean ERRAND_SLOTS?"),
        ("ERRAND_Slots", "Did you mean ERRAND_SLOTS?"),
        ("ERRAND_FLUX_CAPACITOR", "docs/settings.md has all there are: take it out."),
    ],
)
def test_a_name_that_is_no_setting_is_refused_by_every_service(name: str, says: str) -> None:
    with pytest.raises(WrongSetting) as refused:
        from_environment(BusConfig, {name: "registries"})
    assert str(refused.value) == f"{name} is no setting. {says}"


@pytest.mark.parametrize("name", ["ERRAND_SERVER", "ERRAND_TOKEN", "ERRAND_TASK", "ERRAND_SEED", "ERRAND_NATS_SECONDS"])
def test_what_the_command_line_sandboxes_and_tests_set_is_no_misspelt_setting(name: str) -> None:
    assert from_environment(BusConfig, {name: "1", "ERRAND_EMPTY": "", "ERRANDS": "1"}) == BusConfig()


@pytest.mark.parametrize("config", [BusConfig, GithubConfig, Sandboxes, *SERVICES.values()])
def test_every_number_has_both_its_limits(config: type[msgspec.Struct]) -> None:
    loose = [setting.name for setting in settings(config) if re.match(r"a (whole )?number(,|$)", taken(setting.kind))]
    assert loose == []


@pytest.mark.parametrize("config", [BusConfig, GithubConfig, Sandboxes, *SERVICES.values()])
def test_every_example_is_taken(config: type[msgspec.Struct]) -> None:
    examples = {variable(one.name): example(one.kind, one.default) for one in settings(config)}
    assert list(refusals(config, {"ERRAND_DATA": "/data"} | {name: one for name, one in examples.items() if one})) == []


def test_labels_are_told_apart_by_commas() -> None:
    config = from_environment(Runner, {"ERRAND_LABELS": "gpu, arm64,gpu", "ERRAND_DATA": "/data"})
    assert config.all_labels == ("arm64", "gpu")


@pytest.mark.parametrize(("value", "means"), [("1", True), ("0", False)])
def test_a_switch_is_one_or_nought(value: str, means: bool) -> None:
    assert from_environment(Sandboxes, {"ERRAND_SANDBOX_BUILD": value}).sandbox_build is means
