"""What every driver must do. One that this machine cannot run skips with what would allow it; with CI=true it fails."""

from __future__ import annotations

import json
import os
import re
import resource
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.lowlevel
import anyio.to_thread
import psutil
import pytest

from sandbox.bubblewrap import Bubblewrap
from sandbox.client import ExecClient
from sandbox.config import DOCKER_HOST, Config, limits
from sandbox.container import ContainerLink
from sandbox.contract import (
    Driver,
    ExecResult,
    Ignored,
    ImageMissing,
    Process,
    Sandbox,
    SandboxDied,
    SandboxError,
    SandboxSpec,
    SandboxUnavailable,
)
from sandbox.docker import Docker, connect
from sandbox.limits import MIB
from sandbox.owners import Owners
from sandbox.process import SandboxProcess
from sandbox.register import Register
from sandbox.unsandboxed import Unsandboxed

pytestmark = pytest.mark.anyio
LIMITED = Config(
    sandbox_memory_mib=512,
    sandbox_tmp_mib=64,
    sandbox_processes=512,
    sandbox_disk_mib=128,
    sandbox_runtime=os.environ.get("ERRAND_TEST_RUNTIME", ""),
)
ROOT = Path(__file__).resolve().parents[2]
DAEMON = """
import os, signal, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
with open("daemon.pid", "w") as file:
    file.write(str(os.getpid()))
print("daemon is up", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module", params=["bubblewrap", "docker", "unsandboxed"])
async def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Driver]:
    async with driver_of(request.param, tmp_path_factory.mktemp("data")) as driver:
        yield driver


@pytest.fixture(scope="module", params=["bubblewrap", "docker"])
async def isolating_driver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Driver]:
    async with driver_of(request.param, tmp_path_factory.mktemp("data")) as driver:
        yield driver


@asynccontextmanager
async def driver_of(name: str, data: Path) -> AsyncIterator[Driver]:
    if name == "docker":
        docker = connect(LIMITED, os.environ.get("DOCKER_HOST") or DOCKER_HOST, data, "test")
        try:
            await skip_unless_available(docker)
            yield docker
        finally:
            await docker.close()
    else:
        register = Register(Owners(data, "test"), Bubblewrap.name, LIMITED.sandbox_lease_seconds)
        driver = Bubblewrap(limits(LIMITED), register) if name == "bubblewrap" else Unsandboxed()
        await skip_unless_available(driver)
        yield driver


async def skip_unless_available(driver: Driver) -> None:
    try:
        await driver.capabilities()
    except SandboxUnavailable as error:
        if os.environ.get("CI") == "true":
            raise
        needs = {"docker": ": apt-get install docker.io"}.get(driver.name, "")
        pytest.skip(f"{error}{': make sandbox-image' if isinstance(error, ImageMissing) else needs}")


def spec_of(workspace: Path, *readonly: Path) -> SandboxSpec:
    workspace.mkdir(exist_ok=True)
    return SandboxSpec(
        task="task_1", attempt=1, workspace=workspace, readonly_paths=readonly, environment={"GIVEN": "1"}
    )


@pytest.fixture
async def sandbox(driver: Driver, tmp_path: Path) -> AsyncIterator[Sandbox]:
    sandbox = await driver.start(spec_of(tmp_path / "workspace"))
    yield sandbox
    await sandbox.stop()


@pytest.fixture
async def isolated(isolating_driver: Driver, tmp_path: Path) -> AsyncIterator[Sandbox]:
    sandbox = await isolating_driver.start(spec_of(tmp_path / "workspace"))
    yield sandbox
    await sandbox.stop()


class Screen:
    """Collects what a command shows, and tells when `wanted` was."""

    def __init__(self, wanted: str = "") -> None:
        self.text = ""
        self.seen = anyio.Event()
        self._wanted = wanted

    async def __call__(self, text: str) -> None:
        self.text += text
        if self._wanted and self._wanted in self.text:
            self.seen.set()


async def is_running(sandbox: Sandbox, pid: str) -> bool:
    return (await sandbox.exec(f"kill -0 {pid}")).exit_code == 0


# Commands


@pytest.mark.parametrize(
    ("command", "exit_code", "ended_by"),
    [
        ("true", 0, ""),
        ("exit 7", 7, ""),
        ("no-such-program", 127, ""),
        ("kill -9 $$", None, "signal 9"),
        ("(exit 3) | true", 0, ""),
        ("-x", 127, ""),
    ],
)
async def test_a_command_ends_with_its_exit_code(
    sandbox: Sandbox, command: str, exit_code: int | None, ended_by: str
) -> None:
    result = await sandbox.exec(command)
    assert (result.exit_code, result.ended_by) == (exit_code, ended_by)


async def test_stdout_and_stderr_come_in_the_order_they_were_written(sandbox: Sandbox) -> None:
    screen = Screen()
    result = await sandbox.exec("for i in 1 2 3; do echo out$i; echo err$i >&2; done", on_output=screen)
    assert result.output == screen.text == "out1\nerr1\nout2\nerr2\nout3\nerr3\n"


async def test_output_is_shown_while_the_command_runs(sandbox: Sandbox) -> None:
    screen = Screen(wanted="first")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: sandbox.exec("echo first; until [ -e go ]; do :; done; echo last", on_output=screen))
        await screen.seen.wait()
        assert "last" not in screen.text
        await sandbox.write("go", b"")
    assert screen.text == "first\nlast\n"


async def test_a_character_cut_between_two_pieces_stays_whole(sandbox: Sandbox) -> None:
    screen = Screen(wanted="a")
    async with anyio.create_task_group() as tasks:
        command = r"printf 'a\xe2\x82'; until [ -e go ]; do :; done; printf '\xac'"
        tasks.start_soon(lambda: sandbox.exec(command, on_output=screen))
        await screen.seen.wait()
        await sandbox.write("go", b"")
    assert screen.text == "a€"


async def test_any_bytes_arrive_as_valid_json(sandbox: Sandbox) -> None:
    screen = Screen()
    await sandbox.write("bytes", bytes(range(256)) + b"\xed\xa0\x80 \xf4\x90\x80\x80 \x1b[31m")
    result = await sandbox.exec("cat bytes", on_output=screen)
    json.dumps(result.output).encode()
    result.output.encode("utf-8")
    assert "\0" not in result.output
    assert "\u2400\x01" in result.output
    assert screen.text == result.output


async def test_what_python_compiles_stays_out_of_the_workspace(sandbox: Sandbox) -> None:
    await sandbox.write("/workspace/module.py", b"x = 1\n")
    result = await sandbox.exec("python3 -c 'import module; print(module.__cached__)'; ls")
    assert result.output.splitlines()[-1] == "module.py", result.output
    assert "__pycache__" not in result.output


async def test_environment_and_folder_are_those_asked_for(sandbox: Sandbox) -> None:
    await sandbox.write("sub/file", b"")
    result = await sandbox.exec("echo $GIVEN $MORE $(ls)", cwd="/workspace/sub", environment={"MORE": "2"})
    assert result.output == "1 2 file\n"


async def test_a_command_in_a_missing_folder_is_refused_with_its_path(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxError, match="nowhere"):
        await sandbox.exec("true", cwd="/workspace/nowhere")


@pytest.mark.parametrize("command", ["echo \0", "\ud800", "x" * 3_000_000, "echo " + "x" * 200_000])
async def test_a_command_that_cannot_be_started_harms_nothing(sandbox: Sandbox, command: str) -> None:
    with pytest.raises(SandboxError) as refusal:
        await sandbox.exec(command)
    assert not isinstance(refusal.value, SandboxDied)
    assert (await sandbox.exec("echo fine")).output == "fine\n"


async def test_a_command_that_reads_stdin_finds_its_end(sandbox: Sandbox) -> None:
    assert (await sandbox.exec("cat; echo done")).output == "done\n"


async def test_commands_side_by_side_do_not_disturb_each_other(sandbox: Sandbox) -> None:
    results: dict[int, str] = {}

    async def run(number: int) -> None:
        result = await sandbox.exec(f"for i in $(seq 50); do echo {number}; done; exit {number}")
        assert result.exit_code == number
        results[number] = result.output

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(run, number)
    assert results == {number: f"{number}\n" * 50 for number in range(20)}


async def test_a_background_child_does_not_hold_its_command_open_and_lives_on(sandbox: Sandbox) -> None:
    result = await sandbox.exec("sleep 1000 & echo $!", timeout_seconds=60)
    assert result.exit_code == 0
    assert result.duration_seconds < 5
    assert await is_running(sandbox, result.output.strip())


async def test_a_command_inherits_no_descriptor(sandbox: Sandbox) -> None:
    assert (await sandbox.exec("ls /proc/self/fd | tr '\\n' ' '")).output == "0 1 2 3 "


# The shell


async def test_folder_variables_and_functions_go_from_one_command_to_the_next(sandbox: Sandbox) -> None:
    await sandbox.write("sub/file", b"")
    first = await sandbox.shell("cd sub; mine=1; export GIVEN=2; greet() { echo hi $mine; }")
    assert (first.exit_code, first.cwd, first.shell) == (0, "/workspace/sub", "kept")
    second = await sandbox.shell("greet; ls; sh -c 'echo $GIVEN'; sleep 100 & echo $! >../pid")
    assert (second.output, second.cwd) == ("hi 1\nfile\n2\n", "/workspace/sub")
    assert (await sandbox.shell("kill $!; wait; cat; echo stdin is empty")).output == "stdin is empty\n"
    assert (await sandbox.exec("pwd; echo $mine")).output.splitlines()[-1] == "", "others are by themselves"


SHELL_ENDS = (
    ("exit 7", 7, ""),
    ("set -e; false; echo not reached", 1, ""),
    ("set -u; echo $none", 1, ""),
    ("exec sh -c 'exit 5'", 5, ""),
    ("kill -9 $$", None, "signal 9"),
    ('for fd in /proc/$$/fd/*; do eval "exec ${fd##*/}>&-"; done; exit 0', 0, ""),
    ("sleep 1000; echo not reached", None, "deadline"),
    ("while :; do :; done", None, "deadline"),
    ("trap '' TERM INT HUP; kill -STOP $$", None, "deadline"),
)


async def test_a_shell_that_ends_is_an_outcome_and_the_next_command_has_a_new_one(sandbox: Sandbox) -> None:
    for command, exit_code, ended_by in SHELL_ENDS:
        await sandbox.shell("cd /tmp; mine=1")
        ended = await sandbox.shell(command, timeout_seconds=0.5)
        assert (ended.exit_code, ended.ended_by, ended.shell, ended.cwd) == (exit_code, ended_by, "ended", ""), command
        assert "not reached" not in ended.output
        after = await sandbox.shell("pwd -P; echo [$mine]")
        assert (after.shell, after.output.endswith("workspace\n[]\n")) == ("new", True), after


SHELL_IS_LOST = (
    "ulimit -n 10; echo said",
    "set -n",
    "sleep 1000 & set -n",
    "echo said; exec >/dev/null 2>&1; ulimit -n 3",
)


async def test_a_shell_that_can_run_nothing_more_is_found_out_at_once_and_started_anew(sandbox: Sandbox) -> None:
    for command in SHELL_IS_LOST:
        lost = await sandbox.shell(command, timeout_seconds=60)
        assert (lost.ended_by, lost.shell) == ("shell" if "set" in command else lost.ended_by, "ended"), command
        assert lost.duration_seconds < 5, command
        assert lost.output.startswith("said\n" if "said" in command else ""), command
        after = await sandbox.shell("ulimit -n; echo fine", timeout_seconds=5)
        assert (after.output.endswith("\nfine\n"), after.shell) == (True, "new"), after
        assert int(after.output.split()[0]) > 10


async def test_a_quiet_command_of_the_shell_is_not_taken_for_a_lost_shell(sandbox: Sandbox) -> None:
    quiet = await sandbox.shell("exec >/dev/null 2>&1; sleep 2; (exit 9)", timeout_seconds=30)
    assert (quiet.exit_code, quiet.shell) == (9, "kept")


UNMARKED = (
    "ulimit -R unlimited; sleep 1000",
    "ulimit -R 5; sleep 1000",
    "(ulimit -R 5; setsid sh -c 'echo $$ >pid; sleep 1000 & wait' &); sleep 1000",
    "ulimit -SR 5; (sh -c 'echo $$ >pid; exec sleep 1000' &); sleep 1000",
)


async def test_who_takes_off_the_mark_of_its_command_escapes_no_deadline(sandbox: Sandbox) -> None:
    for command in UNMARKED:
        await sandbox.exec("rm -f pid")
        ended = await sandbox.shell(command, timeout_seconds=0.5)
        assert (ended.ended_by, ended.shell) == ("deadline", "ended"), command
        assert ended.duration_seconds < 5, command
        if "pid" in command:
            assert not await is_running(sandbox, (await sandbox.read("pid")).decode().strip()), command
    lowered = await sandbox.shell("ulimit -R 5", timeout_seconds=5)
    assert (lowered.exit_code, lowered.ended_by) == (0, "")
    after = await sandbox.shell("echo fine", timeout_seconds=5)
    assert (after.output, after.shell) == ("fine\n", "new")
    alone = await sandbox.exec("ulimit -R 5; setsid -w sleep 1000", timeout_seconds=0.5)
    assert (alone.ended_by, alone.duration_seconds < 5) == ("deadline", True)


OUT_OF_STEP = (
    "echo 'open",
    "if true; then",
    "echo $(",
    "break",
    "return 1",
    "exec >/dev/full",
    "exec 1>&- 2>&-",
    "exec 198>&- 199>&-",
    "cat <<END",
    "set -eu",
    "set -xv",
    "false # comment",
    "echo \\",
    "trap 'echo trapped' DEBUG; trap 'echo error' ERR; false",
    "IFS=0123456789",
    "printf 'aaaaaaaaaaaaaaaa 0\\n' >&199",
    "set -o posix",
    "PATH=; unset HOME",
)


async def test_no_command_takes_the_shell_out_of_step(sandbox: Sandbox) -> None:
    for command in OUT_OF_STEP:
        await sandbox.shell(command, timeout_seconds=5)
        after = await sandbox.shell("set +xv; trap - DEBUG ERR; printf 'in step\\n'; (exit 42)", timeout_seconds=5)
        assert (after.exit_code, after.output.splitlines()[-1]) == (42, "in step"), after
        assert after.shell == "kept", command


async def test_what_a_command_writes_as_its_status_is_taken_for_none(sandbox: Sandbox) -> None:
    """By the descriptors that bash has put aside: they are the shell's own."""
    forge = "for fd in /proc/$$/fd/*; do [ -p $fd ] && echo '0 0' >$fd; done; false"
    forged = await sandbox.shell(forge, timeout_seconds=5)
    assert (forged.exit_code, forged.ended_by) in ((1, ""), (None, "signal 9"))
    assert (await sandbox.shell("echo fine")).output.splitlines()[-1] == "fine"


