"""What every sandbox gives, whatever runs it. One suite, `tests/contract/test_sandbox.py`, holds each driver to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from sandbox.egress.policy import Egress, Refusal

OUTPUT_LIMIT_BYTES = 64 * 1024
"""Of a command's output, this much is kept by default: half from its head, half from its tail."""
FILE_LIMIT_BYTES = 16 * 1024 * 1024
"""The largest file that can be read or written in one call."""
BUNDLE_LIMIT_BYTES = 512 * 1024 * 1024
"""The largest checkpoint."""
KEPT = "/opt/errand"
"""Where what a set-up left is seen inside, read-only."""
SETUP_FOLDER = ".git/errand-setup"
"""Of a set-up's workspace."""
LOOKING = "it is being looked for"
"""Why there is no driver, before one was sought."""


class SandboxError(Exception):
    """The sandbox could not do what was asked. The message is for the user and says what to do."""


class SandboxDied(SandboxError):
    """The sandbox is gone (killed, out of memory, its exec server ended). What ran in it has an unknown outcome."""


class SandboxUnavailable(SandboxError):
    """This machine cannot start such a sandbox. The message says what to allow."""


class ImageMissing(SandboxUnavailable):
    """An engine answers, but the image of its sandboxes has to be made first."""


class SetupFailed(SandboxError):
    """The repository's set-up did not work. The message is for the user and has the end of what it said."""


class SandboxSpec(Struct, frozen=True, kw_only=True):
    """What to start. `task` and `attempt` are put on the sandbox as its owner."""

    task: str
    attempt: int
    workspace: Path
    """Host folder of the working tree; seen inside as `/workspace`. It is the only writable host path, or none is: see
    `Driver.copies_workspaces`."""
    readonly_paths: tuple[Path, ...] = ()
    """Host folders seen inside at the same path, read-only: the mirror's objects, tool chains."""
    environment: Mapping[str, str] = {}
    """Added to the sandbox's own small environment. Never a credential."""
    egress: Egress = Egress()
    """What it may reach of the network. A driver without `Capabilities.egress` gives none."""
    on_refused: Callable[[Refusal], None] | None = None
    """Called for what was asked of the network and refused, in the event loop: once a host and port, and once more when
    there were too many to tell."""
    image: str = ""
    """What `Driver.prepare` made, to start from; empty: the driver's own ground."""
    is_setup: bool = False
    """The repository's set-up runs in it: `SETUP_FOLDER` of the workspace is also seen as `KEPT`, to be filled."""


LendSecrets = Callable[[], Awaitable[Mapping[str, str]]]
"""The secrets of one set-up, by their names."""


async def no_secrets() -> Mapping[str, str]:
    return {}


class Setup(Struct, frozen=True, kw_only=True):
    """How a repository wants its sandboxes prepared. What comes of it is kept, and used again for an equal one."""

    repository: str
    """For people."""
    inputs: str
    """A digest of the files and secrets that the set-up depends on, and of who may use what comes of it."""
    script: str = ""
    """A file of the workspace that is run in a sandbox."""
    image: str = ""
    """The ground in place of the driver's own."""
    dockerfile: str = ""
    """A file of the workspace from which that ground is built."""
    secrets: LendSecrets = no_secrets
    """Asked when the set-up is made: variables of the script's environment, of which none may be in what is kept."""

    def __repr__(self) -> str:
        return f"Setup({self.repository!r}, {self.inputs!r})"


