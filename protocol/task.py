"""A task's life: the commands that may change it and the events that did."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from protocol.base import Message, Part, reader
from protocol.rules import Rule

REPOSITORY_LIMIT_CHARS = 1_000
APPROVAL_LIMIT_CHARS = 16_000
"""Of what is to be approved, so much is shown; a longer one is cut in its middle, and says so."""
MESSAGES_LIMIT = 1_000
"""Messages one task takes over its life; the next one is rejected."""
PRIORITY_LIMIT = 10
"""Priorities reach from minus this to this; 0 is the usual one."""
LABELS_LIMIT = 8
"""Labels a task may ask for, and a runner may have."""
DEFAULT_QUEUE = "default"


WAIT_LIMIT_SECONDS = 366 * 86_400.0
"""The longest that a task may be told to wait, for its start or for anything else."""


class TaskState(StrEnum):
    """Where a task stands. Each line says who moves it on, and what happens when that actor dies."""

    QUEUED = "queued"
    """Waits for a free slot. The scheduler moves it on when a runner claims; another scheduler does when that one
    dies."""
    RUNNING = "running"
    """A runner holds the attempt. It moves the task on by its commands; when its lease of 5 s ends, the scheduler
    queues it again."""
    WAITING = "waiting"
    """Asked the user. An answer moves it on; a runner may still hold the attempt, and when it dies the question
    stays."""
    DELAYED = "delayed"
    """Waits until a time: its start date, or when a passing failure may be over. A JetStream schedule moves it on,
    which the server keeps over any process's death."""
    PAUSED = "paused"
    """Held back by the user, who moves it on and may do so from any device. A runner that held the attempt saves the
    work and gives it back; when it dies first, its lease ends the attempt and the task stays here."""
    SUCCEEDED = "succeeded"
    """The last turn did what was asked. A message from the user opens the next turn."""
    FAILED = "failed"
    """The last turn ended with a reason to act on. A message from the user opens the next turn."""
    CANCELLED = "cancelled"
    """The user stopped the last turn. A message from the user opens the next turn."""


OUTCOMES = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})
"""The states in which no turn is open."""


class Budget(Part, frozen=True):
    """What one turn may spend. Zero means zero, absent means the configured default, null means unlimited."""

    money_usd: float | UnsetType | None = UNSET
    tokens: int | UnsetType | None = UNSET
    """Input and output tokens together, cached ones included."""
    steps: int | UnsetType | None = UNSET
    """Model calls and tool calls together."""
    wall_seconds: float | UnsetType | None = UNSET

    def over(self, other: Budget) -> Budget:
        """This one, and `other` where this one says nothing."""
        own = {name: getattr(self, name) for name in self.__struct_fields__}
        return Budget(**{name: getattr(other, name) if value is UNSET else value for name, value in own.items()})


DEFAULT_BUDGET = Budget(money_usd=5.0, tokens=5_000_000, steps=500, wall_seconds=7200.0)
"""Where neither the task nor the user says anything."""


class Usage(Part, frozen=True):
    """What model calls consumed."""

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})

    def at_least(self, other: Usage) -> Usage:
        """Of each the more: what is known stays so."""
        return Usage(**{name: max(getattr(self, name), getattr(other, name)) for name in self.__struct_fields__})

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens + self.output_tokens


class QuestionKind(StrEnum):
    """What the user is asked for."""

    ANSWER = "answer"
    """Words: `AnswerQuestion`."""
    APPROVAL = "approval"
    """Whether a tool call may be made: `ApproveQuestion` or `DenyQuestion`."""
    PLAN = "plan"
    """Whether the plan in the text is to be carried out: `ApproveQuestion` or `DenyQuestion`."""


class Question(Part, frozen=True):
    """What the agent needs from the user."""

    id: str
    text: str
    choices: tuple[str, ...] = ()
    """Suggested answers; free text is always allowed."""
    kind: QuestionKind = QuestionKind.ANSWER
    tool: str = ""
    """For an approval: the tool that is to be used, as rules name it."""
    input: str = ""
    """For an approval: what the tool is given, as a person reads it."""
    deadline_seconds: float | None = None
    """How long the user has. Then the default is the answer; where there is none, the turn fails."""
    default_answer: str = ""


class PullRequest(Part, frozen=True):
    """What asks for the work to be merged."""

    number: int
    url: str
    """For people."""
    draft: bool = False


class Published(Part, frozen=True):
    """Where a turn's work went."""

    branch: str
    commit: str
    base_commit: str
    pushed_to: str
    """The remote, without credentials."""
    files_changed: int = 0
    insertions: int = 0
    deletions: int = 0
    pull_request: PullRequest | None = None


