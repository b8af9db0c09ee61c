"""What an engine on this machine can hold of what is wished for."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from sandbox.advisories import complaints, components
from sandbox.contract import SandboxUnavailable
from sandbox.limits import Limits
from sandbox.seccomp import filter_program

MEMORY_SHARE = 0.75
"""Of the machine's memory, at most this much is one sandbox's: the rest of the house must live beside it."""


UNKNOWN = (
    "The runtime {name} is not runc, on which all of this is tested: its limits of memory and of processes are not "
    "relied on, tasks reach nothing of the network, and what they run ends with its runner."
)


class Wishes(Struct, frozen=True, kw_only=True):
    """What the settings ask of the engine."""

    limits: Limits = Limits()
    runtime: str = ""
    """Empty: the engine's own."""
    refuses_faults: bool = False
    """Whether an engine with known faults is not used."""


class Told(Struct, frozen=True, kw_only=True):
    """What the engine tells of itself."""

    about: Mapping[str, Any]
    """Its `/info`."""
    version: Mapping[str, Any]
    """Its `/version`."""
    image: str
    """The digest of the sandboxes' image."""
    base: str = ""
    """What that was built on, where it says so."""


class Machine(Struct, frozen=True, kw_only=True):
    """What sandboxes get here."""

    version: str
    runtime: str
    """With its version, where the engine tells that."""
    image: str
    """Its digest: a name can be given to another image behind our back."""
    limits: Limits
    """No more than the machine has."""
    folders: Mapping[Path, Path]
    """Where we run in a container ourselves: folders as we see them, and as the engine does."""
    missing: tuple[str, ...]
    """Sentences on what this engine cannot hold."""
    warnings: tuple[str, ...]
    """Sentences on its known faults."""
    memory_limit: bool
    process_limit: bool
    is_known: bool
    """Whether the runtime is the one that the suite of all drivers has been run on as a whole."""
    disks: Literal["none", "own", "lent"] = "none"
    """Whether each workspace is a disk of a size, and who makes its device: we, or a container for us."""
    base: str = ""
    """As `Told.base`."""

    @property
    def disk_limit(self) -> bool:
        return self.disks != "none"


def machine_of(told: Told, wishes: Wishes, folders: Mapping[Path, Path]) -> Machine:
    """SandboxUnavailable when the engine cannot do what is wished, or must not."""
    about, found = told.about, components(told.version)
    options = " ".join(about.get("SecurityOptions") or ())
    if "rootless" in options:
        raise SandboxUnavailable("A rootless Docker Engine gives files to other users: use the system's, or bubblewrap")
    kind = kind_of(about, wishes.runtime)
    is_runc = kind == "runc"
    warnings = tuple(complaints(found, but=() if is_runc else ("runc",)))
    if warnings and wishes.refuses_faults:
        raise SandboxUnavailable(f"{' '.join(warnings)} ERRAND_SANDBOX_ADVISORIES=refuse forbids to use it")
    return Machine(
        version=told.version["Version"],
        runtime=f"runc {found.get('runc', ('',))[0]}".strip() if is_runc else wishes.runtime or kind,
        image=told.image,
        limits=held(wishes.limits, about),
        folders=folders,
        missing=(*missing(about, options), *(() if is_runc else (UNKNOWN.format(name=wishes.runtime or kind),))),
        warnings=warnings,
        memory_limit=is_runc and bool(about.get("MemoryLimit")),
        process_limit=is_runc and bool(about.get("PidsLimit")),
        is_known=is_runc,
        base=told.base,
    )


def kind_of(about: Mapping[str, Any], name: str) -> str:
    """The program that the runtime of that name is, the engine's own without one. SandboxUnavailable when the engine
    has none of that name."""
    runtimes = about.get("Runtimes") or {}
    if name and name not in runtimes:
        raise SandboxUnavailable(
            f"the Docker Engine has no runtime {name}, but {', '.join(sorted(runtimes))}: install it (gVisor: "
            f"`runsc install`), name it under `runtimes` in /etc/docker/daemon.json and restart the engine, or leave "
            "ERRAND_SANDBOX_RUNTIME out"
        )
    name = name or about.get("DefaultRuntime", "runc")
    runtime = runtimes.get(name) or {}
    if "path" in runtime:
        return Path(runtime["path"]).name
    # Of a shim of containerd's, as io.containerd.kata.v2, the engine tells the type, and of runc's nothing.
    return (runtime.get("runtimeType") or name).removeprefix("io.containerd.").partition(".")[0]


def held(limits: Limits, about: Mapping[str, Any]) -> Limits:
    return msgspec.structs.replace(
        limits,
        memory_bytes=min(limits.memory_bytes, int(about["MemTotal"] * MEMORY_SHARE)),
        cpus=min(limits.cpus, float(about["NCPU"])),
    )


def missing(about: Mapping[str, Any], options: str) -> list[str]:
    sentences = {
        "This engine filters no system calls by itself: give it a kernel with seccomp.": "seccomp" in options,
        f"Errand filters no system calls: it has no policy for {platform.machine()}.": bool(filter_program()),
        "This kernel limits no container's memory: boot it with cgroup_enable=memory.": about.get("MemoryLimit"),
        "This kernel limits no container's processes: give it the pids cgroup.": about.get("PidsLimit"),
    }
    return [sentence for sentence, is_there in sentences.items() if not is_there]