async def test_what_the_shell_left_in_the_background_survives_later_commands(sandbox: Sandbox) -> None:
    started = await sandbox.shell("sleep 1000 & echo $!")
    assert started.duration_seconds < 5
    pid = started.output.strip()
    assert (await sandbox.shell("sleep 1000", timeout_seconds=0.1)).ended_by == "deadline"
    assert await is_running(sandbox, pid)
    await sandbox.restart_shell()
    assert (await sandbox.shell("echo fine")).shell == "new"
    assert await is_running(sandbox, pid)


async def test_the_deadline_of_the_shell_kills_a_daemon_that_left_it(sandbox: Sandbox) -> None:
    await sandbox.write("daemon.py", DAEMON.encode())
    result = await sandbox.shell("env -i $(command -v python3) daemon.py; sleep 1000", timeout_seconds=1)
    assert result.ended_by == "deadline"
    assert "daemon is up" in result.output
    assert not await is_running(sandbox, (await sandbox.read("daemon.pid")).decode())


async def test_two_commands_at_once_in_the_shell_are_refused(sandbox: Sandbox) -> None:
    screen = Screen(wanted="up")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: sandbox.shell("echo up; until [ -e go ]; do :; done", on_output=screen))
        await screen.seen.wait()
        with pytest.raises(SandboxError, match="another command"):
            await sandbox.shell("true")
        await sandbox.write("go", b"")
    assert (await sandbox.shell("echo fine")).output == "fine\n"