# Commands. Each carries an idempotency key: sent twice, it is done once and has one receipt.


class TaskCommand(Message, frozen=True):
    key: str
    """The idempotency key, chosen by the sender; unique within the task."""


class SubmitTask(TaskCommand, frozen=True):
    """From the gateway: open a task with its first turn."""

    prompt: str
    repository: str
    """A git URL, or a path on the server (the owner only)."""
    base: str = ""
    """The branch, tag or commit to start from; empty means the remote's default branch."""
    model: str = ""
    """Empty means the configured default."""
    budget: Budget = Budget()
    title: str = ""
    queue: str = DEFAULT_QUEUE
    """Whose runners it waits for."""
    labels: tuple[str, ...] = ()
    """What its runner must have: `gpu`, `arm64`."""
    priority: int = 0
    """Which of the user's own tasks goes first: -10 to 10, the higher the sooner. Waiting raises it."""
    pull_request: bool = True
    """Whether a pull request is opened once a branch was pushed, where the git host has them."""
    rules: tuple[Rule, ...] = ()
    """Before the user's own."""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    fork_of: str = ""
    """The task of the same user whose work this one starts from; empty for one that starts from the base."""
    start_at: datetime | None = None
    """Not before this time; none, or one that has passed, means now."""
    queue_seconds: float | None = None
    """A turn that no runner has begun so long after it could fails."""
    turn_seconds: float | None = None
    """A turn ends so long after it could begin, over all its attempts, whatever it waits for."""
    schedule: str = ""
    """The id of the user's schedule that made it."""


class SendMessage(TaskCommand, frozen=True):
    """From the gateway: steer the open turn, or open the next one."""

    text: str


class AnswerQuestion(TaskCommand, frozen=True):
    """From the gateway: the first to answer wins."""

    question: str
    text: str


class ApproveQuestion(TaskCommand, frozen=True):
    """From the gateway: what the agent asks to do, or its plan, is approved. The first decision wins."""

    question: str
    device: str = ""


class DenyQuestion(TaskCommand, frozen=True):
    """From the gateway: it is not approved; the agent is told so, and goes on."""

    question: str
    reason: str = ""
    """What to do instead."""
    device: str = ""


class CancelTask(TaskCommand, frozen=True):
    """From the gateway: end the open turn now."""

    reason: str = ""
    device: str = ""
    """The device that asks for it: the user's others are told."""


class SetBudget(TaskCommand, frozen=True):
    """From the gateway: what a turn may spend from now on. A running turn has it before its next step."""

    budget: Budget
    """What it says nothing of stays as it is."""


class SetPriority(TaskCommand, frozen=True):
    """From the gateway: this one sooner, or later, than the user's others."""

    priority: int


class PauseTask(TaskCommand, frozen=True):
    """From the gateway: hold the open turn back. Whoever runs it saves the work and gives it back; no attempt starts
    until the task is resumed. Messages, answers and a cancel are taken all the same."""

    reason: str = ""


class ResumeTask(TaskCommand, frozen=True):
    """From the gateway: a paused turn goes on from where it was."""


class RetryTask(TaskCommand, frozen=True):
    """From the gateway: open the next turn with the wish of the last one, which failed or was cancelled."""


class TagTask(TaskCommand, frozen=True):
    """From the gateway: mark the task, in any state, so that it is found again."""

    add: tuple[str, ...] = ()
    """Tags."""
    remove: tuple[str, ...] = ()
    """Tags; one that it does not have does not matter."""
    metadata: dict[str, str | None] = msgspec.field(default_factory=dict)
    """What to put under these names; null takes away what is there."""


class RaiseQuestion(TaskCommand, frozen=True):
    """From the runner that holds the attempt: the turn waits for the user."""

    attempt: int
    question: Question


class FinishAttempt(TaskCommand, frozen=True):
    """From the runner that holds the attempt: the turn did what was asked."""

    attempt: int
    journal_sequence: int
    """The last sequence of this attempt's journal: every reader can see a gap by itself."""
    summary: str
    usage: Usage
    """Of the whole turn, lost attempts included."""
    messages_read: int = 0
    """The highest message of the user that the model has seen; one after it opens the next turn at once."""
    published: Published | None = None
    """None when nothing was changed."""


class FailAttempt(TaskCommand, frozen=True):
    """From the runner that holds the attempt: it cannot go on."""

    attempt: int
    journal_sequence: int
    reason: str
    """A sentence that a person can act on."""
    retry_after_seconds: float | None = None
    """None: the turn ends here. Otherwise another attempt is made after so long, as long as attempts are left."""
    usage: Usage = Usage()
    messages_read: int = 0
    """The highest message of the user that the model has seen."""
    published: Published | None = None
    """What was committed before a limit was reached."""


