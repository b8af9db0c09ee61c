"""Which driver a setting gives on which machine, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.config import Config
from sandbox.drivers import Drivers

pytestmark = pytest.mark.anyio


async def test_auto_without_an_engine_is_bubblewrap_and_says_where_it_looked(tmp_path: Path) -> None:
    drivers = Drivers(Config(), tmp_path, f"unix://{tmp_path}/no.sock")
    await drivers.look()
    assert drivers.driver is not None
    assert drivers.driver.name == "bubblewrap"
    assert drivers.why == f"there is no Docker Engine at {tmp_path}/no.sock"
    assert drivers.notice == ""


async def test_who_asks_for_what_docker_alone_has_never_gets_less(tmp_path: Path) -> None:
    for config in (
        Config(sandbox_runtime="runsc"),
        Config(sandbox_image="registry.example/own:1"),
        Config(sandbox_advisories="refuse"),
    ):
        drivers = Drivers(config, tmp_path, f"unix://{tmp_path}/no.sock")
        await drivers.look()
        assert drivers.driver is None
        assert "there is no Docker Engine" in drivers.why
        assert "asks for Docker: tasks wait for it, and ERRAND_SANDBOX=bubblewrap gives that up" in drivers.why


async def test_docker_insists(tmp_path: Path) -> None:
    (tmp_path / "dead.sock").touch()
    for host, why in (
        (f"unix://{tmp_path}/no.sock", "there is no Docker Engine"),
        (f"unix://{tmp_path}/dead.sock", "no Docker Engine answers"),
        ("tcp://127.0.0.1:1", "no Docker Engine answers"),
        ("ssh://somewhere", "cannot be used"),
    ):
        drivers = Drivers(Config(sandbox="docker"), tmp_path / "data", host)
        await drivers.look()
        assert drivers.driver is None
        assert why in drivers.why
        await drivers.close()


async def test_a_folder_that_is_not_ours_is_named_and_costs_only_docker(tmp_path: Path) -> None:
    (tmp_path / "engine.sock").touch()
    (tmp_path / "sandbox").touch()
    drivers = Drivers(Config(), tmp_path, f"unix://{tmp_path}/engine.sock")
    await drivers.look()
    assert drivers.driver is not None
    assert drivers.driver.name == "bubblewrap"
    assert f"{tmp_path}/sandbox" in drivers.why
    assert "give it to the user who runs Errand" in drivers.why


async def test_what_is_asked_for_by_name_is_used(tmp_path: Path) -> None:
    for config in (Config(sandbox="bubblewrap"), Config(sandbox="unsandboxed")):
        drivers = Drivers(config, tmp_path)
        await drivers.look()
        assert drivers.driver is not None
        assert drivers.driver.name == config.sandbox
    assert list(tmp_path.iterdir()) == []
