"""The settings of sandboxes."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from sandbox.egress.policy import REGISTRIES_SETTING, SETTING, Egress, parse
from sandbox.egress.suffixes import too_wide
from sandbox.limits import MIB, Limits, SetupRules

DOCKER_HOST = "unix:///var/run/docker.sock"
"""Where an engine is when the environment's DOCKER_HOST does not say."""
MOST_MIB = 16 * 1024 * 1024 - 1
"""Below 16 TiB, the largest file of ext4."""
RUNTIME = Meta(
    pattern=r"^([a-zA-Z0-9][a-zA-Z0-9_.-]{0,63})?$",
    description="the name of a runtime that the engine knows",
    examples=["runsc"],
)


class Config(Struct, frozen=True, kw_only=True):
    """Which sandbox, and what each may use. A value that a driver cannot hold is said by `errand doctor`."""

    sandbox: Literal["auto", "docker", "bubblewrap", "unsandboxed"] = "auto"
    """`auto`: Docker where an engine answers and its image is there, else bubblewrap, but never where another image, a
    runtime or `ERRAND_SANDBOX_ADVISORIES=refuse` is asked for. `docker` and `bubblewrap` insist. `unsandboxed` is
    dangerous and shown on every screen."""
    sandbox_image: str = ""
    """Another image than our own for the Docker sandbox. It needs bash, git and Python 3.9 or later."""
    sandbox_runtime: Annotated[str, RUNTIME] = ""
    """Docker: another runtime than the engine's own, by its name there: `runsc` (gVisor), `kata`."""
    sandbox_advisories: Literal["warn", "refuse"] = "warn"
    """Docker: what to do when the engine or runc has known faults that a task could use: warn, or take no task."""
    sandbox_build: bool = True
    """`0`: a missing image is not built by the runner; `python -m sandbox.image` builds it."""
    sandbox_memory_mib: Annotated[int, Meta(ge=64, le=MOST_MIB)] = 4096
    """Memory of one sandbox, swap and /tmp included; at most three quarters of the machine's."""
    sandbox_cpus: Annotated[float, Meta(ge=0.01, le=4096)] = 2.0
    """Processors' worth of time of one sandbox; at most the machine's."""
    sandbox_processes: Annotated[int, Meta(ge=16, le=4_194_304)] = 1024
    """Processes and threads of one sandbox."""
    sandbox_open_files: Annotated[int, Meta(ge=256, le=1_048_576)] = 16_384
    """Open files of one process."""
    sandbox_file_mib: Annotated[int, Meta(ge=1, le=MOST_MIB)] = 16_384
    """The largest file that a process may write."""
    sandbox_tmp_mib: Annotated[int, Meta(ge=1, le=MOST_MIB)] = 2048
    """The size of /tmp (the home is in it), of /var/tmp and of /dev/shm, which live in memory."""
    sandbox_disk_mib: Annotated[int, Meta(ge=0, le=MOST_MIB)] = 8192
    """The size of a workspace (bubblewrap: of root's), and a file for each 8 KiB of it. It takes room as it fills. `0`:
    no limit."""
    sandbox_ignored_mib: Annotated[int, Meta(ge=0, le=256)] = 0
    """Of the files that git ignores, as dependencies and build results: so much is saved with the work, for a sandbox
    that is made anew, on whatever machine. They are read whole after each step that may have changed something, and
    are never in the branch. `0`: none."""
    sandbox_egress: str = ""
    """Hosts that tasks may reach, separated by commas: `example.com`, `example.com:8443` (without a port: 443),
    `*.example.com`, `registries` for those of `ERRAND_SANDBOX_REGISTRIES`. Nothing by default. What may be reached can
    be sent to."""
    sandbox_registries: str = ""
    """The hosts of the package registries that projects here use, written as above: each package manager says which
    (`pip config debug`, `npm config get registry`, `go env GOPROXY`, apt's sources)."""
    sandbox_egress_connections: Annotated[int, Meta(ge=1, le=1024)] = 64
    """Connections that one sandbox may have open to such hosts; the next one waits."""
    sandbox_egress_idle_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 120.0
    """After so long without a byte such a connection is closed."""
    sandbox_egress_header_bytes: Annotated[int, Meta(ge=1024, le=1_048_576)] = 32_768
    """Of a request to the proxy: its line and headers."""
    sandbox_lease_seconds: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """How long a sandbox goes on without its runner, for the next one to take it over with all that runs in it; then it
    ends by itself. `0`: it ends with its runner."""
    sandbox_warm: Annotated[int, Meta(ge=0, le=32)] = 2
    """Sandboxes kept started for the repositories worked on last, one each: some 20 MB of memory in Docker, 8 in
    bubblewrap."""
    sandbox_warm_seconds: Annotated[float, Meta(ge=0, le=604_800)] = 900.0
    """How long such a sandbox waits for a task."""
    sandbox_setup_seconds: Annotated[float, Meta(gt=0, le=7200)] = 900.0
    """How long a repository's set-up may take."""
    sandbox_setup_mib: Annotated[int, Meta(ge=1, le=MOST_MIB)] = 4096
    """How much of a set-up may be kept, and a file for each 8 KiB of it."""
    sandbox_prepared: Annotated[int, Meta(ge=1, le=10_000)] = 10
    """What so many set-ups left is kept; beyond them what was not used for longest goes."""
    sandbox_prepared_mib: Annotated[int, Meta(ge=1, le=MOST_MIB)] = 20_480
    """All that is kept together, by what it adds to the image below it."""
    sandbox_prepared_days: Annotated[float, Meta(gt=0, le=36_500)] = 30.0
    """What was not used for so long goes."""
    sandbox_dockerfiles: Literal["never", "offline", "network"] = "never"
    """Whether the engine builds the Dockerfile that a repository names, without or with the network. A build runs as
    root in a container without a sandbox's limits: only where every repository, and who may push to it, is trusted."""

    def __post_init__(self) -> None:
        for setting, texts in (
            (REGISTRIES_SETTING, (self.sandbox_registries,)),
            (SETTING, (self.sandbox_egress, self.sandbox_registries)),
        ):
            try:
                why = too_wide(parse(*texts)[1])
            except ValueError as error:
                raise ValueError(f"{setting}: {error}") from None
            if why:
                raise ValueError(f"{setting}: {why}")