async def test_what_is_no_command_harms_no_shell(sandbox: Sandbox) -> None:
    await sandbox.shell("mine=1")
    for command in ("echo \0", "\ud800", "x" * 3_000_000):
        with pytest.raises(SandboxError):
            await sandbox.shell(command)
    assert (await sandbox.shell("echo $mine")).output == "1\n"


# Background processes


async def test_a_background_process_is_started_listed_read_and_stopped(sandbox: Sandbox) -> None:
    await sandbox.shell("mkdir web; cd web; mkfifo go")
    command = "pwd -P; echo $GIVEN; read -r line <go; echo $line; setsid sleep 1000 & echo $! >child; wait"
    started = await sandbox.start_process(command)
    assert (started.number, started.running, started.exit_code) == (1, True, None)
    assert (await read_until(sandbox, 1, "1\n")).endswith("workspace/web\n1\n")
    await sandbox.shell("echo and more >go")
    assert await read_until(sandbox, 1, "more") == "and more\n"
    while (await sandbox.exec("[ -s web/child ]")).exit_code:
        pass
    quick = await sandbox.start_process("exit 3", cwd="/tmp")
    assert (await ended(sandbox, quick.number)).exit_code == 3
    listed = await sandbox.processes()
    assert [(process.number, process.running) for process in listed] == [(1, True), (2, False)]
    stopped = await sandbox.stop_process(1)
    assert (stopped.running, stopped.exit_code, stopped.ended_by) == (False, None, "stopped")
    assert not await is_running(sandbox, (await sandbox.read("web/child")).decode().strip())
    assert (await sandbox.stop_process(1)).ended_by == "stopped"
    with pytest.raises(SandboxError, match="no background process 7"):
        await sandbox.read_process(7)


@pytest.mark.parametrize(
    "folder", ["mkdir $'\\xff'; cd $'\\xff'", "mkdir gone; cd gone; rmdir ../gone"], ids=["no text", "gone"]
)
async def test_a_background_process_starts_where_the_shell_is_whatever_the_folders_name(
    sandbox: Sandbox, folder: str
) -> None:
    await sandbox.shell(folder)
    there = (await sandbox.shell("readlink /proc/self/cwd")).output
    await sandbox.start_process("readlink /proc/self/cwd")
    assert there in await read_until(sandbox, 1, there)


async def test_a_background_process_outlives_deadlines_and_restarts_and_keeps_a_bounded_output(
    sandbox: Sandbox,
) -> None:
    await sandbox.start_process("head -c 5M /dev/zero | tr '\\0' x; echo; echo last; exec sleep 1000")
    await sandbox.shell("sleep 1000", timeout_seconds=0.1)
    await sandbox.restart_shell()
    while (await sandbox.processes())[0].unread_bytes < 5_000_000:
        pass
    read = await sandbox.read_process(1)
    assert read.running
    assert len(read.output) < 70_000
    assert read.dropped_bytes > 4_900_000
    assert read.output.endswith("x\nlast\n")
    for _ in range(15):
        await sandbox.start_process("exec sleep 1000")
    with pytest.raises(SandboxError, match="stop one"):
        await sandbox.start_process("true")


async def read_until(sandbox: Sandbox, number: int, wanted: str) -> str:
    text = ""
    while wanted not in text:
        text += (await sandbox.read_process(number)).output
    return text