class SetupWatch(Protocol):
    """Who is told of a set-up that has to be made."""

    async def begins(self, what: str) -> None:
        """It starts, or the same one of another task is waited for."""
        ...

    async def output(self, text: str) -> None: ...

    async def notice(self, text: str) -> None:
        """A sentence for the user."""
        ...

    async def ends(self, result: ExecResult, reason: str) -> None:
        """`reason` says why it failed; empty: it is kept."""
        ...


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a driver gives on this machine, for `errand doctor` and for the contract suite."""

    isolated: bool
    """False only for the explicit unsandboxed setting."""
    memory_limit: bool
    disk_limit: bool
    process_limit: bool
    egress: bool = False
    """Whether it can open a way out, by a proxy that lets nothing else through."""
    reattach: bool = False
    """A sandbox outlives its runner for a while, and another one can take it over."""
    prepared_image: bool = False
    """Whether a repository may name an image, or a Dockerfile. What a set-up script leaves is kept either way."""
    facts: Mapping[str, str] = {}
    """What the sandboxes are made of and held to, a line each by its name."""
    warnings: tuple[str, ...] = ()
    """Sentences for who runs the machine: what should not stay as it is, and what mends it."""
    notes: tuple[str, ...] = ()
    """Sentences for the user: what is missing, and what would give it."""


class ExecResult(Struct, frozen=True, kw_only=True):
    """How a command ended. `output` is stdout and stderr as they came, invalid UTF-8 replaced, NUL shown as U+2400;
    where bytes were dropped, or it failed and a place inside has no room left, it has a line that says so."""

    exit_code: int | None
    """None when it was ended by us or by a signal; then `ended_by` says why."""
    output: str
    dropped_bytes: int = 0
    """Bytes cut out of the middle of `output`."""
    ended_by: str = ""
    """`""`, `"deadline"`, `"memory"`, `"cancelled"`, `"signal <n>"`, or `"shell"`: that could run nothing more."""
    duration_seconds: float = 0.0
    cwd: str = ""
    """Of a command of the shell: where the shell is now; empty when it ended."""
    shell: Literal["", "kept", "new", "ended"] = ""
    """What a command of the shell found and left: the same shell, a `new` one because the last had ended, or none: it
    `ended` with this command. Empty for a command by itself."""

    @property
    def ending(self) -> str:
        """For a sentence about one that failed."""
        return f"ended by {self.ended_by}" if self.ended_by else f"exit code {self.exit_code}"


class Process(Struct, frozen=True, kw_only=True):
    """A background process. It ends with the sandbox, if not before."""

    number: int
    """By which it is named; counts from 1 in each sandbox."""
    command: str
    """The first 200 characters."""
    running: bool
    exit_code: int | None
    """None while it runs, and as in `ExecResult`."""
    ended_by: str = ""
    """As in `ExecResult`, or `"stopped"`."""
    seconds: float = 0.0
    """How long it has run."""
    unread_bytes: int = 0
    output: str = ""
    """What it said since it was last read or stopped, its middle left out where it is too long; as in `ExecResult`."""
    dropped_bytes: int = 0


class Checkpoint(Struct, frozen=True, kw_only=True):
    """The workspace at one moment, as git commits.

    `head` is the commit the workspace's HEAD points to; `commit` has the whole working tree (untracked files included,
    ignored ones not) and equals `head` when nothing is uncommitted; `tree` is its tree.
    """

    head: str
    commit: str
    tree: str
    bundle: bytes = b""
    """A git bundle with `refs/errand/checkpoint` and `refs/errand/head`, without what the base commit already has (git
    leaves out a ref that points to nothing beyond it). Empty when tree and head are those of the checkpoint named by
    `unless`, or when there is nothing beyond the base commit."""
    left_out: tuple[str, ...] = ()
    """Phrases for the user about what is in the workspace and not in `tree`, some of it told only once: nested
    repositories, what cannot be read."""


class Ignored(Struct, frozen=True, kw_only=True):
    """The files that git ignores, at one moment."""

    print: str = ""
    """The SHA-256 of their tar, in hex; empty where there are none, or too many."""
    tar: bytes = b""
    """Empty when the print is `unless`."""
    left_out: tuple[str, ...] = ()
    """Phrases for the user, as in `Checkpoint`."""


OnOutput = Callable[[str], Awaitable[None]]
"""Called with decoded text as it arrives; never after `exec` has returned. What it is too slow to take (more than
256 KiB behind) is skipped, with a line that says so: it can hold up nothing but itself."""


class Sandbox(Protocol):
    """One started sandbox. Methods may run side by side; all raise `SandboxDied` once it is gone."""

    async def exec(
        self,
        command: str,
        *,
        cwd: str = "/workspace",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: OnOutput | None = None,
    ) -> ExecResult:
        """Run `command` by `bash -c` (`sh` where there is no bash), stdin from /dev/null.

        At the deadline, or when the caller is cancelled, every descendant is killed, also one that left its session.
        """
        ...

    async def shell(
        self,
        command: str,
        *,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: OnOutput | None = None,
        name: str = "",
    ) -> ExecResult:
        """Run `command` in the sandbox's one bash, whose folder, variables and functions go from one command to the
        next; `set -e` and `set -u` do not. It starts in `/workspace`.

        Otherwise as `exec`. A shell that ends (`exit`, `exec`, a deadline, a kill) is an outcome of its command, and
        the next command starts a new one. SandboxError while another command runs in it. One with a `name` goes on
        when its runner ends, and `resume` tells how it ended.
        """
        ...

    async def resume(
        self,
        name: str,
        *,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: OnOutput | None = None,
    ) -> ExecResult | None:
        """Of a sandbox that was taken over: how the command of the shell ended, or ends, that the runner before had
        begun by this name. None when that never came to the sandbox. Not twice; the deadline goes on as it was set."""
        ...

    async def restart_shell(self) -> None:
        """End the shell; the next command starts a new one. What it left in the background goes on."""
        ...

    async def start_process(self, command: str, *, cwd: str = "") -> Process:
        """Start `command` by `bash -c` in the background, in `cwd` or where the shell is now. SandboxError when 16 run.
        Of its output the last `OUTPUT_LIMIT_BYTES` or so are kept until they are read."""
        ...

    async def processes(self) -> tuple[Process, ...]:
        """The background processes, ended ones too (the last 16), without their output."""
        ...

    async def read_process(self, number: int) -> Process:
        """With its output since the last time. SandboxError when there is none of that number."""
        ...

    async def stop_process(self, number: int) -> Process:
        """Kill it with all that it started, and return when nothing of it is left. SandboxError as `read_process`."""
        ...

    async def read(self, path: str, limit_bytes: int = FILE_LIMIT_BYTES) -> bytes:
        """The file's bytes. FileNotFoundError, IsADirectoryError or PermissionError with the path; SandboxError over
        the limit."""
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Make or replace the file, with its parent folders, keeping an existing file's mode. A symlink that leaves the
        workspace is refused with PermissionError."""
        ...

    async def checkpoint(self, base: str, message: str, *, advance: bool = False, unless: str = "") -> Checkpoint:
        """The workspace as commits over `base` (a full commit id that the mirror has).

        `advance` moves HEAD to the new commit, as a real commit with `message`, when there is anything to commit;
        otherwise the user's branch and index stay untouched. `unless` is the `commit` of the checkpoint before: when
        nothing changed since, the bundle is empty.
        """
        ...

    async def check_out(self) -> None:
        """Write the files of the commit that HEAD points to, where `/workspace` has the repository alone."""
        ...

    async def restore(self, checkpoint: Checkpoint) -> None:
        """Bring a fresh workspace to `checkpoint`: HEAD on `head`, the working tree as in `commit`, nothing staged."""
        ...

    async def ignored(self, limit_bytes: int, unless: str = "") -> Ignored:
        """What no checkpoint has, where its tar is within `limit_bytes`. `unless` is the `print` of the time before."""
        ...

    async def restore_ignored(self, tar: bytes) -> None:
        """After `restore`: exactly the ignored files of that `tar` are there."""
        ...

    @property
    def death(self) -> str:
        """Why it is gone; empty while it lives, as far as is known."""
        ...

    def let_go(self) -> None:
        """From now on, a command of the shell whose caller is cancelled goes on until `stop` or `leave`."""
        ...

    async def leave(self) -> bool:
        """Let it go on without us for as long as its lease lasts, for `reattach`. False when it has none, or has died:
        it is to be stopped."""
        ...

    async def stop(self) -> None:
        """End every process inside and return when all have ended. May be called twice."""
        ...


