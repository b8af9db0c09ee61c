"""The folds: state + event -> state. Pure; the scheduler, the gateway and the history fold the same events by these."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import assert_never

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from protocol.evolve_schedules import evolve_schedules, with_progress
from protocol.journal import AttemptStarted, JournalEntry, ModelReply, StepFinished, StepLost
from protocol.receipts import with_receipt, with_user_receipt
from protocol.rules import Rule
from protocol.schedule import Schedule
from protocol.secret import Secret, key_of
from protocol.task import (
    DEFAULT_QUEUE,
    OUTCOMES,
    AnyTaskEvent,
    AttemptClaimed,
    AttemptEnd,
    AttemptEnded,
    Budget,
    BudgetSet,
    Decision,
    MessageSent,
    PrioritySet,
    Published,
    Question,
    QuestionAnswered,
    QuestionRaised,
    Receipt,
    TaskArchived,
    TaskDelayed,
    TaskPaused,
    TaskQueued,
    TaskRestored,
    TaskResumed,
    TaskState,
    TaskSubmitted,
    TaskTagged,
    Terms,
    TurnEnded,
    TurnOpened,
    Usage,
    is_of_a_runner,
)
from protocol.user import (
    AnyUserEvent,
    BulkBegun,
    DailyLimitSet,
    DeviceAdded,
    DeviceRemoved,
    GithubForgotten,
    GithubLinked,
    GithubTokensRotated,
    HostAdded,
    HostRemoved,
    LogFolded,
    PushSubscriptionAdded,
    PushSubscriptionRemoved,
    QueueSet,
    Role,
    RulesSet,
    RunEnded,
    ScheduleAdded,
    ScheduleFired,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    SecretRemoved,
    SecretSet,
    Settings,
    SettingsSet,
    SignInCodeCreated,
    SignInCodeRedeemed,
    UserAdded,
    UserDecision,
    UserRemoved,
)

SPENT_KEPT = timedelta(days=2)
"""Longer than any day is, in whatever time zone."""


class Holder(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Who holds the running attempt."""

    attempt: int
    runner: str
    request: str
    labels: tuple[str, ...] = ()
    """What the runner has."""
    terms: Terms = Terms()


