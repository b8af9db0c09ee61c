"""The program inside a sandbox that runs its commands, and the frames it speaks.

One file, standard library only, Python 3.9 or later: it is started as it stands by `python -I -S exec_server.py CONFIG`
in whatever Python the sandbox has. The host imports the frame codec and the limits from here: there is one definition.

It is PID 1 of the sandbox where there is a pid namespace: what loses its parent becomes its child, no command can
signal it, and its end is the end of everything inside. It is not dumpable, so no command can reach the protocol through
`/proc/1/fd` although both have the same uid. One epoll loop serves any number of commands; nothing in it blocks.

A command's processes carry a mark that survives `setsid`, a double fork and `env -i`: the soft limit RLIMIT_RTTIME,
which is inherited and means nothing to a process that may not be real-time. What has taken it off goes with the first
command that is killed. A process that takes another one's mark on purpose outlives its command, not its sandbox.

It ends with its stream, unless a runner holds it: then it ends with that runner's lease. Meanwhile another runner may
take it over by a door that no command can reach, and be told of the one call that has a name; the runner before is not
heard any more. What has no name ends with its stream; the shell and what runs in the background go on.

Frame: two big-endian u32 (header bytes, payload bytes), a JSON header, a payload. `op` and `id` are in each header.

    host to sandbox   exec{command,shell,cwd,environment,timeout,limit,stream,name}  restart (the shell)  cancel
                      hold{attempt,lease} (again and again)  resume (the named call, by its old id)  bye
                      spawn{command,cwd,environment,limit}  processes  collect{process}  end{process}
                      read{path,limit}  write{path,size}+bytes  data+bytes (more of a write)  ack{bytes} (output shown)
                      lend{path,port} (the socket that listens there, through the Unix socket at that path)
                      look{skip}
    sandbox to host   ready{version}  output{skipped}+bytes  exit{code,ended_by,dropped,head,cwd,shell,full}+kept output
                      held  taken{version,attempt,last,call,name} (first on a new stream)  fenced (last on the old one)
                      data+bytes (part of a read)  done{size}+bytes  error{reason,message}
                      processes{processes}  process{process,head,dropped}+output since it was last collected
                      looked{print,certain,crowded}
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import math
import os
import resource
import select
import signal
import stat
import struct
import sys
import time
from collections import deque
from contextlib import suppress

TYPE_CHECKING = False  # the true one is in `typing`, which takes as long to import as all we do before we serve
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from typing import Any

VERSION = 3
SIZES = struct.Struct(">II")
HEADER_LIMIT_BYTES = 2 * 1024 * 1024
"""Room for a command of 128 KiB (the kernel's own limit) and its environment, escaped as JSON."""
PAYLOAD_LIMIT_BYTES = 1024 * 1024
OUTPUT_LIMIT_MAX_BYTES = PAYLOAD_LIMIT_BYTES
"""The largest `limit` of a command: its kept output is one payload."""
CHUNK_BYTES = 256 * 1024
PREVIEW_WINDOW_BYTES = 256 * 1024
"""Output shown but not yet acknowledged; what comes beyond it is kept by head and tail, and skipped in the preview."""
REPLIES_HIGH_WATER_BYTES = 1024 * 1024
CALLS_LIMIT = 256
PROCESSES_LIMIT = 16
"""Background processes at once; as many that have ended are remembered."""
SHOWN_COMMAND_CHARS = 200
READ_BYTES = 256 * 1024
PIPE_BYTES = 256 * 1024
"""Of a command's output; four times what a pipe has by itself, for fewer turns between writer and us."""
F_SETPIPE_SZ = 1031
FIONREAD = 0x541B
LINGER_SECONDS = 0.1
"""A command whose background child holds its output open ends this long after its own process."""
SHELL_LOOK_SECONDS = 0.5
"""Between two looks whether the shell still knows of its command."""
KILL_ROUND_SECONDS = (0.001, 0.05)
"""The first and the longest pause between two looks for what a kill has left."""
END_SECONDS = 5.0
SYMLINKS_LIMIT = 40
DEPTH_LIMIT = 256
MARK_NONCE_BITS = 28
MARK_ID_BITS = 32
LOOK_LIMIT_ENTRIES = 10_000
"""Of one look at the workspace: beyond, git itself is as fast."""
LOOK_SECONDS = 0.002
"""How long it may hold up other calls at a time."""
TEXT_FD, STATUS_FD = 198, 199
"""Of the shell: where it reads a command's text and writes how it ended; closed while the command runs."""
TOKEN_BYTES = 8
DOOR = "\0errand"
"""In an abstract name space, which is a network namespace's own."""
MESSAGE_LIMIT_BYTES = 4096

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 22, 36, 38
PR_CAPBSET_DROP, CAPABILITIES, CAPABILITY_VERSION = 24, 64, 0x20080522
SECCOMP_MODE_FILTER = 2
INSTRUCTION_BYTES = 8


class FrameError(Exception):
    """What came is not a frame of this protocol."""


def pack(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """One frame. FrameError when it would be over a limit."""
    head = json.dumps(header, separators=(",", ":")).encode("ascii")
    if len(head) > HEADER_LIMIT_BYTES or len(payload) > PAYLOAD_LIMIT_BYTES:
        raise FrameError(f"a frame of {len(head)} + {len(payload)} bytes is over the limit")
    return SIZES.pack(len(head), len(payload)) + head + payload


class FrameReader:
    """Cuts a byte stream into (header bytes, payload) and holds at most one incomplete frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The frames that `data` completes. FrameError when a size is over its limit."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= SIZES.size:
                head, payload = SIZES.unpack_from(self._buffer, start)
                if head > HEADER_LIMIT_BYTES or payload > PAYLOAD_LIMIT_BYTES:
                    raise FrameError(f"a frame announces {head} + {payload} bytes")
                body = start + SIZES.size
                end = body + head + payload
                if len(self._buffer) < end:
                    return
                start = end
                yield bytes(self._buffer[body : body + head]), bytes(self._buffer[body + head : end])
        finally:
            del self._buffer[:start]


class KeptOutput:
    """The head and the tail of a stream in at most `limit` bytes (three quarters more for a moment)."""

    def __init__(self, limit: int) -> None:
        self._tail_limit = limit // 2
        self._head_limit = limit - self._tail_limit
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, data: bytes) -> None:
        self._total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data[-self._tail_limit :] if self._tail_limit else b""
        if len(self._tail) > 2 * self._tail_limit:
            del self._tail[: -self._tail_limit]

    def size(self) -> int:
        return self._total

    def parts(self) -> tuple[bytes, bytes, int]:
        """(head, tail, bytes dropped between them)."""
        tail = bytes(self._tail[-self._tail_limit :]) if self._tail_limit else b""
        return bytes(self._head), tail, self._total - len(self._head) - len(tail)


class Tree:
    """Files below the folders that commands own. Every component is opened relative to the folder before it and never
    through a symlink, so a link that is swapped in while we look changes nothing; links are followed by reading them,
    as long as they stay below the same root."""

    def __init__(self, roots: dict[str, str]) -> None:
        self._roots = roots
        """The name a caller uses -> the real folder. `/workspace` is first: relative paths are below it."""

    def locate(self, path: str) -> tuple[str, list[str]] | None:
        """(real root, components below it), or None when the path is below no root."""
        absolute = path if path.startswith("/") else next(iter(self._roots)) + "/" + path
        for name, real in self._roots.items():
            for prefix in (name, real):
                if absolute == prefix or absolute.startswith(prefix + "/"):
                    return real, absolute[len(prefix) :].split("/")
        return None

    def open_for_reading(self, path: str) -> int:
        """A descriptor of a regular file: below a root without leaving it, elsewhere as the sandbox sees it."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        if self.locate(path) is None:
            fd = os.open(path, flags)
        else:
            parent, name = self.open_parent(path, make=False)
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=parent)
            finally:
                os.close(parent)
        try:
            refuse_special(os.fstat(fd).st_mode, path)
        except OSError:
            os.close(fd)
            raise
        return fd

    def open_parent(self, path: str, make: bool) -> tuple[int, str]:
        """A descriptor of the folder the path's last component is in, and that component, which is no symlink."""
        located = self.locate(path)
        if located is None:
            raise PermissionError(errno.EACCES, "outside " + " and ".join(self._roots), path)
        root, parts = located
        folders = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
        try:
            name = self._descend(folders, root, parts, path, make)
            return os.dup(folders[-1]), name
        finally:
            for fd in folders:
                os.close(fd)

    def _descend(self, folders: list[int], root: str, parts: list[str], path: str, make: bool) -> str:
        todo = deque(part for part in parts if part not in ("", "."))
        links = 0
        while todo:
            part = todo.popleft()
            if part == "..":
                if len(folders) == 1:
                    raise PermissionError(errno.EACCES, "leaves its folder", path)
                os.close(folders.pop())
                continue
            target = read_link(part, folders[-1])
            if target is not None:
                links += 1
                if links > SYMLINKS_LIMIT:
                    raise OSError(errno.ELOOP, "too many symlinks", path)
                todo.extendleft(reversed(self._link_parts(target, root, folders, path)))
            elif todo:
                folders.append(open_folder(part, folders[-1], make))
                if len(folders) > DEPTH_LIMIT:
                    raise OSError(errno.ENAMETOOLONG, "too many folders", path)
            else:
                return part
        raise IsADirectoryError(errno.EISDIR, "is a folder", path)

    def _link_parts(self, target: str, root: str, folders: list[int], path: str) -> list[str]:
        if target.startswith("/"):
            located = self.locate(target)
            if located is None or located[0] != root:
                raise PermissionError(errno.EACCES, "a symlink leaves its folder", path)
            while len(folders) > 1:
                os.close(folders.pop())
            target = "/".join(located[1])
        return [part for part in target.split("/") if part not in ("", ".")]


def read_link(name: str, folder: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def open_folder(name: str, parent: int, make: bool) -> int:
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def refuse_special(mode: int, path: str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", path)
    if not stat.S_ISREG(mode):
        raise PermissionError(errno.EACCES, "is not a regular file", path)


class Upload:
    """A write under way: into a new file beside its target, which it replaces at once when it is whole."""

    def __init__(self, tree: Tree, path: str, size: int) -> None:
        self.remaining = size
        self._folder, self._name = tree.open_parent(path, make=True)
        self._temporary = f".errand-{os.urandom(8).hex()}"
        self._file = -1
        try:
            self._mode = self._existing_mode(path)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._file = os.open(self._temporary, flags, 0o600, dir_fd=self._folder)
        except OSError:
            os.close(self._folder)
            raise

    def _existing_mode(self, path: str) -> int:
        try:
            mode = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return 0o644
        refuse_special(mode, path)
        return stat.S_IMODE(mode)

    def add(self, data: bytes) -> None:
        self.remaining -= len(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def finish(self) -> None:
        os.fchmod(self._file, self._mode)
        os.replace(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        self._close()

    def drop(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._temporary, dir_fd=self._folder)
        self._close()

    def _close(self) -> None:
        os.close(self._file)
        os.close(self._folder)


class Download:
    """A read under way."""

    def __init__(self, file: int, path: str, limit: int) -> None:
        self._file = file
        self.path = path
        self._limit = limit
        self.size = 0
        size = os.fstat(file).st_size
        if size > limit:
            self.close()
            raise OSError(errno.EFBIG, f"has {size} bytes, more than the limit of {limit}", path)

    def next(self) -> bytes:
        """The next chunk; empty at the end."""
        data = os.read(self._file, CHUNK_BYTES)
        self.size += len(data)
        if self.size > self._limit:
            raise OSError(errno.EFBIG, f"has more bytes than the limit of {self._limit}", self.path)
        return data

    def close(self) -> None:
        os.close(self._file)


class Look:
    """What decides over the workspace's next checkpoint, as a number: of each file its name, its inode and when that
    was last changed, which nobody can set. Files are those of the working tree, without the folders in `skip` (ignored
    ones), and of the repository and its user's settings, without objects and what a checkpoint writes.

    Two equal numbers mean an unchanged workspace when the first was `certain`: no file had been changed in the clock's
    tick in which that look began (as git has it: racy), none is out of sight (another repository, settings elsewhere,
    a folder that cannot be read), and there were not too many.
    """

    MINE = "/.git/errand"
    NOT_WATCHED = (MINE, "/.git/refs/errand", "/.git/objects", "/.git/logs")
    SETTINGS = ("/.gitconfig", "/.config/git/config", "/.config/git/ignore", "/.config/git/attributes")
    """Of the user, in the home."""
    ELSEWHERE = (b"include", b"excludesfile", b"attributesfile")

    def __init__(self, workspace: str, home: str, skip: list[str]) -> None:
        self._workspace = workspace
        self._skip = {workspace + "/" + path for path in skip} | {workspace + path for path in self.NOT_WATCHED}
        self._folders = [workspace]
        self._seen: list[object] = []
        self.certain = True
        try:
            self._began_ns = self._now_ns()
            for path in (*(home + name for name in self.SETTINGS), "/etc/gitconfig"):
                self._add_settings(path)
        except OSError:
            self.certain = False

    def step(self) -> bool:
        """Look into one more folder; False when that was the last."""
        if not self.certain or not self._folders:
            return False
        try:
            self._look_into(self._folders.pop())
        except OSError:
            self.certain = False
        return True

    def crowded(self) -> bool:
        return len(self._seen) > LOOK_LIMIT_ENTRIES

    def print(self) -> str:
        return f"{hash(tuple(self._seen)) % (1 << 64):016x}"

    def _now_ns(self) -> int:
        """By the workspace's file system, whose clock may be another machine's, and coarse."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._workspace + self.MINE + "/now", flags, 0o600)
        try:
            os.utime(fd)
            return os.fstat(fd).st_ctime_ns
        finally:
            os.close(fd)

    def _look_into(self, folder: str) -> None:
        self._seen.append(folder)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self._add_folder(entry.name, entry.path)
                else:
                    self._add_file(entry.name, entry.stat(follow_symlinks=False))
        in_git = folder == self._workspace + "/.git"
        for name in ("config", "config.worktree") if in_git else ():
            self._add_settings(f"{folder}/{name}")
        self.certain = self.certain and not self.crowded()

    def _add_folder(self, name: str, path: str) -> None:
        if name == ".git" and path != self._workspace + "/.git":
            self.certain = False
        elif path not in self._skip:
            self._folders.append(path)

    def _add_file(self, name: str, status: os.stat_result) -> None:
        self._seen.append((name, status.st_ino, status.st_ctime_ns))
        if status.st_ctime_ns >= self._began_ns or name == ".git":
            self.certain = False

    def _add_settings(self, path: str) -> None:
        with suppress(FileNotFoundError):
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                self._add_file(path, os.fstat(fd))
                text = os.read(fd, READ_BYTES).lower()
            finally:
                os.close(fd)
            if len(text) == READ_BYTES or any(word in text for word in self.ELSEWHERE):
                self.certain = False


class Marks:
    """Which processes belong to which command, by the mark each inherits (see the module's docstring)."""

    LIMITS = (resource.RLIMIT_RTTIME, resource.RLIMIT_RSS)
    """gVisor lets nobody set the first; the second has no effect on Linux since 2.4.30, but scripts set it."""

    def __init__(self) -> None:
        self._base = int.from_bytes(os.urandom(4), "big") % (1 << MARK_NONCE_BITS) + (1 << MARK_NONCE_BITS)
        self._limit = next(limit for limit in self.LIMITS if can_set(limit))
        self._hard = resource.getrlimit(self._limit)[1]

    def put_on_next_child(self, call_id: int) -> None:
        self.put_on(0, call_id)

    def put_on(self, pid: int, call_id: int) -> None:
        """`pid` 0 is our own. What that process starts from now on belongs to the call."""
        resource.prlimit(pid, self._limit, (self._mark(call_id), self._hard))

    def kill(self, call_id: int | None, root: int = -1) -> int:
        """Send SIGKILL to every living process of that call (of all calls: None), to `root`, and to what has no mark;
        how many there were."""
        ours = descendants(os.getpid())
        return sum(self._kill_one(pid) for pid in ours if pid == root or self._is_to_end(pid, call_id))

    def _mark(self, call_id: int) -> int:
        return self._base << MARK_ID_BITS | call_id % (1 << MARK_ID_BITS)

    def _is_to_end(self, pid: int, call_id: int | None) -> bool:
        try:
            mark = resource.prlimit(pid, self._limit)[0]
        except (ProcessLookupError, PermissionError):
            return False
        return call_id is None or mark == self._mark(call_id) or mark >> MARK_ID_BITS != self._base

    def _kill_one(self, pid: int) -> bool:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def can_set(limit: int) -> bool:
    try:
        resource.setrlimit(limit, resource.getrlimit(limit))
    except (OSError, ValueError):
        return False
    return True


def descendants(root: int) -> list[int]:
    """Those of `root` that have not ended."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
                # Of one whose first thread has ended the state says Z too.
                if fields[0] not in (b"Z", b"X") or int(fields[17]) > 1:
                    children.setdefault(int(fields[1]), []).append(int(name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def is_dead(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")


class MemoryKills:
    """How many processes of this sandbox the kernel has killed for memory, where the sandbox has a limit of its own.
    Nothing else tells: in a pipeline such a child's end leaves no trace."""

    COUNTERS = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
    """Of cgroup v2 and v1."""
    LINE = b"oom_kill "
    CHILDREN_FIRST = b"500"
    """oom_score_adj of commands: the exec server is the last that the kernel chooses."""

    def __init__(self, limited: bool) -> None:
        path = next((path for path in self.COUNTERS if limited and os.access(path, os.R_OK)), None)
        self._counter = -1 if path is None else os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def count(self) -> int:
        if self._counter == -1:
            return 0
        lines = os.pread(self._counter, READ_BYTES, 0).splitlines()
        return next((int(line[len(self.LINE) :]) for line in lines if line.startswith(self.LINE)), 0)

    def choose_before_us(self, pid: int) -> None:
        if self._counter != -1:
            with suppress(OSError), open(f"/proc/{pid}/oom_score_adj", "wb") as file:
                file.write(self.CHILDREN_FIRST)


class Sized:
    """Places of a limited size. A command cannot tell which of them has no room left, nor how much there was."""

    FULL_BYTES = 64 * 1024

    def __init__(self, places: list[str]) -> None:
        self._places = places

    def full(self) -> dict[str, Any] | None:
        """The first of them without room; None when all have some."""
        for place in self._places:
            found = os.statvfs(place)
            if found.f_bavail * found.f_frsize < self.FULL_BYTES:
                return {"place": place, "of": "bytes", "limit": found.f_blocks * found.f_frsize}
            if found.f_files and not found.f_favail:
                return {"place": place, "of": "files", "limit": found.f_files}
        return None


class Shell:
    """A bash that lives from one command to the next, with its folder, variables and functions.

    It reads one line a command from its stdin, a pipe. That line takes the command's text out of a memory file and runs
    it by `eval` with stdin, stdout and stderr of its own: whatever the command does to its descriptors is undone when
    it has ended, and neither the pipe, the file nor the descriptor for its status is open while it runs. `set -e` and
    `set -u` do not outlive their command: they would end the shell by the next one.
    """

    LINE = (
        "IFS= builtin read -rd '' -u{text} _errand; "
        'builtin eval "$_errand" </dev/null >{output} 2>&1 {text}<&- {status}>&-; '
        "builtin printf '{token} %d\\n' \"$?\" >&{status}; builtin set +eu\n\n"
    )
    """Two lines: where the empty one has been read, the first one has ended, whatever came of it."""
    PLACES = (os.environ.get("HOME", "/tmp"), "/dev/shm", "/tmp")
    """Where the named pipe of a command's output may be, the first that has room."""

    def __init__(self, program: str, environment: dict[str, str]) -> None:
        """Start it, in the folder and with the mark that are ours at this moment."""
        self._text = os.memfd_create("command")
        lines, self._script = os.pipe()
        self.status, ends = os.pipe()
        try:
            self.pid = self._spawn(program, environment, lines, ends)
        finally:
            os.close(lines)
            os.close(ends)
        self.token = b""
        """What its next status begins with; empty while no command runs."""

    def _spawn(self, program: str, environment: dict[str, str], lines: int, ends: int) -> int:
        return os.posix_spawn(
            program,
            ["bash", "--norc", "--noprofile", "-s"],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, lines, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                (os.POSIX_SPAWN_DUP2, self._text, TEXT_FD),
                (os.POSIX_SPAWN_DUP2, ends, STATUS_FD),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )

    def run(self, command: str) -> tuple[int, str]:
        """Begin; (descriptor, path) of the pipe its output comes by."""
        text = command.encode() + b"\0"
        if text.find(b"\0") != len(text) - 1:
            raise ValueError("embedded null byte")
        os.ftruncate(self._text, 0)
        os.pwrite(self._text, text, 0)
        os.lseek(self._text, 0, os.SEEK_SET)
        token = os.urandom(TOKEN_BYTES).hex()
        output, path = self._pipe(token)
        line = self.LINE.format(text=TEXT_FD, status=STATUS_FD, output=quote(path), token=token)
        try:
            os.write(self._script, line.encode())
        except OSError:
            os.close(output)
            os.unlink(path)
            raise
        self.token = token.encode()
        return output, path

    def _pipe(self, name: str) -> tuple[int, str]:
        for place in self.PLACES:
            path = f"{place}/.errand-{name}"
            with suppress(OSError):
                os.mkfifo(path, 0o600)
                return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), path
        raise OSError(errno.ENOSPC, "no room for a pipe", self.PLACES[0])

    def code_of(self, said: bytes) -> int | None:
        """The exit code of its command; None when it said anything but that, as a command may make it."""
        token, _, code = said.removesuffix(b"\n").partition(b" ")
        if not self.token or token != self.token or not code.isdigit() or len(code) > 3:
            return None
        self.token = b""
        return int(code) & 0xFF

    def is_lost(self) -> bool:
        """Whether it is through with its command and did not say so: it has too few descriptors left, or only reads
        what it should run (`set -n`)."""
        unread = struct.unpack("i", fcntl.ioctl(self._script, FIONREAD, bytes(4)))[0]
        return bool(self.token) and not unread and not select.select([self.status], [], [], 0)[0]

    def folder(self) -> str:
        """Where it is now; empty when it is gone."""
        try:
            return os.fsencode(os.readlink(f"/proc/{self.pid}/cwd")).decode("utf-8", "replace")
        except OSError:
            return ""

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        for fd in (self._text, self._script, self.status):
            os.close(fd)


def quote(path: str) -> str:
    """For a shell."""
    return "'" + path.replace("'", "'\"'\"'") + "'"


class Command:
    """One command and where it stands. It has ended when `status` is known and its output is closed, or when nothing
    marked as its own is left."""

    def __init__(
        self, call_id: int, pid: int, pipe: int, request: dict[str, Any], now: float, memory_kills: int
    ) -> None:
        self.id = call_id
        self.pid = pid
        self.pipe = pipe
        self.output = KeptOutput(request["limit"])
        self.began = now
        self.deadline = now + request.get("timeout", math.inf)
        self.stream = bool(request.get("stream"))
        self.window = PREVIEW_WINDOW_BYTES if self.stream else 0
        self.skipped = 0
        self.path = ""
        """Of its output's pipe, where that has one."""
        self.process = 0
        """The number of a background process."""
        self.name = request.get("name", "")
        """By which a later runner asks how it ended; empty for what ends with its stream."""
        self.reply: tuple[dict[str, Any], bytes] | None = None
        """How it ended, of one with a name."""
        self.is_awaited = True
        """False where a later runner has not asked for it yet."""
        self.shell = ""
        """For a command of the shell: `new`, `kept` or `ended`."""
        self.status: int | None = None
        self.linger_until: float | None = None
        self.look_at = now + SHELL_LOOK_SECONDS if request.get("shell") else math.inf
        """When to ask whether the shell still knows of it."""
        self.ended_by = ""
        self.memory_kills = memory_kills
        """Of the whole sandbox, before it was started."""
        self.kill_round = KILL_ROUND_SECONDS[0]
        self.next_kill = 0.0

    def due(self) -> float:
        """When the loop has to look at this command again, if nothing happens before."""
        if self.ended_by:
            return self.next_kill
        return min(self.look_at if self.linger_until is None else self.linger_until, self.deadline)


class Background:
    """A command that nobody waits for: it goes on until it ends, is ended or the sandbox is."""

    def __init__(self, number: int, command: Command, request: dict[str, Any]) -> None:
        self.number = number
        self.command = command
        self.is_running = True
        self.waiting: list[int] = []
        """Calls that are answered when it has ended."""
        self._text = request["command"][:SHOWN_COMMAND_CHARS].encode("utf-8", "replace").decode()
        self._limit = request["limit"]
        self._ended_at = math.inf

    def ended(self, now: float) -> None:
        self.is_running = False
        self._ended_at = now

    def describe(self, now: float) -> dict[str, Any]:
        code, ended_by = outcome(self.command)
        return {
            "number": self.number,
            "command": self._text,
            "running": self.is_running,
            "code": None if self.is_running else code,
            "ended_by": "" if self.is_running else ended_by,
            "seconds": min(now, self._ended_at) - self.command.began,
            "unread": self.command.output.size(),
        }

    def collect(self) -> tuple[bytes, bytes, int]:
        """(head, tail, bytes dropped) of what it has said since the last time."""
        parts = self.command.output.parts()
        self.command.output = KeptOutput(self._limit)
        return parts


class Taker:
    """A runner that wants to take us over: who it is, and its streams."""

    def __init__(self, told: dict[str, Any], descriptors: list[int], bringer: socket.socket) -> None:
        self.attempt = int(told["attempt"])
        self.previous = int(told["previous"])
        self.lease = float(told["lease"])
        self.requests, self.replies = descriptors
        self._bringer = bringer
        """Who brought the streams holds them open until we close this."""

    def leave(self) -> None:
        self._bringer.close()

    def close(self) -> None:
        os.close(self.requests)
        os.close(self.replies)
        self.leave()


class Door:
    """Where a runner comes that has not started us, and hands its streams over (SCM_RIGHTS) with a JSON message.

    The socket was made outside, where its path is out of reach from inside; or it is made here, and open to one uid
    that no command has.
    """

    def __init__(self, listening: socket.socket, uid: int | None) -> None:
        self._listening = listening
        self._uid = uid
        listening.setblocking(False)

    @classmethod
    def of(cls, config: dict[str, Any]) -> Door | None:
        """As the driver says: `door` is a descriptor, `door_uid` is whom to let in."""
        if config.get("door") is None and "door_uid" not in config:
            return None
        import socket  # a millisecond, for nothing where there is no door

        if config.get("door") is not None:
            return cls(socket.socket(fileno=fcntl.fcntl(config["door"], fcntl.F_DUPFD_CLOEXEC, 100)), None)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(DOOR)
        listening.listen()
        return cls(listening, config["door_uid"])

    def fileno(self) -> int:
        return self._listening.fileno()

    def open(self) -> socket.socket | None:
        """Who knocks, if it is one that may."""
        import socket

        try:
            knocking, _ = self._listening.accept()
        except OSError:
            return None
        pid_uid_gid = struct.unpack("3i", knocking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if self._uid is not None and pid_uid_gid[1] != self._uid:
            knocking.close()
            return None
        return knocking

    def hear(self, knocking: socket.socket) -> Taker | None:
        """What it says; None for what is no such message."""
        import socket

        descriptors: list[int] = []
        try:
            message, descriptors, _, _ = socket.recv_fds(knocking, MESSAGE_LIMIT_BYTES, 2)
            return Taker(json.loads(message), descriptors, knocking)
        except (OSError, ValueError, KeyError, TypeError):
            for fd in descriptors:
                os.close(fd)
            knocking.close()
            return None


class Server:
    """The loop: requests in, replies out, and between them commands, uploads and downloads by the id of their call."""

    def __init__(
        self,
        requests: int,
        replies: int,
        tree: Tree,
        workspace: str,
        config: dict[str, Any],
        door: Door | None = None,
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._door = door
        self._taker: Taker | None = None
        """Who brought the streams, where that was not who started us."""
        self._lost = False
        """Nobody is at the other end of the stream any more."""
        self._attempt = 0
        """Of the runner that holds us."""
        self._lease_until = math.inf
        self._last_id = 0
        self._named: Command | None = None
        """The last call that has a name; it is remembered until the next one."""
        self._tree = tree
        self._workspace = workspace
        self._shell = next(path for path in ("/bin/bash", "/usr/bin/bash", "/bin/sh") if os.access(path, os.X_OK))
        self._marks = Marks()
        self._memory_kills = MemoryKills(config.get("memory_limit", False))
        self._sized = Sized(config.get("sized", []))
        self._reader = FrameReader()
        self._out = bytearray()
        self._commands: dict[int, Command] = {}
        self._by_pid: dict[int, Command] = {}
        self._processes: dict[int, Background] = {}
        self._processes_started = 0
        self._session: Shell | None = None
        self._sessions = 0
        """How many shells there have been."""
        self._uploads: dict[int, Upload] = {}
        self._downloads: dict[int, Download] = {}
        self._lent: Any = None
        """The socket that listens for the proxy of the host."""
        self._looks: dict[int, Look] = {}
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._running = True
        self._wakeups = -1
        os.set_blocking(replies, False)

    def run(self) -> None:
        """Serve until the host closes its end; while a runner holds us, until its lease ends."""
        self._watch(self._requests, self._receive)
        door = self._door
        if door is not None:
            self._watch(door.fileno(), lambda: self._answer_door(door))
        self._wakeups = wake_on_child()
        self._watch(self._wakeups, self._reap)
        self._reply({"op": "ready", "id": 0, "version": VERSION})
        while self._running:
            ready = [(fd, self._handlers[fd]) for fd, _ in self._epoll.poll(self._wait_seconds())]
            for fd, handler in ready:
                # What came before may have closed it, and its number be another one's.
                if self._handlers.get(fd) is handler:
                    handler()
            if self._lost:
                self._leave_stream()
            self._tick()
            self._pump()
            self._look_on()
        self._end_everything()

    def _end_everything(self) -> None:
        """Where we are PID 1 the kernel does it when we go."""
        give_up = time.monotonic() + END_SECONDS
        while os.getpid() != 1 and self._marks.kill(None) and time.monotonic() < give_up:
            reap_children()

    def _watch(self, fd: int, handler: Callable[[], None], events: int = select.EPOLLIN) -> None:
        os.set_blocking(fd, False)
        self._handlers[fd] = handler
        self._epoll.register(fd, events)

    def _unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _wait_seconds(self) -> float:
        if self._looks or (self._downloads and not self._out):
            return 0
        due = min((self._lease_until, *(command.due() for command in self._commands.values())))
        return -1 if due == math.inf else max(0.0, due - time.monotonic())

    # Replies

    def _reply(self, header: dict[str, Any], payload: bytes = b"") -> None:
        if self._replies == -1:
            return
        waiting = bool(self._out)
        self._out += pack(header, payload)
        if waiting:
            return
        self._send()
        if self._out:
            self._watch(self._replies, self._resume_sending, select.EPOLLOUT)

    def _resume_sending(self) -> None:
        self._send()
        if not self._out:
            self._unwatch(self._replies)

    def _send(self) -> None:
        try:
            del self._out[: os.write(self._replies, self._out)]
        except BlockingIOError:
            pass
        except (BrokenPipeError, ConnectionResetError):
            self._out.clear()  # what was said before the other end closed is still to be read

    def _fail(self, call_id: int, reason: str, message: str) -> None:
        self._reply({"op": "error", "id": call_id, "reason": reason, "message": message})

    # Requests

    def _receive(self) -> None:
        try:
            data = os.read(self._requests, CHUNK_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._lost = True
            return
        for head, payload in self._reader.feed(data):
            self._handle(json.loads(head), payload)

    def _handle(self, request: dict[str, Any], payload: bytes) -> None:
        call_id = request["id"]
        self._last_id = max(self._last_id, call_id)
        try:
            if request["op"] == "exec":
                self._exec(call_id, request)
            elif request["op"] == "read":
                self._downloads[call_id] = self._download(request)
            elif request["op"] == "write":
                self._uploads[call_id] = Upload(self._tree, request["path"], request["size"])
                self._add(call_id, payload)
            elif request["op"] == "data":
                self._add(call_id, payload)
            elif request["op"] == "restart":
                self._restart()
                self._reply({"op": "done", "id": call_id, "size": 0})
            elif request["op"] == "lend":
                self._lend(request["path"], request["port"])
                self._reply({"op": "done", "id": call_id, "size": 0})
            elif request["op"] == "spawn":
                self._start_process(call_id, request)
            elif request["op"] == "processes":
                now = time.monotonic()
                described = [process.describe(now) for process in self._processes.values()]
                self._reply({"op": "processes", "id": call_id, "processes": described})
            elif request["op"] == "collect":
                self._collect(call_id, self._process(request["process"]))
            elif request["op"] == "end":
                self._end_process(call_id, self._process(request["process"]))
            elif request["op"] == "look":
                self._looks[call_id] = Look(self._workspace, os.environ["HOME"], request["skip"])
            elif request["op"] == "ack":
                self._acknowledge(call_id, request["bytes"])
            elif request["op"] == "cancel":
                self._cancel(call_id)
            elif request["op"] == "hold":
                self._hold(request["attempt"], request["lease"])
                self._reply({"op": "held", "id": 0})
            elif request["op"] == "resume":
                self._resume(call_id)
            elif request["op"] == "bye":
                self._running = False
        except (OSError, ValueError, TypeError) as error:
            reason = "failed" if request["op"] in ("exec", "spawn") else reason_of(error)
            self._fail(call_id, reason, message_of(error, request.get("path", "")))

    def _acknowledge(self, call_id: int, count: int) -> None:
        command = self._commands.get(call_id)
        if command is not None:
            command.window = min(PREVIEW_WINDOW_BYTES, command.window + count)

    def _cancel(self, call_id: int) -> None:
        if call_id in self._commands:
            self._end(self._commands[call_id], "cancelled")
            return
        if call_id in self._uploads:
            self._uploads.pop(call_id).drop()
        elif call_id in self._downloads:
            self._downloads.pop(call_id).close()
        elif self._looks.pop(call_id, None) is None:
            return
        self._fail(call_id, "failed", "cancelled")

    def _lend(self, path: str, port: int) -> None:
        """What listens at that port of our loopback is the host's to accept from. Kept, for a host that comes again."""
        import socket  # takes as long as all else we import, and most sandboxes have no network

        if self._lent is None:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(CALLS_LIMIT)
            self._lent = listener
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as host:
            host.setblocking(False)
            host.connect(path)
            socket.send_fds(host, [b"x"], [self._lent.fileno()])

    # Runners

    def _hold(self, attempt: int, lease: float) -> None:
        self._attempt = attempt
        self._lease_until = time.monotonic() + lease

    def _leave_stream(self) -> None:
        """What was asked for without a name has nobody left to answer to. What else runs goes on while we are held."""
        self._lost = False
        for fd in (self._requests, self._replies):
            self._unwatch(fd)
            os.close(fd)
        self._requests = self._replies = -1
        if self._taker is not None:
            self._taker.leave()
            self._taker = None
        self._out.clear()
        if self._lease_until == math.inf:
            self._running = False
        for upload in self._uploads.values():
            upload.drop()
        for download in self._downloads.values():
            download.close()
        for calls in (self._uploads, self._downloads, self._looks):
            calls.clear()
        for process in self._processes.values():
            process.waiting.clear()
        for command in list(self._commands.values()):
            command.stream = command.is_awaited = False
            if not command.name and not command.process:
                self._end(command, "cancelled")

    def _answer_door(self, door: Door) -> None:
        knocking = door.open()
        if knocking is not None:
            self._watch(knocking.fileno(), lambda: self._hear(door, knocking))

    def _hear(self, door: Door, knocking: socket.socket) -> None:
        self._unwatch(knocking.fileno())
        taker = door.hear(knocking)
        if taker is None:
            return
        if not self._attempt or taker.previous != self._attempt or taker.attempt <= self._attempt:
            taker.close()
            return
        self._refuse_the_one_before()
        self._taker = taker
        self._requests, self._replies = taker.requests, taker.replies
        self._reader = FrameReader()
        os.set_blocking(self._replies, False)
        self._watch(self._requests, self._receive)
        self._tell_taker()
        self._hold(taker.attempt, taker.lease)

    def _refuse_the_one_before(self) -> None:
        """It may be frozen, and act as if it still held us when it thaws."""
        if self._lent is not None:
            with suppress(OSError):
                self._lent.shutdown(2)  # of all who share it
            self._lent.close()
            self._lent = None
        if self._replies != -1:
            with suppress(OSError):
                os.write(self._replies, bytes(self._out) + pack({"op": "fenced", "id": 0}))
            self._leave_stream()

    def _tell_taker(self) -> None:
        call, name = (self._named.id, self._named.name) if self._named is not None else (0, "")
        told = {"version": VERSION, "attempt": self._attempt, "last": self._last_id, "call": call, "name": name}
        self._reply({"op": "taken", "id": 0, **told})

    def _resume(self, call_id: int) -> None:
        command = self._named
        if command is None or command.id != call_id:
            raise ValueError(f"there is no call {call_id}")
        if command.reply is not None:
            self._reply(*command.reply)
        else:
            command.stream = command.is_awaited = True
            command.window = PREVIEW_WINDOW_BYTES

    # Files

    def _download(self, request: dict[str, Any]) -> Download:
        if len(self._downloads) >= CALLS_LIMIT:
            raise OSError(errno.EAGAIN, f"{CALLS_LIMIT} reads run already")
        path = request["path"]
        return Download(self._tree.open_for_reading(path), path, request["limit"])

    def _pump(self) -> None:
        """One chunk of each download, as far as the host takes them."""
        for call_id, download in list(self._downloads.items()):
            if self._out:
                return
            try:
                data = download.next()
            except OSError as error:
                self._fail(call_id, reason_of(error), message_of(error, download.path))
            else:
                if data:
                    self._reply({"op": "data", "id": call_id}, data)
                    continue
                self._reply({"op": "done", "id": call_id, "size": download.size})
            self._downloads.pop(call_id).close()

    def _look_on(self) -> None:
        """A little further with each look."""
        for call_id, look in list(self._looks.items()):
            until = time.monotonic() + LOOK_SECONDS
            while look.step():
                if time.monotonic() > until:
                    break
            else:
                del self._looks[call_id]
                looked = {"print": look.print(), "certain": look.certain, "crowded": look.crowded()}
                self._reply({"op": "looked", "id": call_id, **looked})

    def _add(self, call_id: int, data: bytes) -> None:
        upload = self._uploads.get(call_id)
        if upload is None:
            return
        try:
            upload.add(data)
            if upload.remaining > 0:
                return
            upload.finish()
        except OSError:
            self._uploads.pop(call_id).drop()
            raise
        del self._uploads[call_id]
        self._reply({"op": "done", "id": call_id, "size": 0})

    # Commands

    def _exec(self, call_id: int, request: dict[str, Any]) -> None:
        if len(self._commands) >= CALLS_LIMIT:
            raise OSError(errno.EAGAIN, f"{CALLS_LIMIT} commands run already")
        memory_kills = self._memory_kills.count()
        begin = self._in_shell if request["shell"] else self._by_itself
        pid, output, path, shell = begin(call_id, request)
        command = Command(call_id, pid, output, request, time.monotonic(), memory_kills)
        command.path, command.shell = path, shell
        if command.name:
            self._named = command
        with suppress(OSError):  # there is a limit to what one user's pipes may hold together
            fcntl.fcntl(output, F_SETPIPE_SZ, PIPE_BYTES)
        self._commands[call_id] = self._by_pid[pid] = command
        self._watch(output, lambda: self._take_output(command))

    def _by_itself(self, call_id: int, request: dict[str, Any]) -> tuple[int, int, str, str]:
        """(pid, descriptor of the output, no path of it, no shell it ran in)."""
        output, pipe = os.pipe()
        try:
            pid = self._spawn(call_id, request, pipe)
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(pipe)
        self._memory_kills.choose_before_us(pid)
        return pid, output, "", ""

    def _in_shell(self, call_id: int, request: dict[str, Any]) -> tuple[int, int, str, str]:
        """The same of a command in the shell, which is started where there is none."""
        if self._session is not None and self._session.token:
            raise OSError(errno.EBUSY, "another command runs in the shell")
        if self._session is not None and not self._serves(self._session, call_id):
            self._restart()
        state = "kept" if self._session is not None or not self._sessions else "new"
        session = self._session or self._start_session(request["environment"])
        self._marks.put_on(session.pid, call_id)
        output, path = session.run(request["command"])
        return session.pid, output, path, state

    def _serves(self, session: Shell, call_id: int) -> bool:
        """Whether it lives, and has not put its own limits where no command of it could be marked."""
        try:
            self._marks.put_on(session.pid, call_id)
        except (ProcessLookupError, PermissionError):
            return False
        return not is_dead(session.pid)

    def _start_session(self, environment: dict[str, str]) -> Shell:
        if not self._shell.endswith("bash"):
            raise FileNotFoundError(errno.ENOENT, "there is no bash in this sandbox", "/bin/bash")
        os.chdir(self._workspace)
        session = Shell(self._shell, {**os.environ, **environment})
        self._memory_kills.choose_before_us(session.pid)
        self._session = session
        self._sessions += 1
        self._watch(session.status, lambda: self._take_status(session))
        return session

    def _take_status(self, session: Shell) -> None:
        said = os.read(session.status, READ_BYTES)
        code = session.code_of(said)
        if code is not None:
            self._process_ended(self._by_pid.pop(session.pid), code << 8)
        elif said:
            self._restart()
        else:  # it became another program, or closed all it had: how that ends is its command's end
            self._unwatch(session.status)

    # Background processes

    def _start_process(self, call_id: int, request: dict[str, Any]) -> None:
        """In the folder where the shell is, unless another one is named."""
        running = sum(process.is_running for process in self._processes.values())
        if running >= PROCESSES_LIMIT:
            raise OSError(errno.EAGAIN, f"{running} background processes run already: stop one")
        cwd = request["cwd"] or self._where_the_shell_is()
        self._exec(call_id, {**request, "cwd": cwd, "shell": False})
        self._processes_started += 1
        command = self._commands[call_id]
        command.process = self._processes_started
        self._processes[command.process] = process = Background(command.process, command, request)
        self._tell_process(call_id, process)

    def _process(self, number: int) -> Background:
        if number not in self._processes:
            raise ValueError(f"there is no background process {number}")
        return self._processes[number]

    def _collect(self, call_id: int, process: Background) -> None:
        if process.command.pipe != -1:
            self._take_output(process.command)
        self._tell_process(call_id, process)

    def _end_process(self, call_id: int, process: Background) -> None:
        if not process.is_running:
            self._tell_process(call_id, process)
            return
        process.waiting.append(call_id)
        self._end(process.command, "stopped")

    def _process_finished(self, process: Background) -> None:
        process.ended(time.monotonic())
        for call_id in process.waiting:
            self._tell_process(call_id, process)
        ended = [number for number, process in self._processes.items() if not process.is_running]
        for number in ended[:-PROCESSES_LIMIT]:
            del self._processes[number]

    def _tell_process(self, call_id: int, process: Background) -> None:
        described = process.describe(time.monotonic())
        head, tail, dropped = process.collect()
        header = {"op": "process", "id": call_id, "process": described, "head": len(head), "dropped": dropped}
        self._reply(header, head + tail)

    # The shell

    def _restart(self) -> None:
        """The next command of the shell gets a new one. One that runs there is killed with it."""
        session, self._session = self._session, None
        if session is not None:
            session.kill()
            self._forget(session)

    def _forget(self, session: Shell) -> None:
        self._unwatch(session.status)
        session.close()

    def _spawn(self, call_id: int, request: dict[str, Any], pipe: int) -> int:
        # posix_spawn has no argument for the folder to start in; we need ours for nothing.
        os.chdir(self._real_folder(request["cwd"]))
        self._marks.put_on_next_child(call_id)
        return os.posix_spawn(
            self._shell,
            [self._shell, "-c", "--", request["command"]],
            {**os.environ, **request["environment"]},
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, pipe, 1),
                (os.POSIX_SPAWN_DUP2, pipe, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
        )

    def _real_folder(self, cwd: str) -> str:
        if cwd == "/workspace" or cwd.startswith("/workspace/"):
            return self._workspace + cwd[len("/workspace") :]
        return cwd if cwd.startswith("/") else f"{self._workspace}/{cwd}"

    def _take_output(self, command: Command) -> None:
        """Read once what is there; at the end of the stream the command may have ended."""
        try:
            data = os.read(command.pipe, READ_BYTES)
        except BlockingIOError:
            return
        if data:
            command.output.add(data)
            self._preview(command, data)
            return
        self._close_output(command)
        if command.status is not None and not command.ended_by:
            self._finish(command)

    def _close_output(self, command: Command) -> None:
        self._unwatch(command.pipe)
        os.close(command.pipe)
        command.pipe = -1

    def _preview(self, command: Command, data: bytes) -> None:
        if not command.stream:
            return
        if len(data) > command.window or len(self._out) > REPLIES_HIGH_WATER_BYTES:
            command.skipped += len(data)
            return
        command.window -= len(data)
        self._reply({"op": "output", "id": command.id, "skipped": command.skipped}, data)
        command.skipped = 0

    def _reap(self) -> None:
        os.read(self._wakeups, READ_BYTES)
        for pid, status in reap_children():
            command = self._by_pid.pop(pid, None)
            if self._session is not None and pid == self._session.pid:
                self._forget(self._session)
                self._session = None
            if command is not None:
                command.shell = command.shell and "ended"
                self._process_ended(command, status)

    def _process_ended(self, command: Command, status: int) -> None:
        command.status = status
        if command.ended_by:
            return
        if command.pipe == -1:
            self._finish(command)
        else:
            command.linger_until = time.monotonic() + LINGER_SECONDS

    def _tick(self) -> None:
        now = time.monotonic()
        if now >= self._lease_until:
            self._running = False
        for command in list(self._commands.values()):
            if command.due() > now:
                continue
            if command.ended_by:
                self._kill_again(command, now)
            elif now >= command.deadline:
                self._end(command, "deadline")
            elif command.linger_until is None:
                self._look_at_shell(command, now)
            else:
                self._finish(command)

    def _look_at_shell(self, command: Command, now: float) -> None:
        command.look_at = now + SHELL_LOOK_SECONDS
        session = self._session
        if session is not None and session.pid == command.pid and session.is_lost():
            self._end(command, "shell")

    def _end(self, command: Command, ended_by: str) -> None:
        if not command.ended_by:
            command.ended_by = ended_by
            self._kill_again(command, time.monotonic())

    def _kill_again(self, command: Command, now: float) -> None:
        """Kill what is left; the command has ended when a look finds nothing. A new child may slip through one look."""
        # What it was until it was reaped: its number may be another process's since.
        root = command.pid if command.status is None else -1
        if not self._marks.kill(command.id, root) and command.status is not None:
            self._finish(command)
            return
        command.next_kill = now + command.kill_round
        command.kill_round = min(KILL_ROUND_SECONDS[1], command.kill_round * 2)

    def _finish(self, command: Command) -> None:
        self._take_rest(command)
        head, tail, dropped = command.output.parts()
        if self._was_killed_for_memory(command):
            command.ended_by = "memory"
        process = self._processes.get(command.process)
        if process is not None:
            del self._commands[command.id]
            self._process_finished(process)
            return
        code, ended_by = outcome(command)
        header = {"op": "exit", "id": command.id, "code": code, "ended_by": ended_by}
        cwd = self._folder() if command.shell else ""
        del self._commands[command.id]
        full = self._sized.full() if code != 0 else None
        size = {"dropped": dropped, "head": len(head), "skipped": command.skipped, "full": full}
        reply = {**header, **size, "cwd": cwd, "shell": command.shell}, head + tail
        if command.name:
            command.reply = reply
        if command.is_awaited:
            self._reply(*reply)

    def _was_killed_for_memory(self, command: Command) -> bool:
        """It or a part of it. What runs in the background is not blamed for what another command took."""
        if command.ended_by in ("cancelled", "stopped") or self._memory_kills.count() <= command.memory_kills:
            return False
        return not command.process or command.status == signal.SIGKILL

    def _where_the_shell_is(self) -> str:
        """By its process: the folder's name may be no text, and nobody's any more."""
        session = self._session
        return f"/proc/{session.pid}/cwd" if session is not None and session.folder() else "/workspace"

    def _folder(self) -> str:
        """Of the shell, as the host names it; empty where there is none."""
        real = self._session.folder() if self._session is not None else ""
        if real == self._workspace or real.startswith(self._workspace + "/"):
            return "/workspace" + real[len(self._workspace) :]
        return real

    def _take_rest(self, command: Command) -> None:
        """What is still in the pipe, bounded; a background child may go on writing, into nothing."""
        if command.path:
            with suppress(FileNotFoundError):
                os.unlink(command.path)
        for _ in range(PAYLOAD_LIMIT_BYTES // READ_BYTES):
            if command.pipe == -1:
                return
            try:
                data = os.read(command.pipe, READ_BYTES)
            except BlockingIOError:
                break
            if data:
                command.output.add(data)
                self._preview(command, data)
            else:
                self._close_output(command)
        if command.pipe != -1:
            self._handlers[command.pipe] = lambda fd=command.pipe: self._discard(fd)

    def _discard(self, fd: int) -> None:
        if not os.read(fd, READ_BYTES):
            self._unwatch(fd)
            os.close(fd)


def outcome(command: Command) -> tuple[int | None, str]:
    """(exit code, ended by)."""
    status = command.status
    if command.ended_by or status is None:
        return None, command.ended_by
    if os.WIFSIGNALED(status):
        return None, f"signal {os.WTERMSIG(status)}"
    return os.WEXITSTATUS(status), ""


def reason_of(error: Exception) -> str:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return "not_found"
    if isinstance(error, IsADirectoryError):
        return "is_directory"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EROFS):
        return "denied"
    return "failed"


def message_of(error: Exception, path: str) -> str:
    """A sentence without a class name, with the path as the caller gave it; bounded, because a path may be anything."""
    text = str(error)
    if isinstance(error, OSError):
        text = f"{path or error.filename}: {error.strerror}" if path or error.filename else str(error.strerror)
    return text.encode("utf-8", "replace").decode("utf-8")[:2000]


def wake_on_child() -> int:
    """A descriptor that becomes readable when a child ends."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read_end


def reap_children() -> list[tuple[int, int]]:
    """(pid, wait status) of every child that ended, also of those that we only inherited."""
    ended = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def prctl(option: int, value: int, pointer: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_void_p(pointer), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option} failed")


def filter_calls(program: bytes) -> None:
    """Refuse system calls by a BPF program, from now on and to all that we start."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // INSTRUCTION_BYTES, ctypes.addressof(code))
    fprog = ctypes.create_string_buffer(header, len(header))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(fprog))


def become(uid: int) -> None:
    """Give up root for good, where the driver had to start us as root: also what a change of uid leaves."""
    os.setgroups([])
    for capability in range(CAPABILITIES):
        with suppress(OSError):  # not one that this kernel has
            prctl(PR_CAPBSET_DROP, capability)
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    libc = ctypes.CDLL(None, use_errno=True)
    none = ctypes.create_string_buffer(struct.pack("6I", *[0] * 6), 24)
    if libc.capset(struct.pack("Ii", CAPABILITY_VERSION, 0), none) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def take_protocol(door: Door | None) -> tuple[int, int]:
    """Our stdin and stdout as high descriptors that no command inherits; /dev/null in their place."""
    requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 100)
    replies = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 100)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    for fd in (TEXT_FD, STATUS_FD):
        os.dup2(null, fd, inheritable=False)  # kept free for the shell
    keep = {0, 1, 2, requests, replies, TEXT_FD, STATUS_FD}
    if door is not None:
        keep.add(door.fileno())
    # Whoever started us may have left other ends of the same streams open (uvloop does): no command may inherit them.
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in keep:
            with suppress(OSError):
                os.close(fd)
    return requests, replies


def set_limits(limits: dict[str, int]) -> None:
    """Soft and hard, by their names in `resource` without RLIMIT_; never above what the host gave."""
    for name, value in limits.items():
        which = getattr(resource, "RLIMIT_" + name)
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def write_files(files: dict[str, str]) -> None:
    """What the driver could not put in place before we ran."""
    for path, text in files.items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)


def main() -> None:
    config = json.loads(sys.argv[1])
    door = Door.of(config)
    requests, replies = take_protocol(door)
    if config.get("uid"):
        become(config["uid"])
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    set_limits(config.get("limits", {}))
    os.umask(0o022)
    os.makedirs(os.environ["HOME"], exist_ok=True)
    write_files(config.get("files", {}))
    if config.get("seccomp"):
        filter_calls(bytes.fromhex(config["seccomp"]))
    workspace = config["workspace"]
    tree = Tree({"/workspace": workspace, "/tmp": "/tmp"})
    Server(requests, replies, tree, workspace, config, door).run()


if __name__ == "__main__":
    main()