BorrowWorkspace = Callable[[], AbstractAsyncContextManager[SandboxSpec]]
"""A fresh workspace for a set-up, for as long as its block lasts."""


class Driver(Protocol):
    """A way to start sandboxes on this machine."""

    name: str

    @property
    def copies_workspaces(self) -> bool:
        """Whether what lies in `SandboxSpec.workspace` is copied into the sandbox, whose own file system it is on: what
        git can check out is then better checked out inside. Known once there were `capabilities`."""
        ...

    async def capabilities(self) -> Capabilities:
        """Found out by trying; raises SandboxUnavailable with what to allow."""
        ...

    async def start(self, spec: SandboxSpec) -> Sandbox: ...

    async def reattach(self, spec: SandboxSpec, previous: int) -> Sandbox | None:
        """The sandbox that attempt `previous` of the task has left on this machine, as it is, now ours; from then on
        it hears nobody else. None when there is none, or it cannot be taken over. Of `spec`, the folders say where they
        are by now, and are not looked at."""
        ...

    async def sweep(self) -> int:
        """Remove what nobody holds, here and on disk; how much there was."""
        ...

    async def prepare(self, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> str:
        """The `image` of the specs to start with: as it was kept, or made now in a workspace that is borrowed for it;
        empty when nothing differs from the driver's own ground. SetupFailed; SandboxError as `start`."""
        ...