class ParkAttempt(TaskCommand, frozen=True):
    """From the runner that holds the attempt: a question waits for long, so the sandbox is given back. The answer
    opens another attempt. A runner that is shut down sends it too, and then the task is queued again; and one whose
    user's money for the day is spent, and then the task waits for the next day."""

    attempt: int
    journal_sequence: int
    usage: Usage = Usage()
    day_is_spent: str = ""
    """A sentence that says so."""


class FireTimer(TaskCommand, frozen=True):
    """From a JetStream schedule. May come late or twice."""

    name: str
    due: datetime


class ArchiveTask(TaskCommand, frozen=True):
    """From the gateway: archive the ended task now, rather than when it is old."""


AnyTaskCommand = (
    SubmitTask
    | SendMessage
    | AnswerQuestion
    | ApproveQuestion
    | DenyQuestion
    | CancelTask
    | SetBudget
    | SetPriority
    | PauseTask
    | ResumeTask
    | RetryTask
    | TagTask
    | RaiseQuestion
    | FinishAttempt
    | FailAttempt
    | ParkAttempt
    | FireTimer
    | ArchiveTask
)


# Events. What one decision found to be so; they travel together in a `Decision`.


class TaskEvent(Message, frozen=True):
    """What became true of a task."""


class TaskSubmitted(TaskEvent, frozen=True):
    """The task exists and its first turn is open and queued."""

    prompt: str
    repository: str
    title: str
    base: str = ""
    model: str = ""
    budget: Budget = Budget()
    queue: str = DEFAULT_QUEUE
    labels: tuple[str, ...] = ()
    priority: int = 0
    pull_request: bool = True
    rules: tuple[Rule, ...] = ()
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    fork_of: str = ""
    """The task of the same user whose work this one starts from; empty for one that starts from the base."""
    start_at: datetime | None = None
    queue_seconds: float | None = None
    turn_seconds: float | None = None
    schedule: str = ""


class MessageSent(TaskEvent, frozen=True):
    """The user said something; `message` counts from 1 in the task, the prompt being message 0."""

    message: int
    text: str


class TurnOpened(TaskEvent, frozen=True):
    """A message came after an outcome, or the user asked to try again: the next turn is open and queued."""

    turn: int
    retries: int = 0
    """The turn whose wish this one repeats; 0 for one that a message opened."""


class Terms(Part, frozen=True):
    """What the user's log said when the attempt was claimed. It holds for the whole attempt."""

    model: str = ""
    """For a task that names none; empty means the runner's default."""
    budget: Budget = Budget()
    """For what the task says nothing of."""
    rules: tuple[Rule, ...] = ()
    """After the task's own."""
    day_usd: float | None = None
    """What the attempt may spend of the user's money for the day, set aside for it; None: there is no limit."""
    day_ends: datetime | None = None
    """Where there is a limit: when the user's day ends."""


class AttemptClaimed(TaskEvent, frozen=True):
    """A runner has the turn. The attempt's number fences whoever had it before."""

    attempt: int
    turn: int
    runner: str
    request: str
    """The claim's id: the same request gets the same attempt."""
    labels: tuple[str, ...] = ()
    """What the runner has."""
    terms: Terms = Terms()


class BudgetSet(TaskEvent, frozen=True):
    """What a turn may spend from now on."""

    budget: Budget


class PrioritySet(TaskEvent, frozen=True):
    """The task goes sooner or later than the user's others."""

    priority: int


class AttemptEnd(StrEnum):
    """How an attempt ended: by its runner's own word, or over its head."""

    FINISHED = "finished"
    FAILED = "failed"
    DEADLINE = "deadline"
    """The turn had its time."""
    PARKED = "parked"
    CANCELLED = "cancelled"
    LEASE_LOST = "lease_lost"

    @property
    def cuts_off(self) -> bool:
        """Whether the runner was not asked."""
        return self in (AttemptEnd.CANCELLED, AttemptEnd.LEASE_LOST, AttemptEnd.DEADLINE)


class AttemptEnded(TaskEvent, frozen=True):
    """The attempt's runner writes nothing more. The turn goes on as the event after it says."""

    attempt: int
    how: AttemptEnd
    reason: str = ""
    usage: Usage = Usage()


class TaskQueued(TaskEvent, frozen=True):
    """The open turn waits for a slot again."""

    reason: str