def only_docker_has(config: Config) -> str:
    """The first setting that asks for what Docker alone can give; empty when there is none."""
    wishes = {
        "ERRAND_SANDBOX_RUNTIME": bool(config.sandbox_runtime),
        "ERRAND_SANDBOX_IMAGE": bool(config.sandbox_image),
        "ERRAND_SANDBOX_ADVISORIES": config.sandbox_advisories == "refuse",
    }
    return next((name for name, is_asked_for in wishes.items() if is_asked_for), "")


def limits(config: Config) -> Limits:
    return Limits(
        memory_bytes=config.sandbox_memory_mib * MIB,
        cpus=config.sandbox_cpus,
        processes=config.sandbox_processes,
        open_files=config.sandbox_open_files,
        file_bytes=config.sandbox_file_mib * MIB,
        disk_bytes=config.sandbox_disk_mib * MIB,
        tmp_bytes=config.sandbox_tmp_mib * MIB,
    )


def egress(config: Config) -> Egress:
    words, allowed = parse(config.sandbox_egress, config.sandbox_registries)
    return Egress(
        words=words,
        allowed=allowed,
        connections=config.sandbox_egress_connections,
        idle_seconds=config.sandbox_egress_idle_seconds,
        header_bytes=config.sandbox_egress_header_bytes,
    )


def setup_rules(config: Config) -> SetupRules:
    return SetupRules(
        seconds=config.sandbox_setup_seconds,
        keep_bytes=config.sandbox_setup_mib * MIB,
        count=config.sandbox_prepared,
        all_bytes=config.sandbox_prepared_mib * MIB,
        idle_seconds=config.sandbox_prepared_days * 86_400,
        dockerfiles=config.sandbox_dockerfiles,
    )
