"""What the loop asks of the world: a Model, a Sandbox, a Journal and a Desk. `services/runner` has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from msgspec import Struct

from protocol.journal import AnyJournalEvent, JournalEntry, ModelReply
from protocol.task import Budget, Question, Usage


class Fenced(Exception):
    """The attempt is over: another decision was made about the turn. Whoever sees this stops and writes nothing."""


class TurnFailed(Exception):
    """The turn cannot go on. `reason` is a sentence a person can act on; `retry_after_seconds` says when another
    attempt may help, None that none will. `usage` is what the turn has spent so far."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage or Usage()


class DaySpent(TurnFailed):
    """The user's money for the day does not suffice for the next step: the turn can go on when there is more."""


class ModelError(Exception):
    """The model did not answer. `retry_after_seconds` is None where the same request will fail again, and 0 where the
    API named no time; `usage` is what the broken call must be taken to have cost."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage or Usage()


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One request, in the Messages API's own shapes."""

    model: str
    system: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    max_tokens: int


OnDelta = Callable[[str, str], Awaitable[None]]
"""Called with a channel (`text`, `thinking`, `input`) and a piece of text as it arrives."""


class Model(Protocol):
    """Something that speaks the Messages API."""

    scripted: bool
    quiet_seconds: float
    """A reply of which nothing comes for so long breaks off by itself."""

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        """One streamed message. Raises ModelError."""
        ...

    def most_it_can_cost(self, request: ModelRequest) -> Usage:
        """An upper bound of the request's tokens and cost, reserved before it is made."""
        ...


class CommandResult(Protocol):
    """How a command ended; `sandbox.contract.ExecResult` is one."""

    @property
    def exit_code(self) -> int | None: ...
    @property
    def output(self) -> str: ...
    @property
    def dropped_bytes(self) -> int: ...
    @property
    def ended_by(self) -> str: ...
    @property
    def cwd(self) -> str: ...
    @property
    def shell(self) -> str: ...


class Process(Protocol):
    """A background process; `sandbox.contract.Process` is one."""

    @property
    def number(self) -> int: ...
    @property
    def command(self) -> str: ...
    @property
    def running(self) -> bool: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def ended_by(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def unread_bytes(self) -> int: ...
    @property
    def output(self) -> str: ...
    @property
    def dropped_bytes(self) -> int: ...


class SandboxGone(Exception):
    """The sandbox died, under a call (its outcome is unknown) or before it."""


class SandboxRefused(Exception):
    """The sandbox could not do what was asked and lives on, as with too large a file. The model reads the message."""


class Sandbox(Protocol):
    """Where tools act. `/workspace` is the clone of the repository.

    Every method raises SandboxGone or SandboxRefused; `read` and `write` also FileNotFoundError, IsADirectoryError,
    NotADirectoryError and PermissionError.
    """

    async def exec(
        self,
        command: str,
        *,
        cwd: str = ...,
        environment: Mapping[str, str] | None = ...,
        timeout_seconds: float = ...,
        output_limit_bytes: int = ...,
        on_output: Callable[[str], Awaitable[None]] | None = ...,
    ) -> CommandResult: ...

    async def shell(
        self,
        command: str,
        *,
        timeout_seconds: float = ...,
        output_limit_bytes: int = ...,
        on_output: Callable[[str], Awaitable[None]] | None = ...,
        name: str = ...,
    ) -> CommandResult:
        """In the sandbox's one bash. `cwd` and `shell` of the result tell where it is, and whether it is `kept`, `new`
        because the last one had ended, or has `ended`."""
        ...

    async def resume(
        self,
        name: str,
        *,
        timeout_seconds: float = ...,
        output_limit_bytes: int = ...,
        on_output: Callable[[str], Awaitable[None]] | None = ...,
    ) -> CommandResult | None:
        """How the command of the shell ends that another attempt began by this `name`; None when it never came to the
        sandbox."""
        ...

    async def restart_shell(self) -> None: ...

    async def start_process(self, command: str) -> Process: ...

    async def processes(self) -> Sequence[Process]: ...

    async def read_process(self, number: int) -> Process:
        """With its output since it was last read."""
        ...

    async def stop_process(self, number: int) -> Process: ...

    async def read(self, path: str, limit_bytes: int = ...) -> bytes: ...

    async def write(self, path: str, data: bytes) -> None: ...

    async def save(self, step: int) -> None:
        """Make a checkpoint of the workspace as it is after `step` and journal it. Where nothing changed, the last
        checkpoint is journalled again with the new step, without a bundle: a resume then knows that nothing is lost."""
        ...


SandboxReady = Callable[[], Awaitable[Sandbox]]
"""Waits until the sandbox has started; called again it gives the same one. SandboxGone when that has died. What else
it raises ends the attempt as it is."""


class UserMessage(Struct, frozen=True, kw_only=True):
    """A message of the user; number 0 is the prompt. `turn` is the turn it belongs to or opened."""

    number: int
    text: str
    turn: int


class Journal(Protocol):
    """The attempt's log, and what was logged before it. Appends are safe side by side and keep their order."""

    attempt: int

    @property
    def entries(self) -> Sequence[JournalEntry]:
        """The whole task's journal so far, earlier turns and attempts included, ours as they are appended."""
        ...

    @property
    def messages(self) -> Sequence[UserMessage]:
        """All messages of the user that are known by now; grows while the attempt runs."""
        ...

    @property
    def budget(self) -> Budget:
        """What the user lets the turn spend, as far as is known by now; may change while the attempt runs."""
        ...

    async def append(self, event: AnyJournalEvent) -> None:
        """Durable when it returns. Raises Fenced."""
        ...

    async def preview(self, step: int, text: str, channel: str) -> None:
        """Show a piece of a running step's output. May be dropped."""
        ...


class Verdict(Struct, frozen=True, kw_only=True):
    """What the user decided over what the agent asked to do."""

    approved: bool
    reason: str = ""


class Desk(Protocol):
    """What the agent can ask of people and services."""

    async def ask(self, question: Question) -> str:
        """The user's answer, which may take days. A question with an id that was asked before is not asked twice. It
        may raise whatever ends the attempt instead (the runner parks it): the next one asks again with the same id."""
        ...

    async def approve(self, question: Question) -> Verdict:
        """As `ask`, of a question that is approved or denied."""
        ...


class Clock(Protocol):
    """The time, so that a test need not wait."""

    def now(self) -> datetime:
        """UTC, as in the journal."""
        ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class TurnResult(Struct, frozen=True, kw_only=True):
    """The turn did what was asked, as far as the model says."""

    summary: str
    """For the user, Markdown."""
    commit_message: str
    """Subject line, and a body where there is more to say. Says that it was scripted where it was."""
    usage: Usage
    """Of the whole turn, lost attempts included."""
