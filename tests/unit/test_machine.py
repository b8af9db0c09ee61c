"""What is promised of a sandbox, by the runtime that its engine has."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox.contract import SandboxUnavailable
from sandbox.machine import Told, Wishes, machine_of

RUNTIMES = {
    "runc": {"path": "runc"},
    "io.containerd.runc.v2": {"path": "runc"},
    "shim": {"runtimeType": "io.containerd.runc.v2"},
    "fast": {"path": "/usr/bin/crun"},
    "runsc": {"path": "/usr/local/bin/runsc", "runtimeArgs": []},
    "gvisor": {"runtimeType": "io.containerd.runsc.v1"},
    "kata": {"runtimeType": "io.containerd.kata.v2"},
}


def told(**about: Any) -> Told:
    limits = {"MemoryLimit": True, "PidsLimit": True, "MemTotal": 2**33, "NCPU": 4, "SecurityOptions": ["name=seccomp"]}
    version = {"Version": "29.5.1", "Components": [{"Name": "runc", "Version": "1.4.0"}]}
    return Told(
        about={**limits, "Runtimes": RUNTIMES, "DefaultRuntime": "runc", **about}, version=version, image="sha256:1"
    )


@pytest.mark.parametrize("name", ["", "runc", "io.containerd.runc.v2", "shim"])
def test_runc_gives_all_that_the_suite_of_drivers_was_run_for(name: str) -> None:
    machine = machine_of(told(), Wishes(runtime=name), {})
    assert (machine.is_known, machine.memory_limit, machine.process_limit) == (True, True, True)
    assert machine.runtime == "runc 1.4.0"
    assert not any("runtime" in sentence for sentence in machine.missing)


@pytest.mark.parametrize("name", ["fast", "runsc", "gvisor", "kata"])
def test_of_another_runtime_nothing_is_promised_and_that_is_said(name: str) -> None:
    machine = machine_of(told(), Wishes(runtime=name), {})
    assert (machine.is_known, machine.memory_limit, machine.process_limit) == (False, False, False)
    assert machine.runtime == name
    [said] = [sentence for sentence in machine.missing if name in sentence]
    assert "memory" in said
    assert "network" in said


def test_an_engine_whose_own_runtime_is_another_promises_no_more() -> None:
    machine = machine_of(told(DefaultRuntime="kata"), Wishes(), {})
    assert (machine.is_known, machine.runtime) == (False, "kata")


def test_a_runtime_that_the_engine_does_not_have_is_refused_with_those_it_has() -> None:
    with pytest.raises(SandboxUnavailable, match="no runtime runsc-no, but fast, gvisor"):
        machine_of(told(), Wishes(runtime="runsc-no"), {})
