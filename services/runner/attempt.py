"""One attempt, from the grant to its end."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import anyio
import anyio.abc
from msgspec import Struct
from msgspec.structs import replace

from agents import rules
from agents.contract import DaySpent, Fenced, Model, Sandbox, SandboxGone, TurnFailed, TurnResult
from agents.loop import Settings, run_turn
from protocol.base import Message
from protocol.evolve import Task
from protocol.ids import OWNER
from protocol.journal import (
    AttemptStarted,
    CheckpointMade,
    JournalEntry,
    ModelCall,
    Noticed,
    SandboxRestored,
    StepStarted,
    ToolCall,
)
from protocol.query import AttemptGranted, Printed
from protocol.repo import BaseResolved, Publish, PublishDone, PullRequestWish, ResolveBase
from protocol.routes import Service, command_subject, printed_subject
from protocol.rules import Rule, RuleAction
from protocol.task import FailAttempt, FinishAttempt, ParkAttempt, Published, TaskCommand
from sandbox.contract import Driver, SandboxDied, SandboxError, SandboxUnavailable
from sandbox.egress.policy import Egress
from services import log
from services.background import background
from services.bus import LEASE_SECONDS, Bus, Refused, Renewal, Unavailable
from services.clock import Clock
from services.runner.desk import Parked, UserDesk
from services.runner.fork import fork
from services.runner.log import TaskLog
from services.runner.movement import MovingModel
from services.runner.workspace import ASK_AGAIN_SECONDS, Workspace

RENEW_SECONDS = LEASE_SECONDS / 5
REFRESH_EVERY = 5
"""Renewals after which the log is read once more, in case the live tap missed something."""
RESOLVE_SECONDS = 300.0
PUBLISH_SECONDS = 300.0
PARK_SECONDS = 8.0
DEATHS_LIMIT = 3
"""So many sandboxes of an attempt may die: what kills each one shall not go on for ever."""
ENGINE_SECONDS = 30.0
"""For an engine to come back that is being restarted."""
OPEN_AFTER_SECONDS = 0.02
DECISION_SECONDS = 10.0
"""After so long without a decision on its last word, an attempt looks into the log and says it again."""
AGAIN_SECONDS = 2.0
"""The wait before the next attempt after a passing fault of a part of ours."""
R = TypeVar("R", bound=Message)

RETRIED = "The turn before this one ended ({ending}). The user asks to try again: do what was asked, from where it is."


class AttemptConfig(Struct, frozen=True, kw_only=True):
    """What an attempt needs to know of the runner."""

    runner: str
    default_model: str
    hold_question_seconds: float
    settings: Settings
    egress: Egress = Egress()
    """What sandboxes may reach of the network."""
    ignored_bytes: int = 0
    """How much of what git ignores is saved with the work."""


class Attempt:
    """Runs one granted attempt. `run` returns when the attempt is over, whoever ended it."""

    def __init__(
        self, bus: Bus, model: Model, driver: Driver, config: AttemptConfig, granted: AttemptGranted, clock: Clock
    ) -> None:
        self._bus = bus
        self._model = model
        self._driver = driver
        self._config = config
        self._clock = clock
        self._task = granted.task
        self._log = TaskLog(bus, granted.task, granted.sequence)
        self._workspace: Workspace | None = None
        self._workspace_ready = anyio.Event()
        self._workspace_failed: Exception | None = None
        self._stop = anyio.Event()
        self._leaves = False
        """The sandbox, to the next attempt."""
        self._logger = log.get()

    async def run(self) -> None:
        with log.bound(task=self._task.id, attempt=self._task.attempt):
            try:
                await self._log.open()
                await self._run_with_lease()
            except Fenced:
                self._logger.info("attempt_over")
            except Refused as error:
                # Its log cannot be read, and so its end cannot be waited for; unsaid, the lease ends it.
                self._logger.error("log_not_read", reason=error.reason)
                await self._say(self._failed(error.reason, None))

    def stop(self, *, leaves_sandbox: bool = False) -> None:
        """The runner shuts down, or the user held the turn back: save the work and give the attempt back. A sandbox
        that is left goes on with all that runs in it, as far as its lease lets it."""
        if leaves_sandbox and self._workspace is not None and not self._stop.is_set():
            self._leaves = True
            self._workspace.let_go()
        self._stop.set()

    async def _run_with_lease(self) -> None:
        async with background() as group:
            group.start_soon(self._renew)
            group.start_soon(self._end_when_over, group.cancel_scope)
            group.start_soon(self._stop_when_paused)
            try:
                await self._run_and_report(group)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close()

    async def _run_and_report(self, group: anyio.abc.TaskGroup) -> None:
        try:
            ending = await self._until_stopped(group)
        except Fenced:
            raise
        except Exception as error:
            ending = await self._ending_after(error)
        await self._send(ending)

    async def _ending_after(self, error: Exception) -> TaskCommand:
        """The attempt's last word when it could not finish."""
        match error:
            case Parked():
                return self._park()
            case DaySpent():
                return self._park(day_is_spent=error.reason)
            case TurnFailed():
                return await self._fail(error.reason, error.retry_after_seconds)
            case SandboxGone():
                return self._failed(f"The sandbox ended: {error}", AGAIN_SECONDS)
            case SandboxUnavailable():
                # The runner looks for another one, or waits for this one, before it takes the next attempt.
                return self._failed(f"There is no sandbox: {error}", AGAIN_SECONDS)
            case SandboxError():
                return self._failed(str(error), None)
            case Refused():
                passing = error.code in ("unavailable", "internal")
                return self._failed(error.reason, AGAIN_SECONDS if passing else None)
            case Unavailable():
                return self._failed(str(error), AGAIN_SECONDS)
        self._logger.error("attempt_failed", exc_info=error)
        return self._failed("The runner failed; its log says why.", AGAIN_SECONDS)

    async def _until_stopped(self, group: anyio.abc.TaskGroup) -> TaskCommand:
        """The attempt's own end, or its being parked when it is stopped first."""
        ending: TaskCommand | None = None
        async with background() as racing:

            async def stop() -> None:
                await self._stop.wait()
                racing.cancel_scope.cancel()

            racing.start_soon(stop)
            ending = await self._work(group)
        if ending is not None:
            return ending
        with anyio.move_on_after(PARK_SECONDS, shield=True):
            # What was being written may be stored all the same: it is the journal's end, and may have cost something.
            await self._log.refresh()
            await self._save_work()
        return self._park()

    async def _work(self, group: anyio.abc.TaskGroup) -> TaskCommand:
        started = await self._ground()
        self._workspace = Workspace(
            self._bus,
            self._driver,
            self._log,
            base_commit=started.base_commit,
            branch=started.branch,
            egress=self._config.egress,
            ignored_bytes=self._config.ignored_bytes,
        )
        if await self._workspace.take_over(left_by(self._log.entries)):
            started = replace(started, sandbox_kept=True, restored_step=self._last_step())
        await self._log.append(started)
        group.start_soon(self._follow)
        group.start_soon(self._answer_what_was_printed)
        group.start_soon(self._workspace.refusals.keep)
        group.start_soon(self._open_workspace, self._workspace)
        return await self._run_through_deaths(self._workspace)

    async def _run_through_deaths(self, workspace: Workspace) -> FinishAttempt:
        """The turn, in a new sandbox whenever one has died, from the last checkpoint. Too many deaths are the attempt's
        end: the next one comes after a pause, and may get another driver."""
        for _ in range(DEATHS_LIMIT):
            try:
                return await self._finish(await self._run_turn())
            except SandboxGone as gone:
                await self._restore(workspace, str(gone))
        return await self._finish(await self._run_turn())

    async def _restore(self, workspace: Workspace, reason: str) -> None:
        """Waits for an engine that is being restarted."""
        self._logger.warning("sandbox_died", reason=reason)
        last = self._last_checkpoint()
        await self._log.append(SandboxRestored(reason=reason, restored_step=last.step if last else 0))
        self._workspace_failed = None
        until = anyio.current_time() + ENGINE_SECONDS
        while True:
            try:
                return await workspace.renew(last)
            except SandboxUnavailable:
                if anyio.current_time() > until:
                    raise
                with self._log.movement.waits(1.0):
                    await anyio.sleep(1.0)
            except SandboxDied as died:
                self._workspace_failed = SandboxGone(str(died))
                return None

    async def _run_turn(self) -> TurnResult:
        settings = Settings(
            day_usd=self._log.terms.day_usd,
            max_tokens=self._config.settings.max_tokens,
            rules=self._rules,
            seconds_left=self._seconds_left(),
        )
        return await run_turn(
            model=MovingModel(self._model, self._log.movement),
            sandbox=self._sandbox,
            journal=self._log,
            desk=UserDesk(self._bus, self._log, self._config.hold_question_seconds),
            settings=settings,
        )

    def _seconds_left(self) -> float | None:
        """Until the turn's deadline. Whoever is not ready a minute after it is cut off by the scheduler."""
        task = self._task
        if task.turn_seconds is None or task.turn_opened_at is None:
            return None
        return task.turn_seconds - (self._clock.now() - task.turn_opened_at).total_seconds()

    async def _ground(self) -> AttemptStarted:
        """What the attempt stands on: as the task's first attempt found it, with what is restored since."""
        task, turn = self._task, self._task.turn
        earlier = next((e.event for e in self._log.entries if isinstance(e.event, AttemptStarted)), None)
        told = RETRIED.format(ending=self._log.retried) if self._log.retried else ""
        forked = await fork(self._bus, task) if earlier is None and task.fork_of else None
        if forked is not None:
            told = forked.told
            if forked.checkpoint is not None:
                # Before the attempt begins: whoever takes over from here has it, or makes the fork anew.
                await self._log.append(forked.checkpoint)
        last = self._last_checkpoint()
        if forked is not None and forked.ground is not None:
            ground = forked.ground
            commit, instructions, branch = ground.base_commit, ground.instructions, branch_name(task)
        elif earlier is None:
            base = await self._resolve(task)
            commit, instructions, branch = base.commit, base.instructions, branch_name(task)
        else:
            commit, instructions, branch = earlier.base_commit, earlier.instructions, earlier.branch
        return AttemptStarted(
            turn=turn,
            base_commit=commit,
            branch=branch,
            model=task.model or self._log.terms.model or self._config.default_model,
            sandbox=self._driver.name,
            scripted=self._model.scripted,
            instructions=instructions,
            told=told,
            egress=self._config.egress.words,
            restored_step=last.step if last else 0,
        )

    async def _resolve(self, task: Task) -> BaseResolved:
        asked = ResolveBase(
            task=task.id,
            repository=task.repository,
            base=task.base,
            is_owner=task.user == OWNER,
            user=task.user,
        )
        return await self._ask_repos(asked, BaseResolved, RESOLVE_SECONDS)

    async def _ask_repos(self, asked: Message, reply: type[R], seconds: float) -> R:
        with self._log.movement.waits(seconds):
            return await self._bus.ask(
                Service.REPOS, asked, reply, timeout_seconds=seconds, again_seconds=ASK_AGAIN_SECONDS
            )

    def _last_checkpoint(self) -> CheckpointMade | None:
        made = [entry.event for entry in self._log.entries if isinstance(entry.event, CheckpointMade)]
        return made[-1] if made else None

    async def _open_workspace(self, workspace: Workspace) -> None:
        # The first model request goes out first: on a small server the clone would take its processor.
        await anyio.sleep(OPEN_AFTER_SECONDS)
        try:
            await workspace.open(self._last_checkpoint())
        except SandboxDied as died:
            self._workspace_failed = SandboxGone(str(died))
        except Exception as error:  # whatever it is, whoever waits for the sandbox gets it
            self._workspace_failed = error
        self._workspace_ready.set()

    async def _sandbox(self) -> Sandbox:
        await self._workspace_ready.wait()
        if self._workspace_failed is not None:
            raise self._workspace_failed
        assert self._workspace is not None
        if self._workspace.death:
            raise SandboxGone(self._workspace.death)
        return self._workspace

    async def _finish(self, result: TurnResult) -> FinishAttempt:
        if self._workspace is not None:
            await self._workspace.refusals.flush()
        published = await self._publish(result.commit_message, summary=result.summary)
        return FinishAttempt(
            key=f"finish {self._log.attempt}",
            attempt=self._log.attempt,
            journal_sequence=self._log.journal_sequence,
            summary=result.summary,
            usage=result.usage,
            messages_read=self._messages_read(),
            published=published,
        )

    @property
    def _rules(self) -> tuple[Rule, ...]:
        return *self._task.rules, *self._log.terms.rules

    async def _fail(self, reason: str, retry_after_seconds: float | None) -> FailAttempt:
        """The work so far is committed and pushed first, unless another attempt goes on with it."""
        published = await self._publish_unfinished(reason) if retry_after_seconds is None else None
        return self._failed(reason, retry_after_seconds, published)

    async def _publish_unfinished(self, reason: str) -> Published | None:
        if not self._workspace_ready.is_set() or self._workspace_failed is not None:
            return None
        if rules.action_on(self._rules, rules.FINISH, {}) is not RuleAction.ALLOW:
            await self._log.append(
                Noticed(text="The unfinished work is kept and not pushed: you are asked before that.")
            )
            return None
        try:
            message = f"Unfinished: {self._task.title}\n\n{reason}"
            return await self._publish(message, summary=reason, unfinished=True)
        except (Refused, Unavailable, SandboxGone, SandboxError) as error:
            await self._log.append(Noticed(text=f"The unfinished work was not pushed: {error}", level="warning"))
            return None

    def _failed(
        self,
        reason: str,
        retry_after_seconds: float | None,
        published: Published | None = None,
    ) -> FailAttempt:
        """Keys of commands of ours have a space, which a client's key cannot have."""
        return FailAttempt(
            key=f"fail {self._log.attempt}",
            attempt=self._log.attempt,
            journal_sequence=self._log.journal_sequence,
            reason=reason,
            retry_after_seconds=retry_after_seconds,
            usage=self._log.usage,
            messages_read=self._messages_read(),
            published=published,
        )

    def _park(self, day_is_spent: str = "") -> ParkAttempt:
        return ParkAttempt(
            key=f"park {self._log.attempt}",
            attempt=self._log.attempt,
            journal_sequence=self._log.journal_sequence,
            usage=self._log.usage,
            day_is_spent=day_is_spent,
        )

    async def _publish(self, message: str, *, summary: str, unfinished: bool = False) -> Published | None:
        """Commit the work, push it and offer it to be merged; None when nothing was changed."""
        workspace = await self._sandbox()
        assert isinstance(workspace, Workspace)
        made = await workspace.commit(self._last_step(), message)
        if made is None:
            return None
        started = next(e.event for e in reversed(self._log.entries) if isinstance(e.event, AttemptStarted))
        wish = Publish(
            task=self._task.id,
            repository=self._task.repository,
            base_commit=started.base_commit,
            commit=made.commit,
            blob=made.blob,
            branch=started.branch,
            is_owner=self._task.user == OWNER,
            user=self._task.user,
            pull_request=self._wish(started, message, summary, unfinished=unfinished),
        )
        done = await self._ask_repos(wish, PublishDone, PUBLISH_SECONDS)
        for notice in done.notices:
            await self._log.append(Noticed(text=notice, level="warning"))
        return done.published

    def _wish(self, started: AttemptStarted, message: str, summary: str, *, unfinished: bool) -> PullRequestWish | None:
        """What a pull request would say; None for a task that wants none."""
        if not self._task.pull_request:
            return None
        return PullRequestWish(
            title=message.strip().partition("\n")[0],
            summary=summary,
            base=self._task.base,
            model=started.model,
            scripted=started.scripted,
            unfinished=unfinished,
        )

    def _last_step(self) -> int:
        return max((e.event.step for e in self._log.entries if isinstance(e.event, StepStarted)), default=0)

    def _messages_read(self) -> int:
        calls = (e.event.action for e in self._log.entries if isinstance(e.event, StepStarted))
        return max((n for call in calls if isinstance(call, ModelCall) for n in call.messages_read), default=0)

    async def _save_work(self) -> None:
        if self._workspace_ready.is_set() and self._workspace_failed is None and self._workspace is not None:
            try:
                await self._workspace.save(self._last_step())
            except (SandboxGone, Unavailable, Fenced) as error:
                self._logger.warning("work_not_saved", error=str(error))

    async def _send(self, command: TaskCommand) -> None:
        """Store the attempt's last word and wait for the decision on it; without one the lease ends the attempt."""
        while command.key not in self._log.task.receipts:
            self._log.movement.show()
            await self._say(command)
            with anyio.move_on_after(DECISION_SECONDS):
                await self._log.over.wait()
            await self._log.refresh()
        # A decision that did not end the attempt refused its last word: without renewals the lease ends it.
        self._logger.error("last_word_rejected", reason=self._log.task.receipts[command.key].reason)

    async def _say(self, command: TaskCommand) -> None:
        subject = command_subject(self._task.user, self._task.id, command)
        with suppress(Unavailable):
            await self._bus.publish(subject, command, key=f"{self._task.id}.{command.key}")

    async def _follow(self) -> None:
        """Fold decisions as they are made. Work does not wait for it: what comes before shows at the next append."""
        subject = f"evt.{self._task.user}.{self._task.id}.task.*"
        await self._hold(lambda: self._bus.tap(subject, self._log.on_decision))

    async def _answer_what_was_printed(self) -> None:
        """`AskPrinted`: somebody begins to look in the middle of a step."""

        async def answer() -> Printed:
            return Printed(output=self._log.printed.pieces)

        subject = printed_subject(self._task.user, self._task.id)
        await self._hold(lambda: self._bus.attend(subject, answer))

    async def _hold(self, subscribe: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]) -> None:
        """Be subscribed until cancelled."""
        while True:
            try:
                end = await subscribe()
                break
            except Unavailable:
                await anyio.sleep(RENEW_SECONDS)
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await end()

    async def _renew(self) -> None:
        """While the attempt moves. One that hangs loses its lease by this, learns so by what is read, and ends."""
        renewal = Renewal(attempt=self._log.attempt, runner=self._config.runner)
        count = 0
        while True:
            await anyio.sleep(RENEW_SECONDS)
            if self._log.movement.is_shown:
                # Where the server has just forgotten its leases, the scheduler hears the renewal all the same.
                with suppress(Unavailable):
                    await self._bus.renew_hint(f"attempt.{self._task.id}", renewal)
            else:
                self._logger.error("attempt_hangs")
            count += 1
            if count % REFRESH_EVERY == 0:
                await self._log.refresh()

    async def _end_when_over(self, scope: anyio.CancelScope) -> None:
        await self._log.over.wait()
        scope.cancel()

    async def _stop_when_paused(self) -> None:
        await self._log.paused.wait()
        self.stop()

    async def _close(self) -> None:
        if self._workspace is not None:
            try:
                await (self._workspace.leave() if self._leaves else self._workspace.close())
            except (Refused, Unavailable, SandboxError) as error:
                self._logger.warning("workspace_not_released", error=str(error))


def left_by(entries: Sequence[JournalEntry]) -> int:
    """The attempt whose sandbox holds what the journal tells: the last one that has begun, where a tool call shows that
    the sandbox was ready; 0 for none. One that was not may lack what was to be restored."""
    attempt, was_ready = 0, False
    for entry in entries:
        match entry.event:
            case AttemptStarted(sandbox_kept=kept):
                attempt, was_ready = entry.attempt, kept
            case SandboxRestored():
                was_ready = False
            case StepStarted(action=ToolCall()):
                was_ready = True
    return attempt if was_ready else 0


def branch_name(task: Task) -> str:
    """`errand/<task>-<slug>`, the slug from the title."""
    slug = re.sub(r"[^a-z0-9]+", "-", task.title.lower()).strip("-")[:40].strip("-")
    return f"errand/{task.id}-{slug}" if slug else f"errand/{task.id}"
