"""The agent loop: ask the conversation what comes next, journal it, do it, journal how it ended."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec import Struct

from agents import rules, tools
from agents.budget import BudgetReached, DayReached, Spent, affordable, check
from agents.context import END_CALL, Call, Conversation, Ending, Refuse, Run, Settle, Speak, Stop, commit_message
from agents.contract import (
    Clock,
    DaySpent,
    Desk,
    Fenced,
    Journal,
    Model,
    ModelError,
    Sandbox,
    SandboxGone,
    SandboxReady,
    TurnFailed,
    TurnResult,
    Verdict,
)
from protocol.journal import ModelCall, ModelReply, Noticed, StepFinished, StepLost, StepStarted, ToolCall, ToolResult
from protocol.rules import Rule, RuleAction

DEADLINE = "The turn reached its deadline. Send a message to go on from here, or submit a task with a later one."


class Settings(Struct, frozen=True, kw_only=True):
    """How a turn is run."""

    day_usd: float | None = None
    """What the attempt may spend of the user's day; None: there is no limit."""
    rules: tuple[Rule, ...] = ()
    """What the user lets be done unasked, the task's own first."""
    seconds_left: float | None = None
    """Until the turn's deadline, where it has one."""
    max_tokens: int = 32_000
    """Of one reply; less where the budget leaves less."""
    model_tries: int = 5
    """Model calls in a row that may fail before the attempt does."""
    longest_wait_seconds: float = 5.0
    """A longer wait is not spent in the process: the attempt ends and says when to try again."""
    first_wait_seconds: float = 0.5
    """Doubled with each failure, half of it random."""
    later_seconds: float = 60.0
    """When another attempt may help after the tries are used up."""


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


async def run_turn(
    *,
    model: Model,
    sandbox: SandboxReady,
    journal: Journal,
    desk: Desk,
    settings: Settings,
    clock: Clock | None = None,
    chance: random.Random | None = None,
) -> TurnResult:
    """Run the open turn to its end, from wherever the journal says it stands; the runner has journalled AttemptStarted.

    Raises Fenced, TurnFailed, SandboxGone (the runner may journal that there is another one, and call this again), and
    whatever `sandbox()` or the desk raise to end the attempt. The workspace
    is saved when it returns and when it raises TurnFailed.
    """
    try:
        async with anyio.create_task_group() as background:
            saver = Saver(background)
            turn = _Turn(
                model, sandbox, journal, desk, settings, saver, clock or SystemClock(), chance or random.Random()
            )
            return await turn.run_and_save()
    except BaseExceptionGroup as group:
        raise _the_one(group) from None
    raise AssertionError("a task group swallows no exception of ours")


class Saver:
    """Makes checkpoints beside the model call that follows, one at a time."""

    def __init__(self, background: TaskGroup) -> None:
        self._background = background
        self._idle = anyio.Event()
        self._idle.set()
        self._gone: SandboxGone | None = None

    def start(self, sandbox: Sandbox, step: int) -> None:
        self._idle = anyio.Event()
        self._background.start_soon(self._save, sandbox, step)

    async def wait(self) -> None:
        """Returns when no save is under way; a failed one ends the turn by its exception, but SandboxGone waits until
        here: the model's reply that comes meanwhile is paid for."""
        await self._idle.wait()
        if self._gone is not None:
            raise self._gone

    async def _save(self, sandbox: Sandbox, step: int) -> None:
        idle = self._idle
        try:
            await sandbox.save(step)
        except SandboxGone as gone:
            self._gone = gone
        idle.set()