async def ended(sandbox: Sandbox, number: int) -> Process:
    while (process := await sandbox.read_process(number)).running:
        pass
    return process


# Ending commands


async def test_the_deadline_kills_a_daemon_that_left_its_session_and_ignores_signals(sandbox: Sandbox) -> None:
    await sandbox.write("daemon.py", DAEMON.encode())
    result = await sandbox.exec("env -i $(command -v python3) daemon.py; sleep 1000", timeout_seconds=1)
    assert (result.exit_code, result.ended_by) == (None, "deadline")
    assert "daemon is up" in result.output
    assert not await is_running(sandbox, (await sandbox.read("daemon.pid")).decode())


async def test_the_deadline_of_one_command_spares_the_others(sandbox: Sandbox) -> None:
    other = (await sandbox.exec("sleep 1000 >/dev/null 2>&1 & echo $!")).output.strip()
    assert (await sandbox.exec("sleep 1000 & wait", timeout_seconds=0.05)).ended_by == "deadline"
    assert await is_running(sandbox, other)


async def test_cancelling_the_caller_kills_the_command(sandbox: Sandbox) -> None:
    screen = Screen(wanted="\n")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: sandbox.exec("trap '' TERM; setsid sleep 1000 & echo $!; wait", on_output=screen))
        await screen.seen.wait()
        tasks.cancel_scope.cancel()
    assert not await is_running(sandbox, screen.text.strip())


async def test_an_error_in_on_output_kills_the_command_and_comes_out(sandbox: Sandbox) -> None:
    async def fail(text: str) -> None:
        raise LookupError(text.strip())

    with pytest.raises(LookupError) as error:
        await sandbox.exec("echo $$; sleep 1000", on_output=fail)
    assert not await is_running(sandbox, str(error.value))


# Output limits


async def test_output_over_the_limit_keeps_head_and_tail_and_counts_the_rest(sandbox: Sandbox) -> None:
    result = await sandbox.exec(
        "echo head; head -c 100000 /dev/zero | tr '\\0' x; echo; echo tail", output_limit_bytes=1000
    )
    head, _, tail = result.output.partition(f"\n[… {result.dropped_bytes} bytes left out …]\n")
    assert head.startswith("head\nxxx")
    assert tail.endswith("xxx\ntail\n")
    assert len(head) + len(tail) + result.dropped_bytes == 100_000 + len("head\n\ntail\n")
    assert len(head) + len(tail) == 1000


async def test_a_gigabyte_on_one_line_grows_no_memory_and_leaves_other_sandboxes_quick(
    isolated: Sandbox, isolating_driver: Driver, tmp_path: Path
) -> None:
    other = await isolating_driver.start(spec_of(tmp_path / "other"))
    quiet = [await seconds_of_a_command(other) for _ in range(100)]
    largest, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results: list[ExecResult] = []
    beside: list[float] = []

    async def show(text: str) -> None:
        nonlocal largest
        largest = max(largest, len(text))
        await anyio.lowlevel.checkpoint()

    async def run() -> None:
        results.append(await isolated.exec("head -c 1G /dev/zero", on_output=show))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        while not results:
            beside.append(await seconds_of_a_command(other))
    await other.stop()
    assert results[0].exit_code == 0
    assert results[0].dropped_bytes > 2**30 - 100_000
    assert largest < 2_000_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
    server = await isolated.exec("grep VmHWM /proc/$PPID/status")
    assert int(server.output.split()[1]) < 64 * 1024
    assert p99(beside) < max(0.1, 5 * p99(quiet)), "the other sandbox waited"


async def seconds_of_a_command(sandbox: Sandbox) -> float:
    return (await sandbox.shell("true")).duration_seconds


def p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


async def test_a_caller_that_does_not_take_output_blocks_neither_the_command_nor_others(sandbox: Sandbox) -> None:
    release = anyio.Event()

    async def wait(text: str) -> None:
        await release.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: sandbox.exec("head -c 20M /dev/zero; touch finished", on_output=wait))
        while (await sandbox.exec("[ -e finished ]")).exit_code != 0:
            pass
        release.set()


# Files


@pytest.mark.parametrize("size", [0, 1, 262_144, 262_145, 3_000_000])
async def test_a_file_is_written_and_read_byte_for_byte(sandbox: Sandbox, size: int) -> None:
    data = os.urandom(size)
    await sandbox.write("new/folder/file", data)
    assert await sandbox.read("/workspace/new/folder/file") == data


async def test_writing_keeps_the_mode_of_a_file_and_follows_a_link_inside(sandbox: Sandbox) -> None:
    await sandbox.exec(
        "mkdir real; echo old > real/tool; chmod 755 real/tool; ln -s real/tool link; ln -s /workspace/real abs"
    )
    await sandbox.write("link", b"new")
    assert (await sandbox.exec("stat -c '%a %F' real/tool link; cat real/tool")).output == (
        "755 regular file\n777 symbolic link\nnew"
    )


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("missing", FileNotFoundError),
        ("folder", IsADirectoryError),
        ("pipe", PermissionError),
        ("file/x", FileNotFoundError),
    ],
)
async def test_what_is_no_file_is_refused_with_its_path(sandbox: Sandbox, path: str, error: type[OSError]) -> None:
    await sandbox.exec("mkdir folder; mkfifo pipe; touch file")
    with pytest.raises(error, match=path):
        await sandbox.read(path)


async def test_a_file_over_the_limit_is_refused(sandbox: Sandbox) -> None:
    await sandbox.write("large", b"x" * 1001)
    with pytest.raises(SandboxError, match="large"):
        await sandbox.read("large", 1000)
    with pytest.raises(SandboxError):
        await sandbox.write("larger", bytes(16 * 1024 * 1024 + 1))


@pytest.mark.parametrize("link", ["/etc", "../..", "/workspace/../etc"])
async def test_a_symlink_that_leaves_the_workspace_is_refused(sandbox: Sandbox, link: str) -> None:
    await sandbox.exec(f"ln -s {link} out")
    for path in ("out/passwd", "out"):
        with pytest.raises(PermissionError):
            await sandbox.read(path)
        with pytest.raises(PermissionError):
            await sandbox.write(path, b"")


async def test_a_symlink_swapped_in_between_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    """One command swaps a folder for a link that leaves, as fast as it can, while files below it are written."""
    await sandbox.exec("mkdir good; ln -s /usr bad")
    async with anyio.create_task_group() as tasks:
        swap = "while [ ! -e stop ]; do mv -T good was; mv -T bad good; mv -T good bad; mv -T was good; done"
        tasks.start_soon(lambda: sandbox.exec(swap))
        for _ in range(200):
            try:
                await sandbox.write("good/swapped", b"x")
            except (PermissionError, FileNotFoundError):
                continue
        await sandbox.write("stop", b"")
    assert not Path("/usr/swapped").exists()