class TaskDelayed(TaskEvent, frozen=True):
    """The open turn is queued at `until`, its start date or another try; a paused one not before."""

    until: datetime
    reason: str
    day_usd: float | None = None
    """What was left of the user's money for the day, and was not enough: with more than that the turn goes on before
    `until`. None: it waits for something else."""


class TaskPaused(TaskEvent, frozen=True):
    """The open turn is held back. A runner that holds the attempt saves the work and gives it back."""

    reason: str


class TaskResumed(TaskEvent, frozen=True):
    """The open turn is held back no more: a question waits again, a runner that still holds the attempt has it. Else a
    `TaskQueued` or a `TaskDelayed` follows."""


class TaskTagged(TaskEvent, frozen=True):
    """All of the task's marks, as they are from now on."""

    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)


class QuestionRaised(TaskEvent, frozen=True):
    """The agent needs an answer; the turn waits."""

    question: Question


class QuestionAnswered(TaskEvent, frozen=True):
    """The first answer; the turn goes on with it."""

    question: str
    text: str
    """Of a denial, its reason."""
    approved: bool | None = None
    """None where words were asked for."""
    device: str = ""
    """The device that approved or denied."""
    by_deadline: bool = False
    """Nobody answered in time: it is the question's default."""


class TurnEnded(TaskEvent, frozen=True):
    """Each turn has exactly one."""

    turn: int
    outcome: TaskState
    summary: str = ""
    reason: str = ""
    """Why it failed or who cancelled; empty for a success."""
    device: str = ""
    """The device that cancelled."""
    published: Published | None = None
    usage: Usage = Usage()


class TaskArchived(TaskEvent, frozen=True):
    """Everything before this is in the archive and leaves the stream: a fold begins here, with `fold`. Its message
    names as the one before it the last event of the task, of either kind."""

    fold: dict[str, Any] = msgspec.field(default_factory=dict)
    """The task as it was (`Task` in protocol/evolve.py); a long prompt is cut."""
    archive: str = ""
    """The object's name in the bucket `archive`: JSON lines, one an event, in gzip."""
    until: int = 0
    """The sequence of the last event in it."""
    checkpoint: str = ""
    """The blob from which the workspace is made again; empty when nothing was changed."""
    ignored: str = ""
    """The same of the files that git ignores."""


class TaskRestored(TaskEvent, frozen=True):
    """An archived task goes on. What came before stays in the archive and is read from there."""


AnyTaskEvent = (
    TaskSubmitted
    | MessageSent
    | TurnOpened
    | AttemptClaimed
    | BudgetSet
    | PrioritySet
    | AttemptEnded
    | TaskQueued
    | TaskDelayed
    | TaskPaused
    | TaskResumed
    | TaskTagged
    | QuestionRaised
    | QuestionAnswered
    | TurnEnded
    | TaskArchived
    | TaskRestored
)


class ReceiptStatus(StrEnum):
    """How a command ended."""

    CONSUMED = "consumed"
    """It was carried out."""
    REJECTED = "rejected"
    """It changed nothing; the reason says why."""
    INDETERMINATE = "indeterminate"
    """It may have been carried out long ago, and was not now: a runner's word for an attempt that others came after, of
    which the receipts are not kept. No user's command ends so."""


class Receipt(Part, frozen=True):
    """How a command ended. A command that was stored has exactly one."""

    key: str
    status: ReceiptStatus
    reason: str = ""
    at: datetime | None = None
    """When it was given, where a user's log keeps it."""
    command: str = ""
    """What it was, as its subject names it: another one under the same key is not done. Empty in older receipts, and
    where it could not be read."""


class Decision(Message, frozen=True):
    """One message on `evt.<user>.<task>.task.<state>`: all that followed from one command, or from a lost lease."""

    at: datetime
    state: TaskState
    """What the events led to; the subject's last token."""
    events: tuple[AnyTaskEvent, ...] = ()
    receipt: Receipt | None = None
    command_sequence: int = 0
    """The stream sequence of the command that this answers; 0 when none was the cause."""
    journal_sequence: int = 0
    """Where this ended an attempt: the sequence of the last message of its journal, 0 when it wrote none."""


def is_of_a_runner(key: str) -> bool:
    """Whether a command is a runner's word, by its key: `finish 3` ends the attempt 3. A client's key has no space."""
    return key.partition(" ")[0] in ("ask", "finish", "fail", "park") and key[-1].isdigit()


decode_decision = reader(msgspec.json.Decoder(Decision).decode)
decode_task_command = reader(msgspec.json.Decoder(AnyTaskCommand).decode)
