"""The attempt's sandbox over its workspace: made in the background, restored from the last checkpoint, saved step by
step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
from msgspec.structs import replace

from agents.contract import SandboxGone, SandboxRefused
from protocol.journal import CheckpointMade
from protocol.repo import PrepareWorkspace, ReleaseWorkspace, SetupFound, WorkspacePrepared, WorkspaceReleased
from protocol.routes import Service
from sandbox.checkpoints import CHECKPOINT_SECONDS
from sandbox.contract import (
    FILE_LIMIT_BYTES,
    OUTPUT_LIMIT_BYTES,
    Checkpoint,
    Driver,
    ExecResult,
    Process,
    Sandbox,
    SandboxDied,
    SandboxError,
    SandboxSpec,
)
from sandbox.egress.policy import Egress
from services.bus import Bus, Refused, Unavailable
from services.runner.log import TaskLog
from services.runner.refusals import Refusals, why_no_look_ups
from services.runner.setup import ShownSetup, borrow_secrets, setup_of
from services.runner.unsaved import Unsaved

PREPARE_SECONDS = 300.0
ASK_AGAIN_SECONDS = 5.0
"""A request that is not answered is sent again so often, should who worked on it have died."""
TAKE_OVER_SECONDS = 60.0
"""For a sandbox that another runner has left to answer, and its workspace to change hands."""
START_SECONDS = 120.0
"""For a sandbox to start, and to bring the last checkpoint back."""
SETUP_LONGEST_SECONDS = 6 * 3600.0
"""For a set-up, and before it the same one of another task: both have deadlines of their own."""
RELEASE_SECONDS = 30.0
FILE_SECONDS = 60.0
"""For a file to be read or written in the sandbox, which takes milliseconds."""
T = TypeVar("T")


class Workspace:
    """Implements the agent's `Sandbox`. `open` first, `close` always."""

    def __init__(
        self,
        bus: Bus,
        driver: Driver,
        log: TaskLog,
        *,
        base_commit: str,
        branch: str,
        egress: Egress,
        ignored_bytes: int = 0,
    ) -> None:
        self.base_commit = base_commit
        self.last: CheckpointMade | None = None
        """The last checkpoint that the journal has."""
        self._bus = bus
        self._driver = driver
        self._log = log
        self._branch = branch
        self._egress = egress
        self._ignored_bytes = ignored_bytes
        self._no_look_ups = why_no_look_ups(driver.name, egress)
        self.refusals = Refusals(log, self._no_look_ups)
        """What its commands asked of the network in vain."""
        self._unsaved = Unsaved(log)
        self._sandbox: Sandbox | None = None

    async def take_over(self, previous: int) -> bool:
        """Go on in the sandbox that attempt `previous` has left on this machine, with all that runs in it. False when
        that cannot be, for whatever reason: then `open` makes a new one."""
        if not previous:
            return False
        with self._log.movement.waits(TAKE_OVER_SECONDS), suppress(SandboxError, Refused, Unavailable):
            sandbox = await self._driver.reattach(self._spec("/workspace"), previous)
            if sandbox is not None:
                return await self._take(sandbox, previous)
        return False

    async def _take(self, sandbox: Sandbox, previous: int) -> bool:
        """With its workspace. It is ours by now: where that cannot be had, it ends here, and with us when we are
        cancelled."""
        self._sandbox = sandbox
        with suppress(Refused, Unavailable):
            if (await self._prepare(keep=previous)).path:
                return True
        await sandbox.stop()
        self._sandbox = None
        return False

    @property
    def death(self) -> str:
        """Why its sandbox is gone; empty while that lives."""
        return self._sandbox.death if self._sandbox is not None else ""

    async def renew(self, last: CheckpointMade | None) -> None:
        """`open` once more, in place of a sandbox that has died."""
        if self._sandbox is not None:
            await self._sandbox.stop()
            self._sandbox = None
        await self._release()
        await self.open(last)

    async def open(self, last: CheckpointMade | None) -> None:
        """Make the workspace, have the repository's set-up, start the sandbox, bring back `last`. Raises SandboxError,
        Refused, Unavailable."""
        self.last = last
        if self._sandbox is not None:
            return
        inside = self._driver.copies_workspaces
        with self._log.movement.waits(PREPARE_SECONDS):
            prepared = await self._prepare(checkout=not inside)
        image = ""
        if prepared.setup is not None:
            with self._log.movement.waits(SETUP_LONGEST_SECONDS):
                image = await self._set_up(prepared, prepared.setup)
        with self._log.movement.waits(START_SECONDS):
            await self._start(
                replace(self._spec(prepared.path, prepared.readonly_paths), image=image), last, inside=inside
            )

    async def _start(self, spec: SandboxSpec, last: CheckpointMade | None, *, inside: bool) -> None:
        self._sandbox = await self._driver.start(spec)
        if last is not None and last.blob:
            bundle = await self._bundle(last.blob)
            checkpoint = Checkpoint(head=last.head, commit=last.commit, tree=last.tree, bundle=bundle)
            await self._sandbox.restore(checkpoint)
        elif inside:
            await self._sandbox.check_out()
        if last is not None and last.ignored:
            await self._sandbox.restore_ignored(await self._bundle(last.ignored))

    async def _set_up(self, prepared: WorkspacePrepared, found: SetupFound) -> str:
        """What the sandbox starts from."""
        task = self._log.task
        shown = ShownSetup(self._log, self._no_look_ups)
        for notice in found.notices:
            await shown.notice(notice)
        reached = [task.user, *prepared.readonly_paths, *self._egress.words]
        lend = partial(borrow_secrets, self._bus, task.id, self._log.attempt)
        setup = setup_of(found, task.repository, reached, lend)
        return await self._driver.prepare(setup, self._borrow, shown)

    @asynccontextmanager
    async def _borrow(self) -> AsyncIterator[SandboxSpec]:
        """A fresh workspace for the set-up. Its sandbox is no attempt's: it ends with this runner."""
        # One that an earlier try could not give back is there as its script left it: links to anywhere.
        await self._release(for_setup=True)
        prepared = await self._prepare(for_setup=True)
        try:
            spec = self._spec(prepared.path, prepared.readonly_paths)
            yield replace(spec, task=f"setup_{self._log.task.id}", attempt=0, on_refused=self.refusals.show)
        finally:
            with anyio.CancelScope(shield=True), suppress(Refused, Unavailable):
                await self._release(for_setup=True)

    def _spec(self, workspace: str, readonly_paths: tuple[str, ...] = ()) -> SandboxSpec:
        return SandboxSpec(
            task=self._log.task.id,
            attempt=self._log.attempt,
            workspace=Path(workspace),
            readonly_paths=tuple(map(Path, readonly_paths)),
            egress=self._egress,
            on_refused=self.refusals.add,
        )

    async def _prepare(self, keep: int = 0, *, checkout: bool = True, for_setup: bool = False) -> WorkspacePrepared:
        task = self._log.task
        asked = PrepareWorkspace(
            task=task.id,
            attempt=self._log.attempt,
            repository=task.repository,
            commit=self.base_commit,
            branch=self._branch,
            keep=keep,
            checkout=checkout,
            for_setup=for_setup,
        )
        return await self._bus.ask(
            Service.REPOS,
            asked,
            WorkspacePrepared,
            timeout_seconds=PREPARE_SECONDS,
            again_seconds=ASK_AGAIN_SECONDS,
        )

    async def _bundle(self, blob: str) -> bytes:
        try:
            return await self._bus.get_blob(blob)
        except KeyError:
            raise SandboxError(f"The checkpoint {blob} is gone from the object store: start a new task.") from None

    def let_go(self) -> None:
        """From now on, what is cut off here goes on inside."""
        if self._sandbox is not None:
            self._sandbox.let_go()

    async def leave(self) -> None:
        """To the next attempt, the workspace too, where the sandbox has a lease; else as `close`."""
        if self._sandbox is None or not await self._sandbox.leave():
            await self.close()

    async def close(self) -> None:
        """Stop the sandbox and give the workspace back. May be called at any time."""
        if self._sandbox is not None:
            await self._sandbox.stop()
        await self._release()

    async def _release(self, *, for_setup: bool = False) -> None:
        released = ReleaseWorkspace(task=self._log.task.id, attempt=self._log.attempt, for_setup=for_setup)
        await self._bus.ask(Service.REPOS, released, WorkspaceReleased, timeout_seconds=RELEASE_SECONDS)

    async def exec(
        self,
        command: str,
        *,
        cwd: str = "/workspace",
        environment: Mapping[str, str] | None = None,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: Callable[[str], Awaitable[None]] | None = None,
    ) -> ExecResult:
        call = self._started.exec(
            command,
            cwd=cwd,
            environment=environment,
            timeout_seconds=timeout_seconds,
            output_limit_bytes=output_limit_bytes,
            on_output=on_output,
        )
        return self._said_with(await self._within(timeout_seconds, call))

    async def shell(
        self,
        command: str,
        *,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: Callable[[str], Awaitable[None]] | None = None,
        name: str = "",
    ) -> ExecResult:
        call = self._started.shell(
            command,
            timeout_seconds=timeout_seconds,
            output_limit_bytes=output_limit_bytes,
            on_output=on_output,
            name=name,
        )
        return self._said_with(await self._within(timeout_seconds, call))

    async def resume(
        self,
        name: str,
        *,
        timeout_seconds: float = 120.0,
        output_limit_bytes: int = OUTPUT_LIMIT_BYTES,
        on_output: Callable[[str], Awaitable[None]] | None = None,
    ) -> ExecResult | None:
        call = self._started.resume(
            name, timeout_seconds=timeout_seconds, output_limit_bytes=output_limit_bytes, on_output=on_output
        )
        done = await self._within(timeout_seconds, call)
        return self._said_with(done) if done is not None else None

    def _said_with(self, result: ExecResult) -> ExecResult:
        return self._unsaved.said_with(self.refusals.said_with(result))

    async def restart_shell(self) -> None:
        await self._within(FILE_SECONDS, self._started.restart_shell())

    async def start_process(self, command: str) -> Process:
        return await self._within(FILE_SECONDS, self._started.start_process(command))

    async def processes(self) -> tuple[Process, ...]:
        return await self._within(FILE_SECONDS, self._started.processes())

    async def read_process(self, number: int) -> Process:
        return await self._within(FILE_SECONDS, self._started.read_process(number))

    async def stop_process(self, number: int) -> Process:
        return await self._within(FILE_SECONDS, self._started.stop_process(number))

    async def read(self, path: str, limit_bytes: int = FILE_LIMIT_BYTES) -> bytes:
        return await self._within(FILE_SECONDS, self._started.read(path, limit_bytes))

    async def write(self, path: str, data: bytes) -> None:
        await self._within(FILE_SECONDS, self._started.write(path, data))

    async def _within(self, seconds: float, call: Awaitable[T]) -> T:
        """A call that the sandbox ends within `seconds`; its errors in the agent's words."""
        try:
            with self._log.movement.waits(seconds):
                return await call
        except SandboxDied as error:
            raise SandboxGone(str(error)) from error
        except SandboxError as error:
            raise SandboxRefused(str(error)) from error

    async def save(self, step: int) -> None:
        """Where that cannot be, the work goes on: a full disk, or a repository in the middle of something, is mended by
        the agent, who is told. Raises SandboxGone, Unavailable, Fenced."""
        try:
            await self._checkpoint(step, f"Errand: work after step {step}", advance=False)
        except SandboxError as error:
            await self._unsaved.failed(str(error))

    async def commit(self, step: int, message: str) -> CheckpointMade | None:
        """Make the work a commit on the branch and journal it; None when there is nothing beyond the base commit."""
        return await self._checkpoint(step, message, advance=True)

    @property
    def _started(self) -> Sandbox:
        assert self._sandbox is not None, "open() comes first"
        return self._sandbox

    async def _checkpoint(self, step: int, message: str, *, advance: bool) -> CheckpointMade | None:
        with self._log.movement.waits(CHECKPOINT_SECONDS):
            return await self._take_checkpoint(step, message, advance=advance)

    async def _take_checkpoint(self, step: int, message: str, *, advance: bool) -> CheckpointMade | None:
        before = self.last
        unless = before.commit if before else ""
        try:
            taken = await self._started.checkpoint(self.base_commit, message, advance=advance, unless=unless)
            ignored, left_out = await self._keep_ignored(step, before.ignored if before else "")
        except SandboxDied as error:
            raise SandboxGone(str(error)) from error
        blob, size = (before.blob, before.size_bytes) if before and not taken.bundle else ("", 0)
        if taken.bundle:
            blob, size = self._blob(step, taken.commit[:12]), len(taken.bundle)
            await self._bus.put_blob(blob, taken.bundle)
        made = CheckpointMade(
            step=step,
            head=taken.head,
            commit=taken.commit,
            tree=taken.tree,
            blob=blob,
            size_bytes=size,
            ignored=ignored,
        )
        if before is None or replace(made, blob=before.blob, size_bytes=before.size_bytes) != before:
            await self._log.append(made)
        self.last = made
        await self._unsaved.saved((*taken.left_out, *left_out))
        for gone in {before.blob, before.ignored} - {"", made.blob, made.ignored} if before else ():
            with suppress(Unavailable):
                await self._bus.delete_blob(gone)
        return made if made.commit != self.base_commit else None

    async def _keep_ignored(self, step: int, before: str) -> tuple[str, tuple[str, ...]]:
        """The blob with what git ignores, empty where there is none, and what has no place in it. `before` is the last
        one. Raises SandboxDied, Unavailable."""
        if not self._ignored_bytes:
            return "", ()
        try:
            found = await self._started.ignored(self._ignored_bytes, unless=before.rpartition(".")[2])
        except SandboxDied:
            raise
        except SandboxError as error:
            return before, (str(error),)
        if not found.tar:
            return before if found.print else "", found.left_out
        blob = self._blob(step, found.print)
        await self._bus.put_blob(blob, found.tar)
        return blob, found.left_out

    def _blob(self, step: int, of: str) -> str:
        return f"checkpoint.{self._log.task.id}.{self._log.attempt}.{step}.{of}"
