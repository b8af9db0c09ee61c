"""The Docker driver beyond the contract: its limits, hostile commands, and what is left when runners die."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from msgspec.structs import replace

from sandbox import docker as docker_module
from sandbox import drivers as drivers_module
from sandbox import image as image_module
from sandbox.client import ExecClient
from sandbox.config import DOCKER_HOST, Config
from sandbox.container import ContainerLink, ContainerSpec, host_config
from sandbox.contract import ImageMissing, Sandbox, SandboxError, SandboxSpec, SandboxUnavailable
from sandbox.disk import make_disk_file, why_none
from sandbox.docker import Docker, as_the_engine_sees, connect, container_name
from sandbox.drivers import Drivers
from sandbox.egress.policy import Egress, parse
from sandbox.engine import Engine, EngineError
from sandbox.image import Image, own_name
from sandbox.lent_disk import LentDisk
from sandbox.limits import Limits
from sandbox.owners import Owners
from sandbox.spare import Ahead
from sandbox.warm import Warm
from tests.contract.test_sandbox import skip_unless_available

pytestmark = pytest.mark.anyio
HOST = os.environ.get("DOCKER_HOST") or DOCKER_HOST
MIB = 1024**2
SMALL = Config(sandbox_memory_mib=128, sandbox_processes=64, sandbox_tmp_mib=4, sandbox_file_mib=8, sandbox_cpus=0.5)
SMALL_DISK = Config(sandbox_disk_mib=64)
CAP_MKNOD = 27
PYTHON_EATS = "python3 -c 'x = bytearray(10**9)'"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def docker(data: Path) -> AsyncIterator[Docker]:
    docker = connect(SMALL, HOST, data, "me")
    try:
        await skip_unless_available(docker)
        yield docker
    finally:
        await docker.close()


@pytest.fixture
async def sandbox(docker: Docker, tmp_path: Path) -> AsyncIterator[ExecClient]:
    sandbox = await docker.start(spec_of(tmp_path / "workspace"))
    yield sandbox
    await sandbox.stop()


def spec_of(workspace: Path, *readonly: Path, task: str = "task_1") -> SandboxSpec:
    workspace.mkdir(exist_ok=True)
    return SandboxSpec(task=task, attempt=1, workspace=workspace, readonly_paths=readonly)


def container_of(sandbox: Sandbox) -> str:
    assert isinstance(sandbox, ExecClient)
    assert isinstance(sandbox.link, ContainerLink)
    return sandbox.link.container


def docker_cli(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def inspect(container: str) -> dict[str, Any]:
    return json.loads(docker_cli("inspect", container))[0]


def containers_of(installation: str, **labels: str) -> list[str]:
    """With these labels, whatever their state."""
    wanted = {"installation": installation, **labels}
    filters = [word for name, value in wanted.items() for word in ("--filter", f"label=errand.{name}={value}")]
    return docker_cli("ps", "--all", "--quiet", "--no-trunc", *filters).split()


def installation_of(data: Path) -> str:
    return (data / "installation").read_text()


# Limits


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another group: needs root")
def test_a_disk_that_is_to_be_lent_is_our_groups_in_a_folder_that_gives_its_own(tmp_path: Path) -> None:
    """As a data folder that several people share: who lends could not open it."""
    os.chown(tmp_path, -1, 12_345)
    tmp_path.chmod(0o2770)
    status = make_disk_file(tmp_path, 16 * MIB, 1).stat()
    assert (status.st_gid, status.st_mode & 0o777) == (os.getegid(), 0o660)


async def test_a_container_has_the_hardest_settings_and_every_limit_that_is_set(sandbox: ExecClient) -> None:
    found = inspect(container_of(sandbox))
    host, config = found["HostConfig"], found["Config"]
    assert (host["CapDrop"], host["CapAdd"], host["SecurityOpt"]) == (["ALL"], None, ["no-new-privileges"])
    assert (host["Privileged"], host["ReadonlyRootfs"], host["AutoRemove"]) == (False, True, True)
    assert (host["NetworkMode"], host["IpcMode"], host["PidMode"]) == ("none", "private", "")
    assert host["Memory"] == host["MemorySwap"] == 128 * MIB
    assert (host["PidsLimit"], host["NanoCpus"]) == (64, 500_000_000)
    assert host["LogConfig"]["Type"] == "none"
    assert {limit["Name"]: limit["Hard"] for limit in host["Ulimits"]} == {
        "core": 0,
        "nofile": 16_384,
        "fsize": 8 * MIB,
    }
    assert all("nosuid,nodev" in options and "size=" in options for options in host["Tmpfs"].values())
    assert {"/tmp", "/var/tmp", "/dev/shm"} <= set(host["Tmpfs"])
    assert [mount["Destination"] for mount in found["Mounts"] if mount["RW"]] == ["/workspace"]
    assert config["User"].split(":")[0] not in ("", "0", "root")
    labels = {name.removeprefix("errand."): value for name, value in config["Labels"].items()}
    assert (labels["task"], labels["attempt"], labels["runner"]) == ("task_1", "1", "me")
    assert "errand-task_1-1-" in found["Name"]


SET_BY = {
    "ERRAND_SANDBOX_RUNTIME": "runc",
    "ERRAND_SANDBOX_MEMORY_MIB": 128 * MIB,
    "ERRAND_SANDBOX_PROCESSES": 64,
    "ERRAND_SANDBOX_CPUS": 500_000_000,
}
"""In SMALL."""


async def test_each_setting_of_a_container_is_documented_as_it_is(sandbox: ExecClient) -> None:
    host = inspect(container_of(sandbox))["HostConfig"]
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `?(.*?)`? \| (.+?) \|$", page.partition("### A container's settings")[2], re.M)
    documented = {name: value for name, value, _ in rows}
    made_of = ContainerSpec(image="", uid=1, limits=Limits(), mounts=(), labels={})
    assert set(documented) >= set(host_config(made_of)), "each setting that is made"
    for name, value in documented.items():
        if value in SET_BY:
            assert host[name] == SET_BY[value], name
        elif not value.startswith("see "):
            assert host[name] == json.loads(value), name


async def test_the_limits_hold_inside(sandbox: ExecClient) -> None:
    for command, said in (
        ("head -c 6M /dev/zero > /tmp/large", "No space left"),
        ("head -c 6M /dev/zero > /dev/shm/large", "No space left"),
        ("trap '' XFSZ; head -c 9M /dev/zero > large", "File too large"),
        ("touch /usr/bin/x", "Read-only file system"),
        ("grep Seccomp: /proc/self/status", "Seccomp:\t2"),
        ("grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
        ("grep CapBnd /proc/self/status", "CapBnd:\t0000000000000000"),
        ("unshare --user --map-root-user true", "Operation not permitted"),
        ("for i in $(seq 100); do sleep 100 & done; true", "Resource temporarily unavailable"),
    ):
        result = await sandbox.exec(f"{{ {command}; }} 2>&1", timeout_seconds=3)
        assert said in result.output, f"{command}: {result}"


async def test_a_child_killed_for_memory_is_said_also_in_the_middle_of_a_pipeline(sandbox: ExecClient) -> None:
    for command in (PYTHON_EATS, f"{PYTHON_EATS} | cat", f"({PYTHON_EATS}; true)"):
        result = await sandbox.exec(command)
        assert (result.exit_code, result.ended_by) == (None, "memory"), command
    assert (await sandbox.exec("echo fine")).output == "fine\n"
    assert (await sandbox.exec("exit 3")).exit_code == 3


async def test_an_engines_socket_and_other_tasks_are_out_of_reach(
    sandbox: ExecClient, docker: Docker, tmp_path: Path
) -> None:
    other = await docker.start(spec_of(tmp_path / "other", task="task_2"))
    await other.write("/workspace/secret", b"secret")
    await other.exec("echo secret > /tmp/secret; (exec -a secret-process sleep 1000) &")
    search = "find / -name s[e]cret -o -name docker.sock 2>/dev/null; cat /proc/[0-9]*/cmdline | grep -ac s[e]cret"
    assert (await sandbox.exec(search)).output == "0\n"
    assert (await sandbox.exec("id -u")).output != (await other.exec("id -u")).output or os.geteuid() != 0
    await other.stop()


async def test_who_is_inside_has_a_name_and_a_home(sandbox: ExecClient) -> None:
    result = await sandbox.exec(
        'whoami; cd && pwd; git config user.name; python3 -c "import pwd, os; pwd.getpwuid(os.getuid())"'
    )
    assert (result.exit_code, result.output) == (0, "errand\n/tmp/home\nErrand\n")


async def test_the_tools_of_the_trade_are_there(sandbox: ExecClient) -> None:
    tools = "git python3 pip node npm gcc make pkg-config curl rg jq patch unzip"
    assert (await sandbox.exec(f"for tool in {tools}; do command -v $tool >/dev/null || echo $tool; done")).output == ""


async def test_a_container_that_is_killed_is_an_outcome_and_leaves_nothing(sandbox: ExecClient, data: Path) -> None:
    docker_cli("kill", container_of(sandbox))
    await sandbox.stop()
    assert containers_of(installation_of(data)) == []


# What is left


def loop_devices(folder: Path) -> list[str]:
    """Those whose file is below it, which need no name any more."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [file.parts[3] for file in files if file.read_text().startswith(str(folder))]