class Task(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A task as its decisions made it."""

    id: str
    user: str
    state: TaskState = TaskState.QUEUED
    prompt: str = ""
    repository: str = ""
    base: str = ""
    model: str = ""
    budget: Budget = Budget()
    title: str = ""
    queue: str = DEFAULT_QUEUE
    labels: tuple[str, ...] = ()
    """What its runner must have."""
    priority: int = 0
    pull_request: bool = True
    """Whether its work is offered as a pull request."""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    fork_of: str = ""
    """The task whose work it started from."""
    rules: tuple[Rule, ...] = ()
    """What it asks before, whatever the user's own rules say."""
    start_at: datetime | None = None
    queue_seconds: float | None = None
    turn_seconds: float | None = None
    schedule: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    queued_at: datetime | None = None
    in_line_since: datetime | None = None
    """From when its wait counts: a turn that had begun keeps its place when it is queued again."""
    claimed_at: datetime | None = None
    """When a runner last got it."""
    turn: int = 0
    """The open turn, or the last one."""
    turn_opened_at: datetime | None = None
    """Since when a runner could have begun the turn: where there is a start date, since then."""
    attempt: int = 0
    """The highest attempt so far."""
    turn_attempts: int = 0
    """Attempts of this turn that ended without its end: lease lost or failed."""
    holder: Holder | None = None
    messages: int = 0
    """How many the user sent after the prompt."""
    messages_before: int = 0
    """How many of them the open turn began with."""
    question: Question | None = None
    asked_at: datetime | None = None
    delayed_until: datetime | None = None
    day_usd: float | None = None
    """Delayed because so much was left of the user's money for the day: more of it moves it on at once."""
    reason: str = ""
    """Why it waits, is delayed, failed or was cancelled."""
    summary: str = ""
    published: Published | None = None
    usage: Usage = Usage()
    """Of all ended turns."""
    archive: str = ""
    """Where the older part of its log is, once it was archived."""
    archived_at: datetime | None = None
    """None also for one that was archived and goes on."""
    checkpoint: str = ""
    """Of an archived one: the blob from which its workspace is made again."""
    ignored: str = ""
    """The same of the files that git ignores."""
    turn_usage: Usage = Usage()
    """Of the open turn, as far as its attempts have ended."""
    spent: dict[datetime, float] = {}
    """What was spent in each quarter of an hour, in dollars; by the end of the attempt that spent it, for two days."""
    receipts: dict[str, Receipt] = {}
    """Of all its users' commands and timers, and of what a runner sent since the last attempt was claimed."""
    answered: int = 0
    """The stream sequence of the last command that has a receipt here."""

    @property
    def is_open(self) -> bool:
        """Whether a turn is open."""
        return self.turn > 0 and self.state not in OUTCOMES

    @property
    def has_begun(self) -> bool:
        """Whether a runner had the turn."""
        return bool(self.claimed_at and self.in_line_since and self.claimed_at >= self.in_line_since)


def evolve(task: Task, decision: Decision) -> Task:
    """`task` after `decision`. A task that no event was seen of starts as `Task(id=..., user=...)`."""
    for event in decision.events:
        task = _apply(task, event, decision.at)
    # To be put away is no change that a list should show first.
    is_archived = any(isinstance(event, TaskArchived) for event in decision.events)
    return replace(
        task,
        receipts=with_receipt(task.receipts, decision.receipt),
        answered=max(task.answered, decision.command_sequence),
        updated_at=task.updated_at if is_archived else decision.at,
    )


def _apply(task: Task, event: AnyTaskEvent, at: datetime) -> Task:
    match event:
        case TaskSubmitted():
            return replace(
                task,
                prompt=event.prompt,
                repository=event.repository,
                base=event.base,
                model=event.model,
                budget=event.budget,
                title=event.title,
                queue=event.queue,
                labels=event.labels,
                priority=event.priority,
                pull_request=event.pull_request,
                tags=event.tags,
                metadata=event.metadata,
                fork_of=event.fork_of,
                rules=event.rules,
                start_at=event.start_at,
                queue_seconds=event.queue_seconds,
                turn_seconds=event.turn_seconds,
                schedule=event.schedule,
                created_at=at,
                queued_at=at,
                in_line_since=at,
                turn=1,
                turn_opened_at=max(at, event.start_at or at),
                state=TaskState.QUEUED,
            )
        case TaskTagged():
            return replace(task, tags=event.tags, metadata=event.metadata)
        case MessageSent():
            return replace(task, messages=event.message)
        case TurnOpened():
            return replace(
                task,
                turn=event.turn,
                turn_opened_at=at,
                turn_attempts=0,
                turn_usage=Usage(),
                messages_before=task.messages,
                state=TaskState.QUEUED,
                queued_at=at,
                in_line_since=at,
                reason="",
                summary="",
            )
        case AttemptClaimed():
            holder = Holder(
                attempt=event.attempt,
                runner=event.runner,
                request=event.request,
                labels=event.labels,
                terms=event.terms,
            )
            kept = {key: receipt for key, receipt in task.receipts.items() if not is_of_a_runner(key)}
            return replace(
                task,
                attempt=event.attempt,
                holder=holder,
                state=TaskState.RUNNING,
                reason="",
                claimed_at=at,
                receipts=kept,
            )
        case BudgetSet():
            return replace(task, budget=event.budget)
        case PrioritySet():
            return replace(task, priority=event.priority)
        case AttemptEnded():
            ended_early = event.how in (AttemptEnd.FAILED, AttemptEnd.LEASE_LOST)
            task = _spend(task, event.usage, at)
            return replace(task, holder=None, turn_attempts=task.turn_attempts + ended_early)
        case TaskQueued():
            return replace(
                task,
                state=TaskState.QUEUED,
                queued_at=at,
                in_line_since=task.in_line_since if task.has_begun else at,
                reason=event.reason,
                delayed_until=None,
                day_usd=None,
            )
        case TaskDelayed():
            task = replace(task, delayed_until=event.until, day_usd=event.day_usd)
            return _moved(task, TaskState.DELAYED, event.reason)
        case TaskPaused():
            return replace(task, state=TaskState.PAUSED, reason=event.reason)
        case TaskResumed() if task.question is not None:
            return replace(task, state=TaskState.WAITING, reason=task.question.text)
        case TaskResumed():
            return replace(task, state=TaskState.RUNNING, reason="")
        case QuestionRaised():
            return _moved(replace(task, question=event.question, asked_at=at), TaskState.WAITING, event.question.text)
        case QuestionAnswered():
            # A runner that still holds the attempt goes on at once; without one a `TaskQueued` follows.
            return _moved(replace(task, question=None, asked_at=None), TaskState.RUNNING, "")
        case TurnEnded():
            task = _spend(task, event.usage, at)
            return replace(
                task,
                state=event.outcome,
                summary=event.summary,
                reason=event.reason,
                published=_published(task.published, event.published),
                usage=task.usage + event.usage,
                question=None,
                asked_at=None,
                delayed_until=None,
                day_usd=None,
            )
        case TaskArchived():
            folded = msgspec.convert(event.fold, Task) if event.fold else task
            return replace(
                folded, archive=event.archive, checkpoint=event.checkpoint, ignored=event.ignored, archived_at=at
            )
        case TaskRestored():
            return replace(task, archived_at=None)
        case _:
            assert_never(event)


def _moved(task: Task, state: TaskState, reason: str) -> Task:
    """Only the user moves a paused task on: what happens to it meanwhile shows when it is resumed."""
    return task if task.state is TaskState.PAUSED else replace(task, state=state, reason=reason)


def _spend(task: Task, usage: Usage, at: datetime) -> Task:
    """`usage` is of the whole turn; one that ended without its runner's word may tell less than is known."""
    cost = usage.cost_usd - task.turn_usage.cost_usd
    # A model without a price still has its tokens counted.
    task = replace(task, turn_usage=task.turn_usage.at_least(usage))
    if cost <= 0:
        return task
    quarter = at.replace(minute=at.minute // 15 * 15, second=0, microsecond=0)
    kept = {then: spent for then, spent in task.spent.items() if at - then < SPENT_KEPT}
    return replace(task, spent=kept | {quarter: kept.get(quarter, 0.0) + cost})


def _published(before: Published | None, now: Published | None) -> Published | None:
    """A pull request stays the branch's, also where a later turn could not speak to the host."""
    if before is None or now is None or now.pull_request is not None:
        return now or before
    return replace(now, pull_request=before.pull_request)


def usage_of_turn(entries: Iterable[JournalEntry], turn: int) -> Usage:
    """What the model calls of one turn consumed, over all of its attempts, by the task's journal."""
    current, total = 0, Usage()
    for entry in entries:
        match entry.event:
            case AttemptStarted():
                current = entry.event.turn
            case StepFinished(result=ModelReply(usage=usage) | StepLost(usage=usage)) if current == turn:
                total += usage
    return total


class PushSubscription(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where a device is told of what happens, sealed for the gateways."""

    id: str
    sealed: str


class Device(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    id: str
    name: str
    token_hash: str
    added_at: datetime
    push: PushSubscription | None = None


class Host(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A git host's credential, sealed."""

    host: str
    kind: str
    username: str = ""
    sealed: str
    shared: bool = False


class Github(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A GitHub account with its tokens, sealed."""

    host: str
    account: int
    login: str
    listed: str
    sealed: str


class QueueSettings(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """How the owner wants a queue to be served."""

    paused: bool = False
    running_limit: int | None = None
    """None is the scheduler's own setting."""


class User(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A user as the user's log made it."""

    id: str
    name: str = ""
    role: Role = Role.USER
    added_at: datetime | None = None
    removed_at: datetime | None = None
    devices: dict[str, Device] = {}
    codes: dict[str, datetime] = {}
    """Unused sign-in codes by hash, with the time they end."""
    hosts: dict[str, Host] = {}
    secrets: dict[str, Secret] = {}
    """By `protocol.secret.key_of`."""
    github: Github | None = None
    schedules: dict[str, Schedule] = {}
    queues: dict[str, QueueSettings] = {}
    """In the owner's log: those that are not served as all others."""
    rules: tuple[Rule, ...] = ()
    settings: Settings = Settings()
    daily_usd: float | UnsetType | None = UNSET
    """What the owner allows the user to spend in a day; absent means the installation's default, null unlimited."""
    receipts: dict[str, Receipt] = {}
    answered: int = 0

    @property
    def exists(self) -> bool:
        return self.added_at is not None and self.removed_at is None


def evolve_user(user: User, decision: UserDecision) -> User:
    """`user` after `decision`; starts as `User(id=...)`."""
    for event in decision.events:
        user = _apply_to_user(user, event, decision.at)
    receipts = user.receipts
    if decision.receipt is not None:
        receipts = with_user_receipt(receipts, decision.receipt, decision.at)
    return replace(user, receipts=receipts, answered=max(user.answered, decision.command_sequence))


def _apply_to_user(user: User, event: AnyUserEvent, at: datetime) -> User:
    match event:
        case UserAdded():
            return replace(user, name=event.name, role=event.role, added_at=at)
        case UserRemoved():
            return replace(user, removed_at=at, devices={}, codes={}, hosts={}, secrets={}, github=None, schedules={})
        case SignInCodeCreated():
            unexpired = {code: end for code, end in user.codes.items() if end > at}
            return replace(user, codes={**unexpired, event.code_hash: event.expires_at})
        case SignInCodeRedeemed():
            return replace(user, codes={code: end for code, end in user.codes.items() if code != event.code_hash})
        case DeviceAdded():
            device = Device(id=event.device, name=event.device_name, token_hash=event.token_hash, added_at=at)
            return replace(user, devices={**user.devices, event.device: device})
        case DeviceRemoved():
            return replace(user, devices={key: d for key, d in user.devices.items() if key != event.device})
        case HostAdded():
            host = Host(
                host=event.host,
                kind=event.kind,
                username=event.username,
                sealed=event.sealed,
                shared=event.shared,
            )
            return replace(user, hosts={**user.hosts, event.host: host})
        case HostRemoved():
            return replace(user, hosts={key: h for key, h in user.hosts.items() if key != event.host})
        case SecretSet():
            secret = Secret(name=event.name, repository=event.repository, sealed=event.sealed, set_at=at)
            return replace(user, secrets={**user.secrets, key_of(event.name, event.repository): secret})
        case SecretRemoved():
            gone = key_of(event.name, event.repository)
            return replace(user, secrets={key: kept for key, kept in user.secrets.items() if key != gone})
        case PushSubscriptionAdded():
            return _with_push(user, event.device, PushSubscription(id=event.subscription, sealed=event.sealed))
        case PushSubscriptionRemoved():
            return _with_push(user, event.device, None)
        case GithubLinked():
            github = Github(
                host=event.host,
                account=event.account,
                login=event.login,
                listed=event.listed,
                sealed=event.sealed,
            )
            return replace(user, github=github)
        case GithubTokensRotated():
            return replace(user, github=replace(user.github, sealed=event.sealed)) if user.github else user
        case GithubForgotten():
            return replace(user, github=None)
        case ScheduleAdded() | ScheduleRemoved() | SchedulePaused() | ScheduleResumed() | ScheduleFired() | RunEnded():
            return replace(user, schedules=evolve_schedules(user.schedules, event, at))
        case QueueSet():
            given = QueueSettings(paused=event.paused, running_limit=event.running_limit)
            others = {name: queue for name, queue in user.queues.items() if name != event.queue}
            return replace(user, queues=others if given == QueueSettings() else {**others, event.queue: given})
        case RulesSet():
            return replace(user, rules=event.rules)
        case SettingsSet():
            return replace(user, settings=event.settings)
        case DailyLimitSet():
            return replace(user, daily_usd=event.daily_usd)
        case LogFolded():
            return _with_routine(user, event)
        case BulkBegun():
            return user  # the receipt of its command says that it was
        case _:
            assert_never(event)


def _with_routine(user: User, event: LogFolded) -> User:
    return replace(
        user,
        schedules=with_progress(user.schedules, event.schedules),
        github=replace(user.github, sealed=event.github_sealed) if user.github else None,
        receipts={receipt.key: receipt for receipt in event.receipts},
        answered=max(user.answered, event.answered),
    )


def _with_push(user: User, device: str, push: PushSubscription | None) -> User:
    if device not in user.devices:
        return user
    return replace(user, devices={**user.devices, device: replace(user.devices[device], push=push)})