class _Turn:
    def __init__(
        self,
        model: Model,
        ready: SandboxReady,
        journal: Journal,
        desk: Desk,
        settings: Settings,
        saver: Saver,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self.model = model
        self.ready = ready
        self.journal = journal
        self.desk = desk
        self.settings = settings
        self.saver = saver
        self.clock = clock
        self.chance = chance
        self.conversation = Conversation(journal.messages)
        self.folded = 0
        """Entries of the journal that the conversation has taken."""
        self.unsaved_step = 0
        """The last step that may have changed the workspace since it was saved."""
        self.failures = 0
        """Model calls in a row that failed."""

    async def run_and_save(self) -> TurnResult:
        try:
            result = await self.run_until_deadline()
        except TurnFailed:
            await self.save()
            raise
        await self.save()
        return result

    async def run_until_deadline(self) -> TurnResult:
        with anyio.move_on_after(self.settings.seconds_left):
            return await self.run()
        await self.settle()
        raise self.failure(DEADLINE)

    async def settle(self) -> None:
        """What the deadline cut off has an outcome in the journal, and its changes are saved."""
        self.catch_up()
        if any(isinstance(action, ToolCall) for action in self.conversation.running.values()):
            self.unsaved_step = self.conversation.last_step
        while isinstance(move := self.conversation.next_move(), Settle):
            await self.journal.append(move.lost)
            self.catch_up()

    async def run(self) -> TurnResult:
        self.catch_up()
        if self.conversation.ground is not None and self.conversation.ground.sandbox_kept:
            self.unsaved_step = self.conversation.last_step
        while True:
            self.catch_up()
            match self.conversation.next_move():
                case Settle(lost=lost):
                    await self.journal.append(lost)
                case Refuse(call=call, reason=reason):
                    await self.refuse(call, f"Not run: {reason}.")
                case Run(call=call):
                    await self.use(call)
                case Speak():
                    await self.speak()
                case Stop(ending=ending):
                    if (call := self.unasked_end(ending)) is None:
                        return self.end(ending)
                    await self.use(call)

    def catch_up(self) -> None:
        self.conversation.messages = self.journal.messages
        for entry in self.journal.entries[self.folded :]:
            self.conversation.take(entry)
            self.folded += 1

    async def refuse(self, call: Call, text: str, waited_seconds: float = 0.0) -> None:
        step = await self.start(_tool_call(call, waited_seconds))
        await self.journal.append(StepFinished(step=step, result=tools.wrong(text)))

    def unasked_end(self, ending: Ending) -> Call | None:
        """The call of `finish` that stands for an end without one, where the user is to be asked before it."""
        given = {"summary": ending.summary}
        if ending.called or ending.failure or self.action_on(rules.FINISH, given) is RuleAction.ALLOW:
            return None
        return Call(id=f"{END_CALL}{self.conversation.last_step}", name=rules.FINISH, input=given)

    def action_on(self, name: str, given: Mapping[str, Any]) -> RuleAction:
        return rules.action_on(self.settings.rules, name, given)

    async def use(self, call: Call) -> None:
        """Run one tool call. Its workspace is the one the model knows: an earlier save has ended before."""
        sandbox = await self.ready()
        await self.saver.wait()
        tool = tools.TOOLS.get(call.name)
        if tool is None:
            await self.refuse(call, f"Not run: there is no tool {call.name}; there are {', '.join(tools.TOOLS)}.")
            return
        waited = 0.0
        if call.step is None:
            self.within_budget()
            verdict, waited = await self.permission(call, sandbox)
            if not verdict.approved:
                await self.refuse(call, f"Not allowed: {verdict.reason}.", waited)
                return
        if tool.resumable:
            self.start_save(sandbox)  # it may take days, and the sandbox may be given back meanwhile
        step = call.step or await self.start(_tool_call(call, waited))
        began = self.clock.monotonic()

        async def say(text: str) -> None:
            await self.journal.preview(step, text, "tool")

        hands = tools.Hands(sandbox=sandbox, desk=self.desk, step=step, say=say, resumes=call.step is not None)
        try:
            result = await tools.use(tool, call.input, hands)
        except tools.CallLost as lost:
            await self.finish(step, StepLost(reason=str(lost)), began)
            return
        except SandboxGone as gone:
            await self.finish(step, StepLost(reason=f"the sandbox ended: {gone}"), began)
            raise
        if tool.changes_workspace(call.input):
            self.unsaved_step = step
        await self.finish(step, result, began)

    async def permission(self, call: Call, sandbox: Sandbox) -> tuple[Verdict, float]:
        """Whether the call may be made, and how many seconds the user took to say so. It has no step yet: a runner that
        dies meanwhile has done nothing, and the next one finds the user's word by the question's id, for this call is
        the next step then too."""
        match self.action_on(call.name, call.input):
            case RuleAction.ALLOW:
                return Verdict(approved=True), 0.0
            case RuleAction.DENY:
                return Verdict(approved=False, reason="a rule of the user's denies it"), 0.0
            case RuleAction.ASK:
                self.start_save(sandbox)  # it may take days, and the sandbox may be given back meanwhile
                began = self.clock.monotonic()
                asked = rules.approval(f"approval_{self.conversation.last_step + 1}", call.name, call.input)
                verdict = await self.desk.approve(asked)
                await self.saver.wait()
                said = f"the user did not approve it: {verdict.reason or 'without a reason'}"
                return Verdict(approved=verdict.approved, reason=said), self.clock.monotonic() - began

    async def speak(self) -> None:
        """One call of the model. When it fails it is lost and paid, and `run` comes back here after a wait."""
        if self.unsaved_step:
            self.start_save(await self.ready())
        unread = self.conversation.unread
        request = self.conversation.request(unread, self.settings.max_tokens)
        try:
            request, reserve = affordable(
                self.journal.budget, self.spent(), request, self.model.most_it_can_cost, self.settings.day_usd
            )
        except BudgetReached as reached:
            raise self.stopped(reached) from None
        read = tuple(message.number for message in unread)
        step = await self.start(ModelCall(messages_read=read, reserved_usd=reserve.cost_usd))
        began = self.clock.monotonic()

        async def on_delta(channel: str, text: str) -> None:
            await self.journal.preview(step, text, channel)

        try:
            reply = await self.model.reply(request, on_delta)
        except ModelError as error:
            await self.finish(step, StepLost(reason=error.reason, usage=error.usage), began)
            await self.wait_after(error)
        else:
            self.failures = 0
            await self.finish(step, reply, began)

    async def wait_after(self, error: ModelError) -> None:
        """Wait until the next try, or raise TurnFailed where none in this process would help."""
        self.failures += 1
        named = error.retry_after_seconds
        if named is None or named > self.settings.longest_wait_seconds:
            raise self.failure(error.reason, named)
        if self.failures >= self.settings.model_tries:
            reason = f"The model failed {self.failures} times in a row, at last: {error.reason}"
            raise self.failure(reason, self.settings.later_seconds)
        backoff = self.settings.first_wait_seconds * 2 ** (self.failures - 1) * self.chance.uniform(0.5, 1.0)
        seconds = min(max(named, backoff), self.settings.longest_wait_seconds)
        await self.journal.append(Noticed(text=f"{error.reason} Trying again in {seconds:.1f} s.", level="warning"))
        await self.clock.sleep(seconds)

    def end(self, ending: Ending) -> TurnResult:
        if ending.failure:
            raise self.failure(ending.failure)
        return TurnResult(
            summary=ending.summary,
            commit_message=commit_message(ending, self.model.scripted),
            usage=self.conversation.usage,
        )

    async def start(self, action: ModelCall | ToolCall) -> int:
        """Journal that the step begins; its effect may come after this has returned."""
        step = self.conversation.last_step + 1
        await self.journal.append(StepStarted(step=step, action=action))
        return step

    async def finish(self, step: int, result: ModelReply | ToolResult | StepLost, began: float) -> None:
        seconds = self.clock.monotonic() - began
        await self.journal.append(StepFinished(step=step, result=result, duration_seconds=seconds))

    def start_save(self, sandbox: Sandbox) -> None:
        if self.unsaved_step:
            self.saver.start(sandbox, self.unsaved_step)
            self.unsaved_step = 0

    async def save(self) -> None:
        """Returns when the workspace is saved as it is."""
        await self.saver.wait()
        if self.unsaved_step:
            self.start_save(await self.ready())
        await self.saver.wait()

    def spent(self) -> Spent:
        return self.conversation.spent(self.clock.now())

    def within_budget(self) -> None:
        try:
            check(self.journal.budget, self.spent(), day_usd=self.settings.day_usd)
        except BudgetReached as reached:
            raise self.stopped(reached) from None

    def stopped(self, reached: BudgetReached) -> TurnFailed:
        failed = self.failure(str(reached))
        return DaySpent(failed.reason, usage=failed.usage) if isinstance(reached, DayReached) else failed

    def failure(self, reason: str, retry_after_seconds: float | None = None) -> TurnFailed:
        self.catch_up()
        return TurnFailed(reason, retry_after_seconds=retry_after_seconds, usage=self.conversation.usage)


def _tool_call(call: Call, waited_seconds: float) -> ToolCall:
    return ToolCall(id=call.id, name=call.name, input=dict(call.input), waited_seconds=waited_seconds)


def _the_one(group: BaseExceptionGroup) -> BaseException:
    """What decides the attempt, of all that went wrong at once: over, then gone, then whatever came first."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop(0)
        if isinstance(error, BaseExceptionGroup):
            stack[:0] = error.exceptions
        else:
            flat.append(error)
    return min(flat, key=lambda error: 0 if isinstance(error, Fenced) else 1 if isinstance(error, SandboxGone) else 2)