async def test_a_workspaces_disk_goes_with_its_container(docker: Docker, tmp_path: Path) -> None:
    sandbox = await docker.start(spec_of(tmp_path / "workspace"))
    if not docker.copies_workspaces:
        await sandbox.stop()
        pytest.skip("; ".join((await docker.capabilities()).notes))
    [device] = loop_devices(tmp_path)
    found = inspect(container_of(sandbox))
    [volume] = [mount["Name"] for mount in found["Mounts"] if mount["Type"] == "volume"]
    assert (await sandbox.exec("grep -w /workspace /proc/mounts")).output.startswith(
        f"/dev/{device} /workspace ext4 rw,nosuid,nodev,noatime"
    )
    docker_cli("kill", container_of(sandbox))
    await sandbox.stop()
    assert loop_devices(tmp_path) == []
    assert volume not in docker_cli("volume", "ls", "--quiet").split()


MAKE_DISK = """
import sys
from pathlib import Path
from sandbox.disk import make_disk
disk = make_disk(Path(sys.argv[1]), 2**30, 1)
print(disk.device, flush=True)
sys.stdin.read()
"""


def test_a_disk_that_nobody_has_mounted_goes_with_its_maker(tmp_path: Path) -> None:
    if why := why_none():
        pytest.skip(why)
    with subprocess.Popen(
        [sys.executable, "-c", MAKE_DISK, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as maker:
        assert maker.stdout is not None
        device = maker.stdout.readline().decode().strip()
        assert [f"/dev/{name}" for name in loop_devices(tmp_path)] == [device]
        assert list(tmp_path.iterdir()) == []
        maker.kill()
        maker.wait()
    assert loop_devices(tmp_path) == []


@pytest.fixture
async def lending(data: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Docker]:
    """As a runner that may make no loop device: in Compose, or as an ordinary user."""
    monkeypatch.setattr(docker_module, "why_no_device", lambda: "it is root's")
    docker = connect(SMALL_DISK, HOST, data, "me")
    try:
        await skip_unless_available(docker)
        if not docker.copies_workspaces:
            pytest.skip("; ".join((await docker.capabilities()).notes))
        yield docker
    finally:
        await docker.close()


async def test_a_runner_that_may_make_no_loop_device_has_one_lent(lending: Docker, data: Path, tmp_path: Path) -> None:
    sandbox = await lending.start(spec_of(tmp_path / "workspace"))
    filled = await sandbox.shell("df --output=source . | tail -1; head -c 1G /dev/zero >full")
    assert "[/workspace is full: it holds 62 MiB]" in filled.output
    device = Path("/sys/block") / filled.output.split()[0].removeprefix("/dev/")
    await until(lambda: containers_of(installation_of(data)) == [container_of(sandbox)])  # who lent it has gone
    assert list((data / "spares" / "me").glob("*.disk")) == []
    docker_cli("kill", container_of(sandbox))
    await sandbox.stop()
    await until(lambda: not (device / "loop").exists())
    assert containers_of(installation_of(data)) == []


LENT = """
import sys
from functools import partial
from pathlib import Path
import anyio
from sandbox.disk import make_disk_file
from sandbox.engine import Engine, EngineError
from sandbox.lent_disk import LentDisk, lender

async def main(host, image, folder, name):
    disk, file = LentDisk(Engine(host), name), make_disk_file(Path(folder), 2**26, 1)
    await disk.borrow(lender(image, file, {}))
    file.unlink()
    print(disk.device, flush=True)
    await anyio.to_thread.run_sync(sys.stdin.read)

anyio.run(main, *sys.argv[1:])
"""
TRIED_BY_THE_LENDER = """
import os, re
said = open("/proc/self/status").read()
print(re.search(r"CapEff:\\s*(.*)", said)[1], re.search(r"NoNewPrivs:\\s*(.*)", said)[1])
def attempt(what, *given):
    try:
        print(what(*given))
    except OSError as error:
        print(error.strerror)
for kind, major, minor in ((0o060000, *disk), (0o020000, 1, 1), (0o020000, 10, 229)):
    os.mknod("/dev/tried", kind | 0o600, os.makedev(major, minor))
    attempt(os.open, "/dev/tried", os.O_RDONLY)
    os.unlink("/dev/tried")
attempt(os.chown, "/disk", 7, 7)
attempt(os.setuid, 7)
attempt(os.mkdir, "/etc/new")
attempt(os.sethostname if hasattr(os, "sethostname") else __import__("socket").sethostname, "new")
"""


async def test_what_lends_a_device_can_open_loop_devices_alone_and_goes_with_its_runner(
    lending: Docker, data: Path, tmp_path: Path
) -> None:
    name = f"errand-test-{secrets.token_hex(4)}"
    arguments = [sys.executable, "-c", LENT, HOST, own_name(), str(tmp_path), name]
    number = tmp_path.stat().st_dev
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        device = Path("/sys/block") / runner.stdout.readline().decode().strip().removeprefix("/dev/")
        assert (device / "loop").exists()
        tried = f"disk = {os.major(number), os.minor(number)}\n{TRIED_BY_THE_LENDER}"
        capabilities, *rest = docker_cli("exec", name, "python3", "-c", tried).splitlines()
        assert capabilities == f"{1 << CAP_MKNOD:016x} 1"
        assert rest[:3] == ["Operation not permitted"] * 3, "this machine's disk, its memory, FUSE"
        assert rest[3:] == [*["Operation not permitted"] * 2, "Read-only file system", "Operation not permitted"]
        runner.kill()
        runner.wait()
    await until(lambda: not (device / "loop").exists())
    await until(lambda: name not in docker_cli("ps", "--all", "--format", "{{.Names}}").split())


async def until(holds: Callable[[], bool]) -> None:
    """For what the engine or the kernel does a moment later, of which nobody tells."""
    with anyio.fail_after(20):
        while not holds():
            await anyio.sleep(0.05)


def left_container(data: Path, runner: str, installation: str = "") -> str:
    """As a runner leaves it that dies between making and starting one."""
    words = left_labels(data, runner, installation)
    return docker_cli("create", "--network", "none", *words, own_name(), "sleep", "1000")


def left_volume(data: Path, installation: str = "") -> str:
    return docker_cli("volume", "create", *left_labels(data, "me", installation))


def left_labels(data: Path, runner: str, installation: str) -> list[str]:
    labels = {"installation": installation or installation_of(data), "runner": runner, "key": secrets.token_hex(8)}
    return [word for name, value in labels.items() for word in ("--label", f"errand.{name}={value}")]


async def test_a_sweep_removes_the_volume_of_a_container_that_the_engine_removed_by_itself(
    docker: Docker, sandbox: ExecClient, data: Path
) -> None:
    left, others = left_volume(data), left_volume(data, installation="another")
    [held] = [mount["Name"] for mount in inspect(container_of(sandbox))["Mounts"] if mount["Type"] == "volume"]
    try:
        await docker.sweep()
        there = docker_cli("volume", "ls", "--quiet").split()
        assert (left in there, others in there, held in there) == (False, True, True)
    finally:
        docker_cli("volume", "rm", others)


async def test_a_sweep_removes_what_no_living_runner_of_this_installation_holds(
    docker: Docker, sandbox: ExecClient, data: Path
) -> None:
    living = Owners(data, "living")
    living.hold()
    removed = [left_container(data, runner) for runner in ("me", "dead", "../me", "")]
    docker_cli("start", removed[1])
    kept = [left_container(data, "living"), left_container(data, "me", installation="another")]
    try:
        assert await docker.sweep() == len(removed)
        there = set(docker_cli("ps", "--all", "--quiet", "--no-trunc").split())
        assert there.isdisjoint(removed)
        assert there.issuperset([*kept, container_of(sandbox)])
        assert (await sandbox.exec("echo alive")).output == "alive\n"
        living.release()
        assert await docker.sweep() == 1
    finally:
        docker_cli("rm", "--force", *kept)


async def test_a_container_that_the_engine_cannot_remove_keeps_no_other_one(
    docker: Docker, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await docker.capabilities()
    left = {left_container(data, "dead") for _ in range(3)}
    stuck = sorted(left)[1]
    remove = docker._engine.remove

    async def refuse_one(container: str) -> None:
        if container == stuck:
            raise EngineError(500, "device or resource busy")
        await remove(container)

    monkeypatch.setattr(docker._engine, "remove", refuse_one)
    assert await docker.sweep() == len(left) - 1
    monkeypatch.undo()
    assert await docker.sweep() == 1


async def test_a_device_that_is_no_loop_device_is_not_mounted(docker: Docker, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = LentDisk(docker._engine, "none")

    async def start(config: Mapping[str, Any], first: bytes = b"") -> None:
        disk.received(b"/dev/sda1\n")

    monkeypatch.setattr(disk._link, "start", start)
    with pytest.raises(SandboxError, match="no loop device was lent: '/dev/sda1"):
        await disk.borrow({})
    assert disk.device == ""


async def test_a_start_that_is_cancelled_leaves_no_container(docker: Docker, data: Path, tmp_path: Path) -> None:
    await docker.capabilities()
    for milliseconds in (1, 5, 20, 80, 160, 250):
        with anyio.move_on_after(milliseconds / 1000):
            sandbox = await docker.start(spec_of(tmp_path / "workspace"))
            await sandbox.stop()
    assert containers_of(installation_of(data)) == []
    assert loop_devices(tmp_path) == []


async def test_a_start_for_which_the_disk_has_no_room_leaves_nothing(
    docker: Docker, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await docker.capabilities()

    def make_gate(key: str, uid: int) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(docker._register, "make_gate", make_gate)
    words, allowed = parse("example.com")
    with pytest.raises(SandboxUnavailable, match="No space"):
        await docker.start(replace(spec_of(tmp_path / "workspace"), egress=Egress(words=words, allowed=allowed)))
    assert loop_devices(tmp_path) == []
    assert list((data / "held").glob("*")) == []


# A container at hand


async def until_spare(warm: Warm[Docker], key: Ahead) -> str:
    """The container that waits for a task with these mounts."""
    with anyio.fail_after(20):
        while key not in warm.spares:
            await anyio.sleep(0.02)
    return container_of(warm.spares[key].client)


async def test_a_spares_container_takes_the_name_of_its_task(docker: Docker, data: Path, tmp_path: Path) -> None:
    spare = await docker.spare(Ahead())
    spec = spec_of(tmp_path / "workspace", task="task_2")
    await docker.assign(spare, spec)
    assert container_name(spec).rpartition("-")[0] == "errand-task_2-1"
    with anyio.fail_after(20):
        while "/errand-task_2-1-" not in inspect(container_of(spare.client))["Name"]:
            await anyio.sleep(0.02)
    await spare.remove()
    assert containers_of(installation_of(data)) == []


async def test_no_more_wait_than_are_allowed_and_none_when_the_runner_stops(
    docker: Docker, data: Path, tmp_path: Path
) -> None:
    mirrors = [tmp_path / "one", tmp_path / "two"]
    async with anyio.create_task_group() as group:
        warm = Warm(docker, limit=1, idle_seconds=600)
        group.start_soon(warm.keep)
        for number, mirror in enumerate(mirrors):
            mirror.mkdir()
            sandbox = await warm.start(spec_of(tmp_path / f"workspace_{number}", mirror))
            await sandbox.stop()
            await until_spare(warm, Ahead((mirror,)))
        with anyio.fail_after(20):
            while len(containers_of(installation_of(data))) != 1:
                await anyio.sleep(0.02)
        assert list(warm.spares) == [Ahead((mirrors[1],))]
        group.cancel_scope.cancel()
    assert containers_of(installation_of(data)) == []
    assert list((data / "spares").rglob("*")) in ([], [data / "spares" / "me"])


# The image, the engine, and what is said


@pytest.fixture
def dockerfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, docker: Docker) -> Iterator[Path]:
    """Stands for the sandbox's own, which takes minutes."""
    path = tmp_path / "Dockerfile"
    path.write_text(f"FROM {docker.image.name}\nLABEL test={secrets.token_hex(8)}\n")
    monkeypatch.setattr(image_module, "DOCKERFILE", path)
    yield path
    subprocess.run(["docker", "rmi", own_name()], capture_output=True, check=False)


async def make_image(base: str = "") -> None:
    engine = Engine(HOST)
    try:
        async for _ in Image(engine, base=base).make():
            pass
    finally:
        await engine.close()


async def test_an_image_says_its_base_and_is_made_again_where_another_one_is_asked_for(
    data: Path, docker: Docker, dockerfile: Path
) -> None:
    dockerfile.write_text(f"ARG BASE_IMAGE={docker.image.name}\nFROM $BASE_IMAGE\nLABEL test={secrets.token_hex(8)}\n")
    other = connect(SMALL, HOST, data, "other")
    another = docker_cli("image", "inspect", "--format", "{{.Id}}", docker.image.name)
    await make_image()
    first = await other.image.id_and_base()
    assert first[1] == docker.image.name
    await make_image(docker.image.name)
    assert await other.image.id_and_base() == first, "it is on that base"
    await make_image(another)
    again = await other.image.id_and_base()
    assert again[0] != first[0]
    assert (await other.capabilities()).facts["image"] == f"{own_name()} is {again[0]}, built on {another}"
    await other.close()


async def test_auto_takes_bubblewrap_until_the_image_is_made_and_says_so(
    dockerfile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers_module, "LOOK_SECONDS", 0.05)
    drivers = Drivers(Config(sandbox_build=False), tmp_path / "fresh", HOST)
    told: list[tuple[str, str]] = []
    async with anyio.create_task_group() as group:
        group.start_soon(drivers.keep, lambda *what: told.append(what))
        with anyio.fail_after(30):
            while not drivers.notice:
                await anyio.sleep(0.01)
            assert drivers.driver is not None
            assert drivers.driver.name == "bubblewrap"
            while "python -m" not in drivers.notice:
                await anyio.sleep(0.01)
            assert "has to be made first: `python -m sandbox.image` does it. Until then tasks run in" in drivers.notice
            await make_image()
            while len(told) < 2:
                await anyio.sleep(0.01)
        assert drivers.notice == ""
        assert [name for name, _ in told] == ["bubblewrap", "docker"]
        group.cancel_scope.cancel()
    await drivers.close()


async def test_docker_lets_tasks_wait_while_the_image_is_made(dockerfile: Path, tmp_path: Path) -> None:
    drivers = Drivers(Config(sandbox="docker"), tmp_path / "fresh", HOST)
    seen: list[str] = []
    async with anyio.create_task_group() as group:
        group.start_soon(drivers.keep, lambda *what: seen.append(drivers.notice))
        with anyio.fail_after(30):
            while not drivers.found.is_set():
                if drivers.notice:
                    assert "Until then tasks wait." in drivers.notice
                    assert drivers.driver is None
                await anyio.sleep(0.001)
        group.cancel_scope.cancel()
    await drivers.close()


async def test_an_image_that_cannot_be_made_is_told_with_the_engines_words(dockerfile: Path) -> None:
    dockerfile.write_text(dockerfile.read_text() + "RUN echo no network here; exit 7\n")
    with pytest.raises(SandboxUnavailable, match="no network here"):
        await make_image()
    assert docker_cli("images", "--quiet", own_name()) == ""


async def test_an_engine_that_refuses_as_it_is_asked_for_the_image_is_told_too() -> None:
    engine = Engine(HOST)

    async def refuse(name: str) -> dict[str, Any] | None:
        raise EngineError(500, "the daemon is shutting down")

    engine.image = refuse
    with pytest.raises(SandboxUnavailable, match="could not be made: the daemon is shutting down"):
        async for _ in Image(engine).make():
            pass
    await engine.close()


async def test_an_image_of_ones_own_that_lacks_python_is_refused_with_the_reason(data: Path, docker: Docker) -> None:
    other = connect(Config(sandbox_image="debian:bookworm-slim"), HOST, data, "other")
    with pytest.raises(SandboxUnavailable, match="python3"):
        await other.capabilities()
    await other.close()
    missing = connect(Config(sandbox_image="errand-no-such-image:1"), HOST, data, "other")
    with pytest.raises(ImageMissing, match="errand-no-such-image:1"):
        await missing.capabilities()
    await missing.close()


async def test_an_image_that_was_removed_is_missing_and_not_a_tasks_fault(
    data: Path, dockerfile: Path, tmp_path: Path
) -> None:
    await make_image()
    name = own_name()
    other = connect(Config(sandbox_image=name), HOST, data, "other")
    await other.capabilities()
    docker_cli("rmi", name)
    with pytest.raises(ImageMissing, match=name):
        await other.start(spec_of(tmp_path / "workspace"))
    await other.close()


async def test_a_container_is_of_the_image_that_was_looked_at_until_the_change_of_its_name_is_said(
    data: Path, docker: Docker, dockerfile: Path, tmp_path: Path
) -> None:
    name = f"errand-test:{secrets.token_hex(8)}"
    docker_cli("tag", docker.image.name, name)
    other = connect(Config(sandbox_image=name), HOST, data, "other")
    assert (await other.capabilities()).warnings == (await docker.capabilities()).warnings
    before = docker_cli("image", "inspect", "--format", "{{.Id}}", docker.image.name)
    await make_image()
    docker_cli("tag", own_name(), name)
    now = docker_cli("image", "inspect", "--format", "{{.Id}}", name)
    try:
        sandbox = await other.start(spec_of(tmp_path / "workspace"))
        assert inspect(container_of(sandbox))["Image"] == before != now
        await sandbox.stop()
        able = await other.capabilities()
        assert able.warnings[-1] == f"The image {name} was {before} and is {now} now."
        assert able.facts["image"] == f"{name} is {now}"
        sandbox = await other.start(spec_of(tmp_path / "workspace"))
        assert inspect(container_of(sandbox))["Image"] == now
        await sandbox.stop()
    finally:
        docker_cli("rmi", name)
        await other.close()


async def test_another_runtime_is_used_and_one_that_is_not_there_is_refused(data: Path, tmp_path: Path) -> None:
    """A second name of runc stands for it: what another runtime does with the rest of the settings is not tried."""
    by_name = connect(Config(sandbox_runtime="io.containerd.runc.v2"), HOST, data, "me")
    await skip_unless_available(by_name)
    sandbox = await by_name.start(spec_of(tmp_path / "workspace"))
    assert inspect(container_of(sandbox))["HostConfig"]["Runtime"] == "io.containerd.runc.v2"
    await sandbox.stop()
    await by_name.close()
    missing = connect(Config(sandbox_runtime="runsc-no"), HOST, data, "me")
    with pytest.raises(
        SandboxUnavailable, match=r"no runtime runsc-no, but .*runc: install it \(gVisor: `runsc install`"
    ):
        await missing.capabilities()
    await missing.close()


async def test_an_engine_with_known_faults_is_used_with_a_warning_or_not_at_all(data: Path, docker: Docker) -> None:
    warnings = (await docker.capabilities()).warnings
    if not warnings:
        pytest.skip("this engine has no known faults")
    strict = connect(Config(sandbox_advisories="refuse"), HOST, data, "other")
    with pytest.raises(SandboxUnavailable, match=r"CVE-.*ERRAND_SANDBOX_ADVISORIES=refuse forbids"):
        await strict.capabilities()
    await strict.close()


async def test_auto_goes_back_to_bubblewrap_when_the_engine_goes_away(
    docker: Docker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "engine.sock"
    drivers = Drivers(Config(), tmp_path / "fresh", f"unix://{place}")
    for _ in range(2):
        async with engine_behind(await anyio.create_unix_listener(place)):
            await drivers.look()
            assert drivers.driver is not None
            assert (drivers.driver.name, drivers.why) == ("docker", f"Docker Engine answers at unix://{place}")
        await drivers.look()
        assert drivers.driver.name == "bubblewrap"
        assert "no Docker Engine answers" in drivers.why
        place.unlink()
    await drivers.close()


async def test_an_engine_is_also_reached_by_tcp(docker: Docker, tmp_path: Path) -> None:
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with engine_behind(listener):
        by_tcp = connect(SMALL, f"tcp://127.0.0.1:{port}", tmp_path / "other", "me")
        sandbox = await by_tcp.start(spec_of(tmp_path / "workspace"))
        assert (await sandbox.exec("echo fine")).output == "fine\n"
        await sandbox.write("large", bytes(3_000_000))
        assert len(await sandbox.read("large")) == 3_000_000
        await sandbox.stop()
        await by_tcp.close()


@asynccontextmanager
async def engine_behind(listener: anyio.abc.Listener[Any]) -> AsyncIterator[None]:
    """The engine behind a socket that can go away, with every connection."""

    async def copy(source: anyio.abc.ByteReceiveStream, target: anyio.abc.ByteSendStream) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                await target.send(await source.receive())

    async def serve(ours: anyio.abc.ByteStream) -> None:
        theirs = await anyio.connect_unix(HOST.removeprefix("unix://"))
        async with ours, theirs, anyio.create_task_group() as both:
            both.start_soon(copy, ours, theirs)
            await copy(theirs, ours)
            both.cancel_scope.cancel()

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield
        group.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("path", "seen"),
    [
        ("/data/workspaces/t-1", "/var/lib/docker/volumes/errand_data/_data/workspaces/t-1"),
        ("/data", "/var/lib/docker/volumes/errand_data/_data"),
        ("/data/mirrors/a/objects", "/srv/mirrors/a/objects"),
        ("/database", "/database"),
        ("/elsewhere", "/elsewhere"),
    ],
)
def test_in_a_container_of_its_own_the_runner_names_folders_as_the_engine_sees_them(path: str, seen: str) -> None:
    folders = {
        Path("/data"): Path("/var/lib/docker/volumes/errand_data/_data"),
        Path("/data/mirrors"): Path("/srv/mirrors"),
    }
    assert as_the_engine_sees(Path(path), folders) == Path(seen)
