"""Set-ups of repositories: run once in a sandbox as hard as the agent's, kept, used again until their inputs change.

What the script leaves in three places is kept: in $HOME and in what git ignores of /workspace, which each sandbox gets
a copy of to write to, and in /opt/errand, which it sees read-only and at no cost. Secrets are in the environment of the
script alone; its container is gone before the agent's is made, and what would be kept is searched for them.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sandbox.checkpoints import GIT_ENVIRONMENT
from sandbox.contract import (
    SETUP_FOLDER,
    BorrowWorkspace,
    ExecResult,
    Sandbox,
    SandboxError,
    SandboxSpec,
    Setup,
    SetupFailed,
    SetupWatch,
)
from sandbox.kept import PACK, UNPACK, Folder, new_folder, refuse_secrets, refuse_too_much
from sandbox.limits import SetupRules
from sandbox.lock import taken
from sandbox.secret_values import Redactor

WAIT_SECONDS = 0.2
LOOK_SECONDS = 1.0
TIDY_SECONDS = 60.0
PACK_SECONDS = 600.0
UNPACK_SECONDS = 110.0
"""Less than a runner waits for a start."""
TAIL_CHARS = 1500
FIRST_LINE_BYTES = 4096
NAMES_SHOWN = 5
STATUS = re.compile(r"([ MTADRCU?]{2}) (.+)")
LOCKS = 64
SETTINGS = 'export PATH="/opt/errand/bin:$HOME/.local/bin:$PATH"\n'
T = TypeVar("T")
KEEP_MARK = "1"
"""Changes where the way of keeping does: what was kept before is then made anew."""


class Ground(Struct, frozen=True):
    """What a set-up starts from: `image` as in `SandboxSpec`, and an id that is another one when it changes."""

    image: str
    id: str


class Store(Protocol):
    """Where a driver keeps what set-ups left."""

    @property
    def builds_not(self) -> str:
        """Why no Dockerfile is built here: a sentence. Empty where they are."""
        ...

    def build(self, key: str, dockerfile: Path) -> AsyncIterator[str]:
        """Build it and keep it; yields what is said. SandboxError."""
        ...

    async def ground(self, setup: Setup, watch: SetupWatch) -> Ground:
        """The image that is named where it can be had, else the driver's own. SandboxError."""
        ...

    def name(self, key: str) -> str:
        """As `SandboxSpec.image`."""
        ...

    async def has(self, key: str) -> bool: ...

    async def keep(self, key: str, ground: Ground, folder: Path, repository: str) -> None:
        """`folder` may be moved away."""
        ...

    async def kept(self) -> Mapping[str, int]:
        """The keys with their bytes."""
        ...

    async def remove(self, key: str) -> bool:
        """False while it is in use."""
        ...


class Mark(Struct, frozen=True, kw_only=True):
    """What is known of a set-up that is kept, for people. The time of its file says when it was used last."""

    repository: str
    what: str
    """The script, or the Dockerfile."""
    made_at: float


class KeptSetup(Struct, frozen=True, kw_only=True):
    """One on this machine."""

    key: str
    size_bytes: int
    used_at: float
    """By the clock on the wall, as `made_at`; 0 is unknown."""
    repository: str = ""
    what: str = ""
    made_at: float = 0.0