async def test_a_write_outside_workspace_and_tmp_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(PermissionError):
        await sandbox.write("/usr/errand", b"")


async def test_a_system_file_can_be_read(sandbox: Sandbox) -> None:
    assert b"root:" in await sandbox.read("/etc/passwd")
    assert b"processor" in await sandbox.read("/proc/cpuinfo")
    if Path("/etc/ssl/openssl.cnf").exists():
        assert b"openssl" in await sandbox.read("/etc/ssl/openssl.cnf")


# Isolation


async def test_no_address_of_the_host_can_be_reached(isolated: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = await isolated.exec(f"exec 3<>/dev/tcp/127.0.0.1/{port}")
        assert result.exit_code != 0
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert (await isolated.exec("ls /sys/class/net 2>/dev/null | grep -vx lo")).output == ""
    assert (await isolated.exec("cat /proc/net/route")).output.count("\n") <= 1


async def test_no_secret_of_the_host_is_visible(isolated: Sandbox, isolating_driver: Driver, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("canary")
    places = [canary, ROOT, Path.home(), Path("/root"), Path("/run/docker.sock"), Path("/var/run/docker.sock")]
    if isinstance(isolating_driver, Docker):
        # An image has folders of its own under these names.
        for path in map(Path, ("/", "/etc/passwd", "/etc/shadow", "/var/lib", "/home", "/usr")):
            there = (await isolated.exec(f"stat -L -c %d:%i {path}")).output.strip()
            assert there != f"{path.stat().st_dev}:{path.stat().st_ino}", path
        assert (await isolated.exec("cat /etc/shadow")).exit_code != 0
    else:
        places += map(Path, ("/etc/shadow", "/etc/ssl/private", "/var/lib", "/home", "/sys"))
    for path in places:
        assert (await isolated.exec(f"ls {path}")).exit_code != 0, path


async def test_the_environment_of_the_host_is_not_inherited(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRAND_CANARY", "secret")
    sandbox = await driver.start(spec_of(tmp_path / "workspace"))
    assert "ERRAND_CANARY" not in (await sandbox.exec("env")).output
    await sandbox.stop()


async def test_the_system_cannot_be_changed(isolated: Sandbox) -> None:
    for command in (
        "touch /usr/x",
        "touch /etc/x",
        "touch /x",
        # The same value again, so that a sandbox that can write it does this machine no harm.
        "pattern=$(cat /proc/sys/kernel/core_pattern); echo $pattern > /proc/sys/kernel/core_pattern",
        "mount -t tmpfs none /tmp",
        "[ $(id -u) = 0 ]",
    ):
        assert (await isolated.exec(command)).exit_code != 0, command


async def test_commands_can_neither_kill_nor_write_to_the_exec_server(isolated: Sandbox) -> None:
    attack = (
        "kill -9 1; kill -STOP 1; for fd in $(seq 0 200); do echo '{}' > /proc/1/fd/$fd; done; cat /proc/1/mem; true"
    )
    assert (await isolated.exec(attack, output_limit_bytes=100)).exit_code == 0
    assert (await isolated.exec("echo alive")).output == "alive\n"


async def test_every_way_out_that_is_known_is_closed(isolated: Sandbox, isolating_driver: Driver) -> None:
    assert await ways_out(isolated, isolating_driver) == "probed\n"


async def ways_out(isolated: Sandbox, isolating_driver: Driver) -> str:
    """See escape_probe.py. Listeners of the host, and the port where its NATS server would be, are among them."""
    names = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
    if isinstance(isolating_driver, Bubblewrap) and os.geteuid() != 0:
        names.append("user")
    await isolated.write("/tmp/probe.py", Path(__file__).with_name("escape_probe.py").read_bytes())
    with socket.create_server(("", 0)) as listener, socket.create_server(("::1", 0), family=socket.AF_INET6) as six:
        port = listener.getsockname()[1]
        addresses = [("127.0.0.1", port), ("::1", six.getsockname()[1]), (own_address(), port), ("127.0.0.1", 4222)]
        host = {
            "namespaces": {name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in names},
            "addresses": addresses,
        }
        return (await isolated.exec(f"python3 -W ignore /tmp/probe.py {shlex.quote(json.dumps(host))}")).output


def own_address() -> str:
    """Of this machine, as others see it; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


async def test_the_mirror_is_readable_where_it_is_and_cannot_be_changed(
    isolating_driver: Driver, tmp_path: Path
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "object").write_text("object")
    sandbox = await isolating_driver.start(spec_of(tmp_path / "workspace", mirror))
    assert (await sandbox.exec(f"cat {mirror}/object")).output == "object"
    assert (await sandbox.exec(f"rm -f {mirror}/object; touch {mirror}/x; chmod 777 {mirror}")).exit_code != 0
    assert [path.name for path in mirror.iterdir()] == ["object"]
    assert (await sandbox.exec(f"ls {tmp_path}")).output == "mirror\n"
    await sandbox.stop()


@pytest.mark.parametrize("place", ["/var/tmp", "/tmp", "/dev/shm", "/home", "/opt", "/srv"])
async def test_the_mirror_may_lie_anywhere(isolating_driver: Driver, tmp_path: Path, place: str) -> None:
    """Also below what the sandbox has its own of: the host's /var/tmp is not seen, the mirror in it is."""
    if not os.access(place, os.W_OK):
        pytest.skip(f"this user cannot write to {place}")
    with TemporaryDirectory(dir=place, prefix="errand-test-") as folder:
        Path(folder).chmod(0o755)
        mirror = Path(folder) / "data" / "mirror"
        mirror.mkdir(parents=True)
        (mirror / "object").write_text("object")
        sandbox = await isolating_driver.start(spec_of(tmp_path / "workspace", mirror))
        assert (await sandbox.exec(f"cat {mirror}/object")).output == "object"
        assert (await sandbox.exec(f"touch {mirror}/x")).exit_code != 0
        assert (await sandbox.exec("cd /var/tmp && echo x >mine && cat mine")).output == "x\n"
        await sandbox.stop()
        assert not Path("/var/tmp/mine").exists()


HARD = {
    "a fork bomb": "bomb() { bomb | bomb & }; bomb; sleep 1000",
    "endless output": "yes",
    "an endless line": "cat /dev/zero",
    "output that it closed": "exec >&- 2>&-; sleep 1000",
    "no ear for signals": "trap '' TERM INT HUP QUIT; while :; do sleep 1000; done",
    "a daemon": "env -i $(command -v python3) /tmp/daemon.py; sleep 1000",
    "many sessions": "for i in 1 2 3; do setsid sh -c 'setsid sleep 1000 & setsid sleep 1000 & wait' & done; wait",
    "a stopped shell": "sleep 1000 & kill -STOP $! $$",
    "a busy shell": "while :; do :; done",
    "a wait for nobody": "mkfifo /tmp/never; read -r line </tmp/never",
    "a full /tmp": "while :; do cat /dev/zero >/tmp/full; done",
    "no end of files": "while :; do : >$((n += 1)); done",
}


async def test_what_a_deadline_ends_is_ended_within_seconds_and_leaves_nothing_behind(isolated: Sandbox) -> None:
    await isolated.write("/tmp/daemon.py", DAEMON.encode())
    await isolated.exec("mkdir many")
    for number, (what, command) in enumerate(HARD.items()):
        run = isolated.exec if number % 2 else isolated.shell
        result = await run(f"cd many; {command}", timeout_seconds=0.3)
        assert (result.exit_code, result.ended_by) == (None, "deadline"), what
        assert result.duration_seconds < 5.3, what
        with anyio.fail_after(5):
            while (left := (await isolated.exec("set -- /proc/[0-9]*; echo $#")).output) != "2\n":
                assert left.strip().isdigit(), what
        await isolated.exec("find many /tmp/full /tmp/never -type f,p -delete")
        assert (await isolated.shell("echo fine")).output == "fine\n", what
        await isolated.restart_shell()


async def test_a_shell_that_dies_unseen_as_its_next_command_comes_costs_no_more_than_itself(tmp_path: Path) -> None:
    """The new one has the descriptors of the old one, of which the server has still to hear."""
    sandbox = await Unsandboxed().start(spec_of(tmp_path))
    assert isinstance(sandbox.link, SandboxProcess)
    async with anyio.create_task_group() as group:
        waiting = Screen("begun")
        command = "echo begun; until [ -e go ]; do sleep 0.01; done; echo gone"
        group.start_soon(partial(sandbox.exec, command, on_output=waiting))
        await waiting.seen.wait()
        shell = psutil.Process(int((await sandbox.shell("echo $$")).output))
        os.kill(sandbox.link.pid, signal.SIGSTOP)
        # What it hears of first, and by itself.
        (tmp_path / "go").touch()
        for child in psutil.Process(sandbox.link.pid).children():
            if child != shell:
                await until_zombie(child)
        group.start_soon(sandbox.shell, "echo another")
        await anyio.wait_all_tasks_blocked()
        shell.kill()
        await until_zombie(shell)
        os.kill(sandbox.link.pid, signal.SIGCONT)
    assert (await sandbox.shell("echo on")).output == "on\n"
    await sandbox.stop()


async def until_zombie(process: psutil.Process) -> None:
    with anyio.fail_after(5):
        while process.status() != psutil.STATUS_ZOMBIE:
            await anyio.lowlevel.checkpoint()


async def test_a_full_tmp_is_said_and_everything_else_goes_on(isolated: Sandbox) -> None:
    await isolated.shell("mine=1")
    assert "No space left" in (await isolated.shell("head -c 1G /dev/zero >/tmp/full")).output
    assert (await isolated.shell("echo $mine")).output == "1\n"
    await isolated.write("file", b"x")
    with pytest.raises(SandboxError, match="No space left"):
        await isolated.write("/tmp/file", bytes(100_000))
    assert (await isolated.shell("rm /tmp/full; echo fine >/tmp/file; cat /tmp/file")).output == "fine\n"


async def test_files_without_end_in_tmp_are_bounded_or_the_driver_says_that_they_are_not(
    isolated: Sandbox, isolating_driver: Driver
) -> None:
    if not isinstance(isolating_driver, Docker):
        assert any("/tmp" in note for note in (await isolating_driver.capabilities()).notes)
        return
    make = "import os; os.mkdir('/tmp/many'); [open(f'/tmp/many/{n}', 'w').close() for n in range(100_000)]"
    assert "No space left" in (await isolated.shell(f'python3 -c "{make}"')).output
    assert (await isolated.shell("echo still in step")).output == "still in step\n"
    assert (await isolated.shell("rm -r /tmp/many; echo fine >/tmp/file; cat /tmp/file")).output == "fine\n"


async def test_a_command_that_took_too_much_memory_is_found_out_or_the_driver_says_that_it_has_no_limit(
    isolated: Sandbox, isolating_driver: Driver
) -> None:
    able = await isolating_driver.capabilities()
    if not able.memory_limit:
        assert any("memory" in note for note in able.notes)
        return
    for run in (isolated.exec, isolated.shell):
        hog = await run("python3 -c 'bytearray(1 << 31)' | cat; true")
        assert (hog.exit_code, hog.ended_by) == (None, "memory")
        assert (await run("echo fine; (exit 3)")).exit_code == 3


FILL_FILES = """python3 -c 'import itertools; [open(f"many/{n}", "w").close() for n in itertools.count()]'"""


async def test_a_full_disk_is_said_and_hurts_one_task_or_the_driver_says_that_it_has_no_limit(
    isolated: Sandbox, isolating_driver: Driver, tmp_path: Path
) -> None:
    able = await isolating_driver.capabilities()
    if not able.disk_limit:
        assert any("disk" in note for note in able.notes)
        return
    other = await isolating_driver.start(spec_of(tmp_path / "other"))
    await isolated.exec("mkdir many")
    for fill, limit in (("head -c 1G /dev/zero >many/full", "MiB"), (FILL_FILES, "files")):
        filled = await isolated.shell(fill)
        assert filled.exit_code == 1
        assert "No space left on device" in filled.output
        assert re.search(rf"\[/workspace is full: it holds [\d,]+ {limit}\]\n$", filled.output), filled.output[-300:]
        with pytest.raises(SandboxError, match="file: No space left on device"):
            await isolated.write("file", bytes(100_000))
        assert (await isolated.shell("echo still in step")).output == "still in step\n"
        assert (await other.exec("head -c 1M /dev/zero >file && echo fine")).output == "fine\n"
        assert (await isolated.shell("rm -r many; mkdir many; echo fine >file; cat file")).output == "fine\n"
    await other.stop()


async def test_who_waits_for_a_person_finds_nobody(sandbox: Sandbox) -> None:
    for command in ("cat", "read -r x", "python3 -c 'input()'", "cat </dev/tty", "sh -i"):
        result = await sandbox.shell(f"( {command} ) >/dev/null; echo over", timeout_seconds=10)
        assert result.output.endswith("over\n"), command
        assert result.duration_seconds < 5, command


# Life and death


async def test_the_death_of_the_exec_server_is_an_outcome_and_the_host_goes_on(driver: Driver, tmp_path: Path) -> None:
    sandbox = await driver.start(spec_of(tmp_path / "workspace"))
    assert isinstance(sandbox, ExecClient)
    screen = Screen(wanted="up")

    async def run() -> None:
        with pytest.raises(SandboxDied):
            await sandbox.exec("echo up; read -r line <fifo", on_output=screen)

    await sandbox.exec("mkfifo fifo")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await screen.seen.wait()
        await kill_server(sandbox)
    if isinstance(driver, Unsandboxed):
        (tmp_path / "workspace/fifo").write_text("nobody is left to kill what reads this\n")
    for call in (sandbox.exec("true"), sandbox.read("x"), sandbox.write("x", b""), sandbox.checkpoint("0" * 40, "m")):
        with pytest.raises(SandboxDied):
            await call
    await sandbox.stop()


async def kill_server(sandbox: ExecClient) -> None:
    """As the kernel would, for memory."""
    link = sandbox.link
    if isinstance(link, ContainerLink):
        await anyio.run_process(["docker", "kill", link.container])
    else:
        os.kill(link.pid, signal.SIGKILL)  # type: ignore[union-attr]


async def test_stop_ends_what_runs_and_may_be_called_twice(driver: Driver, tmp_path: Path) -> None:
    sandbox = await driver.start(spec_of(tmp_path / "workspace"))
    await sandbox.write("daemon.py", DAEMON.encode())
    screen = Screen(wanted="up")

    async def run() -> None:
        with pytest.raises(SandboxDied):
            await sandbox.exec("python3 daemon.py; exec sleep 98765", on_output=screen)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await screen.seen.wait()
        await sandbox.stop()
    await sandbox.stop()
    assert b"98765" not in b"".join(command_lines())


def command_lines() -> list[bytes]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return lines


RUNNER = """
import asyncio, os, sys
from pathlib import Path
from sandbox.config import Config
from sandbox.contract import SandboxSpec
from sandbox.drivers import Drivers
async def main():
    workspace = Path(sys.argv[2])
    drivers = Drivers(Config(sandbox=sys.argv[1]), workspace.parent / "data", os.environ.get("DOCKER_HOST", ""))
    await drivers.look()
    sandbox = await drivers.driver.start(SandboxSpec(task="t", attempt=1, workspace=workspace))
    async def show(text):
        print(text, flush=True)
    await sandbox.exec(sys.argv[3], on_output=show)
asyncio.run(main())
"""


async def test_the_sandbox_dies_with_its_runner_even_by_kill_9(isolating_driver: Driver, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with anyio.fail_after(30):
        await anyio.to_thread.run_sync(kill_runner_and_wait, isolating_driver.name, workspace, abandon_on_cancel=True)


def kill_runner_and_wait(driver: str, workspace: Path) -> None:
    mark = str(secrets.randbits(32))
    # What says that it is up is the process that is looked for: a shell that says so may not have begun it yet.
    inside = f"exec python3 -c 'import time; print(\"up\", flush=True); time.sleep(1000)' {mark}"
    command = [sys.executable, "-c", RUNNER, driver, str(workspace), inside]
    path = os.pathsep.join([str(ROOT), *sys.path])
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as runner:
        assert runner.stdout is not None
        assert runner.stdout.readline() == b"up\n"
        marked = next(each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [""])[-1] == mark)
        ended = os.pidfd_open(marked.pid)
        runner.kill()
        select.select([ended], [], [])
        os.close(ended)


async def test_a_start_that_fails_says_why(driver: Driver, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="missing"):
        await driver.start(SandboxSpec(task="t", attempt=1, workspace=tmp_path / "missing"))


# Checkpoints


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    git("init", "-q", "-b", "main", str(source))
    for name, data in {"kept": b"kept\n", "gone": b"gone\n", ".gitignore": b"*.log\n"}.items():
        (source / name).write_bytes(data)
    git("-C", str(source), "add", "-A")
    git("-C", str(source), "commit", "-qm", "base")
    git("clone", "-q", "--mirror", str(source), str(tmp_path / "mirror"))
    return tmp_path / "mirror"


def git(*words: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    return subprocess.run(
        ["git", *identity, *words], check=True, capture_output=True, text=True, env=environment
    ).stdout.strip()


@asynccontextmanager
async def stopping(sandbox: Sandbox) -> AsyncIterator[None]:
    """One that lives on when its test fails keeps the run from ending."""
    try:
        yield
    finally:
        await sandbox.stop()


async def on_clone(driver: Driver, mirror: Path, name: str) -> tuple[Sandbox, str]:
    workspace = mirror.parent / name
    git("clone", "-q", "--shared", str(mirror), str(workspace))
    return await driver.start(spec_of(workspace, mirror / "objects")), git("-C", str(mirror), "rev-parse", "main")


CHANGES = r"""
echo changed >> kept; rm gone; mkdir -p "a folder"; printf '\0\377' > "a folder/binary"; ln -s kept link
echo '#!/bin/sh' > run; chmod +x run; echo ignored > x.log; printf 'weird' > "$(printf 'new\nline')"
"""
STATE = r"""
find . -path ./.git -prune -o ! -name '*.log' -printf '%p %y %m %l\n' | sort
cat kept run "a folder/binary" | sha256sum
"""


async def test_a_checkpoint_restores_elsewhere_what_was_there(driver: Driver, mirror: Path) -> None:
    first, base = await on_clone(driver, mirror, "first")
    await first.exec("echo mine > committed; git add committed; git commit -qm mine")
    await first.exec(CHANGES)
    await first.exec("echo staged > staged; git add staged")
    status = (await first.exec("git status --porcelain; git log --format=%H")).output
    checkpoint = await first.checkpoint(base, "work")
    assert (await first.exec("git status --porcelain; git log --format=%H")).output == status
    state = (await first.exec(STATE)).output
    await first.stop()

    second, _ = await on_clone(driver, mirror, "second")
    await second.restore(checkpoint)
    assert (await second.exec(STATE)).output == state
    assert (await second.exec("git rev-parse HEAD; git diff --cached --name-only")).output == checkpoint.head + "\n"
    again = await second.checkpoint(base, "work", unless=checkpoint.commit)
    assert (again.head, again.commit, again.tree, again.bundle) == (
        checkpoint.head,
        checkpoint.commit,
        checkpoint.tree,
        b"",
    )
    await second.stop()


IGNORED = r"""
mkdir -p out.log/deep; printf '\0\377' > "out.log/$(printf 'new\nline')"; ln -s ../kept out.log/deep/link
echo x > -x.log; git init -q out.log/theirs; echo theirs > out.log/theirs/file
echo '#!/bin/sh' > run.log; chmod 750 run.log
"""
IGNORED_STATE = r"""
find . -path ./.git -prune -o -path './*.log*' -printf '%p %y %m %l %TY-%Tm-%Td\n' | sort
cat run.log out.log/*/file ./-x.log
"""


async def test_what_git_ignores_is_restored_elsewhere_where_it_is_kept(driver: Driver, mirror: Path) -> None:
    first, base = await on_clone(driver, mirror, "first")
    assert await first.ignored(MIB) == Ignored()
    await first.exec(IGNORED)
    checkpoint = await first.checkpoint(base, "work")
    kept = await first.ignored(MIB)
    assert await first.ignored(MIB, unless=kept.print) == Ignored(print=kept.print)
    state = (await first.exec(IGNORED_STATE)).output
    too_much = await first.ignored(1024)
    assert (too_much.print, too_much.tar, len(too_much.left_out)) == ("", b"", 1)
    await first.stop()
    assert (checkpoint.commit, checkpoint.bundle) == (base, b"")

    second, _ = await on_clone(driver, mirror, "second")
    await second.exec("echo of the set-up > stale.log")
    await second.restore_ignored(kept.tar)
    assert (await second.exec(IGNORED_STATE)).output == state
    assert "stale" not in state
    assert (await second.checkpoint(base, "work")).commit == base
    await second.stop()


async def test_a_bundle_is_fetched_by_a_clean_repository(driver: Driver, mirror: Path) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    await sandbox.exec(CHANGES)
    checkpoint = await sandbox.checkpoint(base, "work", advance=True)
    await sandbox.stop()
    bundle = mirror.parent / "bundle"
    bundle.write_bytes(checkpoint.bundle)
    git("-C", str(mirror), "fetch", "-q", str(bundle), "refs/errand/head:refs/heads/work")
    assert git("-C", str(mirror), "rev-parse", "work") == checkpoint.head == checkpoint.commit
    assert (
        git("-C", str(mirror), "log", "-1", "--format=%P %an %ae %s", "work") == f"{base} Errand errand@localhost work"
    )


async def test_an_unchanged_workspace_has_an_empty_bundle(driver: Driver, mirror: Path) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    fresh = await sandbox.checkpoint(base, "m")
    assert (fresh.head, fresh.commit, fresh.bundle) == (base, base, b"")
    await sandbox.write("new", b"new")
    changed = await sandbox.checkpoint(base, "m", unless=fresh.commit)
    assert changed.head == base != changed.commit
    assert changed.bundle
    same = await sandbox.checkpoint(base, "m", unless=changed.commit)
    assert (same.commit, same.bundle) == (changed.commit, b"")
    assert (await sandbox.checkpoint(base, "m")).bundle
    await sandbox.exec("rm new")
    assert (await sandbox.checkpoint(base, "m", unless=same.commit)).commit == base
    await sandbox.stop()


async def test_advance_commits_for_real_and_only_when_something_changed(driver: Driver, mirror: Path) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    assert (await sandbox.checkpoint(base, "nothing", advance=True)).head == base
    await sandbox.exec(CHANGES)
    before = await sandbox.checkpoint(base, "on the way")
    done = await sandbox.checkpoint(base, 'It\'s $(done)\n\n"body"', advance=True, unless=before.commit)
    assert done.head == done.commit != before.commit
    assert done.tree == before.tree
    assert (await sandbox.exec("git status --porcelain; git log -1 --format=%B; git symbolic-ref HEAD")).output == (
        'It\'s $(done)\n\n"body"\n\nrefs/heads/main\n'
    )
    assert (await sandbox.checkpoint(base, "again", advance=True, unless=done.commit)).commit == done.commit
    await sandbox.stop()


async def test_a_file_that_was_committed_although_ignored_stays(driver: Driver, mirror: Path) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    await sandbox.checkpoint(base, "m")
    await sandbox.exec("echo forced > forced.log; git add -f forced.log; git commit -qm forced")
    checkpoint = await sandbox.checkpoint(base, "m")
    assert checkpoint.commit == checkpoint.head != base
    await sandbox.stop()


async def test_hooks_and_filters_of_the_repository_do_not_keep_a_checkpoint_from_ending(
    driver: Driver, mirror: Path
) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    await sandbox.exec("printf '#!/bin/sh\nsleep 1000' > .git/hooks/reference-transaction; chmod +x .git/hooks/*")
    await sandbox.exec("git config core.fsmonitor 'sleep 1000'; echo changed > kept")
    with anyio.fail_after(20):
        assert (await sandbox.checkpoint(base, "m", advance=True)).head != base
    await sandbox.stop()


async def test_a_broken_repository_is_told_in_gits_words(driver: Driver, mirror: Path) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    await sandbox.exec("rm -r .git")
    with pytest.raises(SandboxError, match="git"):
        await sandbox.checkpoint(base, "m")
    with pytest.raises(SandboxError, match="commit id"):
        await sandbox.checkpoint("main; rm -rf /", "m")
    await sandbox.stop()


LEFT_OUT = """
git init -q mine; echo 1 > mine/file; git -C mine add file; git -C mine commit -qm mine
git init -q empty; echo 1 > empty/file; echo hidden > hidden; chmod 000 hidden; echo other > other
"""


async def test_what_a_checkpoint_leaves_out_is_named_and_costs_nothing_else(driver: Driver, mirror: Path) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    async with stopping(sandbox):
        await sandbox.exec(LEFT_OUT)
        taken = await sandbox.checkpoint(base, "m")
        assert {phrase.partition(":")[0] for phrase in taken.left_out} >= {"mine", "empty"}
        assert "other" in (await sandbox.exec(f"git ls-tree --name-only {taken.tree}")).output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("git config filter.x.clean false; git config filter.x.required true; echo '*.x filter=x' > .gitattributes; "
         "echo 1 > a.x", "clean filter 'x' failed"),
        ("rm -rf .git; git init -q; git add kept; git commit -qm x", "no longer has the commit that the task started"),
        ("moved=$(mktemp -d) && mv .git $moved && ln -s $moved/.git .git; echo 1 > new", "a symlink leaves its folder"),
    ],
    ids=["git adds nothing", "a repository made anew", "a repository elsewhere"],
)  # fmt: skip
async def test_a_checkpoint_that_would_lose_the_work_is_refused(
    driver: Driver, mirror: Path, command: str, said: str
) -> None:
    sandbox, base = await on_clone(driver, mirror, "workspace")
    async with stopping(sandbox):
        await sandbox.exec(command)
        with pytest.raises(SandboxError, match=said):
            await sandbox.checkpoint(base, "m")
