"""A wrong setting is refused by its name, with what it may be."""

from __future__ import annotations

import msgspec
import pytest

from sandbox.config import Config as Sandboxes
from services.bus import BusConfig
from services.config import WrongSetting, from_environment
from services.runner.runner import Config as Runner


@pytest.mark.parametrize(
    ("config", "name", "value", "says"),
    [
        (
            Sandboxes,
            "ERRAND_SANDBOX",
            "chroot",
            "Invalid enum value 'chroot': choose auto, docker, bubblewrap or unsand",
        ),
        (Sandboxes, "ERRAND_SANDBOX_BUILD", "maybe", "Expected 1 or 0"),
        (Runner, "ERRAND_SLOTS", "many", "Expected a whole number"),
        (Runner, "ERRAND_SLOTS", "1.5", "Expected a whole number"),
        (Runner, "ERRAND_SLOTS", "0", "Expected `int` >= 1"),
        (Sandboxes, "ERRAND_SANDBOX_CPUS", "few", "Expected a number"),
        (Sandboxes, "ERRAND_SANDBOX_EGRESS", "10.0.0.1", "10.0.0.1 is no host to allow: give names such as"),
        (Runner, "ERRAND_QUEUE", "GPU pool", "Expected a name of at most 40 lower-case letters, digits"),
        (Runner, "ERRAND_LABELS", "gpu,", "Expected names separated by commas, each of at most 40"),
        (BusConfig, "ERRAND_CELL", "B!", "Expected 1 to 16 characters of a-z and 0-9, none of cmd,"),
        (Runner, "ERRAND_LOG_LEVEL", "loud", "Invalid enum value 'loud': choose debug, info, warning or error"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_it_may_be(
    config: type[msgspec.Struct], name: str, value: str, says: str
) -> None:
    with pytest.raises(WrongSetting) as refused:
        from_environment(config, {name: value, "ERRAND_DATA": "/data"})
    assert str(refused.value).startswith(f"{name}: {says}")


def test_labels_are_told_apart_by_commas() -> None:
    config = from_environment(Runner, {"ERRAND_LABELS": "gpu, arm64,gpu", "ERRAND_DATA": "/data"})
    assert config.all_labels == ("arm64", "gpu")


@pytest.mark.parametrize(("value", "means"), [("1", True), ("0", False)])
def test_a_switch_is_one_or_nought(value: str, means: bool) -> None:
    assert from_environment(Sandboxes, {"ERRAND_SANDBOX_BUILD": value}).sandbox_build is means