class Setups:
    """Of one driver on one machine."""

    def __init__(
        self, folder: Path, store: Store, start: Callable[[SandboxSpec], Awaitable[Sandbox]], rules: SetupRules
    ) -> None:
        """`folder` is shared by the runners of the installation on this machine."""
        self._folder = folder / "setups"
        self._store = store
        self._start = start
        self._rules = rules
        self._tidy_at = 0.0
        """By the monotonic clock."""

    async def prepare(self, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> str:
        """See `Driver.prepare`."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if setup.dockerfile and (why_not := self._store.builds_not):
            await watch.notice(f"The repository's {setup.dockerfile} is not used: {why_not}")
            setup = replace(setup, dockerfile="")
        if setup.dockerfile:
            key = key_of(replace(setup, script=setup.dockerfile), "")
            await self._once(key, setup.dockerfile, watch, partial(self._build, key, setup, borrow, watch))
            ground = Ground(self._store.name(key), key)
        else:
            ground = await self._store.ground(setup, watch)
        if not setup.script:
            return ground.image
        key = key_of(setup, ground.id)
        await self._once(key, setup.script, watch, partial(self._make, key, setup, ground, borrow, watch))
        return self._store.name(key)

    async def _once(self, key: str, what: str, watch: SetupWatch, make: Callable[[], Awaitable[None]]) -> None:
        """What is not kept is made, by whoever comes first; others wait for it, and make it when that failed."""
        told = False
        while not await self._store.has(key):
            with taken(self._lock(key)) as mine:
                if not told:
                    await watch.begins(what)
                    told = True
                if mine and not await self._store.has(key):
                    await make()
                    break
            await anyio.sleep(WAIT_SECONDS)
        else:
            if told:
                await watch.ends(ExecResult(exit_code=0, output=""), "")
        self._mark(key).touch()

    async def _build(self, key: str, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> None:
        """Build the repository's Dockerfile, over the folder that it is in."""
        said = ""
        try:
            async with borrow() as spec:
                with anyio.fail_after(self._rules.seconds):
                    async for line in self._store.build(key, spec.workspace / setup.dockerfile):
                        said = f"{said}{line}\n"[-TAIL_CHARS:]
                        await watch.output(f"{line}\n")
        except (SandboxError, TimeoutError) as error:
            how = f"took more than {self._rules.seconds:.0f} s (ERRAND_SANDBOX_SETUP_SECONDS)"
            how = how if isinstance(error, TimeoutError) else f"could not be built: {error}"
            reason = f"The repository's {setup.dockerfile} {how}. It said last:\n{said.strip()}"
            await watch.ends(ExecResult(exit_code=None, output=said), reason)
            raise SetupFailed(reason) from None
        await watch.ends(ExecResult(exit_code=0, output=said), "")
        await self._made(key, setup, setup.dockerfile)

    async def _made(self, key: str, setup: Setup, what: str) -> None:
        mark = Mark(repository=setup.repository, what=what, made_at=time.time())
        self._mark(key).write_bytes(msgspec.json.encode(mark))  # what was made last is not what is tidied away
        await self.tidy()

    async def kept(self) -> list[KeptSetup]:
        """What was used last comes first."""
        sizes = await self._store.kept()
        return [self._known(key, sizes[key]) for key in sorted(sizes, key=self._used_at, reverse=True)]

    def _known(self, key: str, size_bytes: int) -> KeptSetup:
        found = KeptSetup(key=key, size_bytes=size_bytes, used_at=self._used_at(key))
        try:
            mark = msgspec.json.decode(self._mark(key).read_bytes(), type=Mark)
        except (FileNotFoundError, msgspec.DecodeError):
            return found
        return replace(found, repository=mark.repository, what=mark.what, made_at=mark.made_at)

    async def forget(self, key: str) -> bool:
        """The next task that needs it makes it anew. False while it is in use."""
        if not await self._store.remove(key):
            return False
        self._mark(key).unlink(missing_ok=True)
        return True

    async def tidy_by_the_minute(self) -> None:
        """`tidy`, also when nothing new is kept: for who looks more often than that."""
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + TIDY_SECONDS
            with suppress(OSError):  # who keeps the next one is told
                await self.tidy()

    async def tidy(self) -> None:
        """Remove what was not used for long, and what is too much; nothing that is in use."""
        kept = await self._store.kept()
        oldest_last = sorted(kept, key=self._used_at, reverse=True)
        count, size = 0, 0
        for key in oldest_last:
            count, size = count + 1, size + kept[key]
            is_old = self._used_at(key) < time.time() - self._rules.idle_seconds
            if (is_old or count > self._rules.count or size > self._rules.all_bytes) and await self.forget(key):
                count, size = count - 1, size - kept[key]
        for mark in self._folder.glob("*.used"):
            if mark.stem not in kept and self._used_at(mark.stem) < time.time() - self._rules.idle_seconds:
                mark.unlink(missing_ok=True)

    async def _make(self, key: str, setup: Setup, ground: Ground, borrow: BorrowWorkspace, watch: SetupWatch) -> None:
        redactor = Redactor({})
        result = ExecResult(exit_code=None, output="")
        try:
            secrets = await setup.secrets()
            redactor = Redactor(secrets)
            async with borrow() as spec:
                refuse_windows(spec.workspace, setup.script)
                with new_folder(spec.workspace / SETUP_FOLDER) as folder:
                    async with self._started(replace(spec, image=ground.image, is_setup=True)) as sandbox:
                        run = partial(self._run, sandbox, setup.script, secrets, redactor, watch)
                        result = await self._watched(folder, run)
                        check_result(setup, result, self._rules.seconds)
                        await refuse_full(sandbox, setup.script)
                        await self._watched(folder, partial(self._pack, sandbox, watch))
                    await anyio.to_thread.run_sync(refuse_too_much, folder, self._rules.keep_bytes)
                    left = folder.path()
                    await anyio.to_thread.run_sync(refuse_secrets, left, secrets, abandon_on_cancel=True)
                    await self._store.keep(key, ground, left, setup.repository)
        except SetupFailed as error:
            reason = redactor.all(str(error))
            await watch.ends(result, reason)
            raise SetupFailed(reason) from None
        except SandboxError as error:
            await watch.ends(result, str(error))
            raise
        await watch.ends(result, "")
        await self._made(key, setup, setup.script)

    @asynccontextmanager
    async def _started(self, spec: SandboxSpec) -> AsyncIterator[Sandbox]:
        sandbox = await self._start(spec)
        try:
            yield sandbox
        finally:
            await sandbox.stop()

    async def _run(
        self, sandbox: Sandbox, script: str, secrets: Mapping[str, str], redactor: Redactor, watch: SetupWatch
    ) -> ExecResult:
        """The script, seen by the user without its secrets."""

        async def show(text: str) -> None:
            if shown := redactor.feed(text):
                await watch.output(shown)

        result = await sandbox.exec(
            SETTINGS + run_script(script),
            environment={**secrets, "ERRAND_SETUP": "1"},
            timeout_seconds=self._rules.seconds,
            on_output=show,
        )
        await watch.output(redactor.rest())
        return replace(result, output=redactor.all(result.output))

    async def _watched(self, folder: Folder, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives. SetupFailed as soon as it has left too much in `folder`, which is on no disk of its own:
        then it is cancelled."""
        found: list[T] = []
        failures: list[Exception] = []
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                failures.append(await self._grown_too_large(folder))
                group.cancel_scope.cancel()

            group.start_soon(watch)
            try:
                found.append(await work())
            except Exception as error:  # by itself, and not in a group of one
                failures.append(error)
            group.cancel_scope.cancel()
        for failure in failures:
            raise failure
        return found[0]

    async def _grown_too_large(self, folder: Folder) -> SetupFailed:
        """Returns when it has, or cannot be read."""
        while True:
            await anyio.sleep(LOOK_SECONDS)
            try:
                await anyio.to_thread.run_sync(refuse_too_much, folder, self._rules.keep_bytes)
            except SetupFailed as failed:
                return failed

    async def _pack(self, sandbox: Sandbox, watch: SetupWatch) -> None:
        packed = await sandbox.exec(PACK, environment=GIT_ENVIRONMENT, timeout_seconds=PACK_SECONDS)
        if packed.exit_code != 0:
            tail = packed.output[-TAIL_CHARS:].strip()
            raise SetupFailed(f"What the set-up left could not be kept ({packed.ending}): {tail}")
        for notice in not_kept(packed.output):
            await watch.notice(notice)

    def _lock(self, key: str) -> Path:
        return self._folder / f"{int(key, 16) % LOCKS}.lock"

    def _mark(self, key: str) -> Path:
        """Its time says when it was used last."""
        return self._folder / f"{key}.used"

    def _used_at(self, key: str) -> float:
        try:
            return self._mark(key).stat().st_mtime
        except FileNotFoundError:
            return 0.0


async def unpack(sandbox: Sandbox) -> None:
    """Give a started sandbox its copies. SandboxError."""
    result = await sandbox.exec(UNPACK, timeout_seconds=UNPACK_SECONDS)
    if result.exit_code != 0:
        raise SandboxError(
            f"what the repository's set-up left could not be copied into the sandbox ({result.ending}): "
            f"{result.output[-TAIL_CHARS:]}"
        )


def key_of(setup: Setup, ground: str) -> str:
    """Of all that the result depends on, `ground` by its id."""
    found = hashlib.blake2b(digest_size=20)
    for part in (KEEP_MARK, ground, setup.inputs, setup.script):
        data = part.encode()
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()


def run_script(script: str) -> str:
    path = f"/workspace/{script}"
    return f"if [ -x {path} ]; then exec {path}; else exec bash {path}; fi"


def check_result(setup: Setup, result: ExecResult, seconds: float) -> None:
    """SetupFailed with the end of what it said."""
    if result.exit_code == 0:
        return
    match result.ended_by:
        case "deadline":
            how = f"was not done after {seconds:.0f} s (ERRAND_SANDBOX_SETUP_SECONDS)"
        case "memory":
            how = "took more memory than a sandbox has"
        case "":
            how = f"ended with exit code {result.exit_code}"
        case ended_by:
            how = f"was ended by {ended_by}"
    tail = result.output[-TAIL_CHARS:].strip()
    raise SetupFailed(f"The repository's set-up ({setup.script}) {how}. It said last:\n{tail}")


def refuse_windows(workspace: Path, script: str) -> None:
    """SetupFailed for a script whose first line ends as Windows ends lines: a shell would take the CR for a part of the
    last word, and say so of a command that it does not find."""
    with (workspace / script).open("rb") as file:
        first = file.readline(FIRST_LINE_BYTES)
    if first.endswith(b"\r\n"):
        raise SetupFailed(
            f"The repository's {script} has Windows line ends (CRLF), which a shell does not understand. Add the line "
            f"`{script} text eol=lf` to .gitattributes, then `git add --renormalize .` and commit."
        )


async def refuse_full(sandbox: Sandbox, script: str) -> None:
    """SetupFailed when a place is full by now: what ran had no room, whatever the script's last command said."""
    looked = await sandbox.exec("exit 1")  # of a command that fails it is told
    if looked.output:
        full = looked.output.strip().strip("[]")
        raise SetupFailed(
            f"The repository's set-up ({script}) ended with exit code 0, but {full}, so something is missing and "
            "nothing is kept. Remove caches at the end of the script, put large tools into /opt/errand, begin it with "
            "`set -e`, or have this server's limit raised (ERRAND_SANDBOX_TMP_MIB; of /workspace "
            "ERRAND_SANDBOX_DISK_MIB)."
        )


def not_kept(status: str) -> list[str]:
    """Sentences on what stays behind, from the first lines of `git status --porcelain`."""
    found = [match.groups() for line in status.splitlines() if (match := STATUS.fullmatch(line))]
    new = [name for state, name in found if state == "??"]
    changed = [name for state, name in found if state != "??"]
    notices = []
    if changed:
        notices.append(f"What the set-up changed in files that git has is not kept: {_some(changed)}")
    if new:
        notices.append(f"New files of the set-up that git does not ignore are not kept: {_some(new)}")
    return notices


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
