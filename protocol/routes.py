"""Every subject of the house: what travels on it, who sends, who receives. Permissions, the protocol page, AsyncAPI
and the tests are made from this one table."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar, get_args

from msgspec import Struct, ValidationError

from protocol import history, journal, query, repo, task, user
from protocol.base import tag_of


class Service(StrEnum):
    """Who connects to NATS; each has its own credential."""

    GATEWAY = "gateway"
    SCHEDULER = "scheduler"
    RUNNER = "runner"
    REPOS = "repos"
    HISTORY = "history"
    OPERATOR = "operator"
    """`errand up` and `errand doctor` on the server itself: makes the streams, adds the owner."""
    READER = "reader"
    """`errand nats-context`: people with the `nats` CLI who trace events; may send nothing."""


class Stream(StrEnum):
    TASKS = "TASKS"
    OUTPUT = "OUTPUT"
    DEAD = "DEAD"


class Route(Struct, frozen=True, kw_only=True):
    """One subject with its messages. `<name>` in a subject stands for one token."""

    subject: str
    messages: tuple[type, ...]
    replies: tuple[type, ...] = ()
    """For a query: what may come back, besides `Refusal`."""
    stream: Stream | None = None
    senders: tuple[Service, ...]
    receivers: tuple[Service, ...]
    doc: str

    @property
    def wildcard(self) -> str:
        """The subject as NATS writes it: `evt.<user>.<task>.task.<state>` -> `evt.*.*.task.*`."""
        return ".".join("*" if token.startswith("<") else token for token in self.subject.split("."))


C = TypeVar("C", bound=Struct)
S = Service


def _task_command(command: type, senders: tuple[Service, ...]) -> Route:
    return Route(
        subject=f"cmd.<user>.<task>.{tag_of(command)}",
        messages=(command,),
        stream=Stream.TASKS,
        senders=senders,
        receivers=(S.SCHEDULER,),
        doc=_doc(command),
    )


def _user_command(command: type, senders: tuple[Service, ...]) -> Route:
    return Route(
        subject=f"cmd.<user>.user.{tag_of(command)}",
        messages=(command,),
        stream=Stream.TASKS,
        senders=senders,
        receivers=(S.SCHEDULER,),
        doc=_doc(command),
    )


def _query(service: Service, asked: type, replies: tuple[type, ...], senders: tuple[Service, ...]) -> Route:
    return Route(
        subject=f"qry.{service}.{tag_of(asked)}",
        messages=(asked,),
        replies=replies,
        senders=senders,
        receivers=(service,),
        doc=_doc(asked),
    )


def _doc(message: type) -> str:
    return " ".join((message.__doc__ or "").split())


ROUTES: tuple[Route, ...] = (
    _task_command(task.SubmitTask, (S.GATEWAY, S.SCHEDULER)),
    _task_command(task.SendMessage, (S.GATEWAY,)),
    _task_command(task.AnswerQuestion, (S.GATEWAY,)),
    _task_command(task.ApproveQuestion, (S.GATEWAY,)),
    _task_command(task.DenyQuestion, (S.GATEWAY,)),
    _task_command(task.CancelTask, (S.GATEWAY,)),
    _task_command(task.SetBudget, (S.GATEWAY,)),
    _task_command(task.SetPriority, (S.GATEWAY,)),
    _task_command(task.PauseTask, (S.GATEWAY,)),
    _task_command(task.ResumeTask, (S.GATEWAY,)),
    _task_command(task.RetryTask, (S.GATEWAY,)),
    _task_command(task.TagTask, (S.GATEWAY,)),
    _task_command(task.RaiseQuestion, (S.RUNNER,)),
    _task_command(task.FinishAttempt, (S.RUNNER,)),
    _task_command(task.FailAttempt, (S.RUNNER,)),
    _task_command(task.ParkAttempt, (S.RUNNER,)),
    _task_command(task.FireTimer, (S.SCHEDULER,)),
    _task_command(task.ArchiveTask, (S.GATEWAY,)),
    _user_command(user.AddUser, (S.GATEWAY, S.OPERATOR)),
    _user_command(user.RemoveUser, (S.GATEWAY,)),
    _user_command(user.CreateSignInCode, (S.GATEWAY, S.OPERATOR)),
    _user_command(user.RedeemSignInCode, (S.GATEWAY,)),
    _user_command(user.AddDevice, (S.OPERATOR,)),
    _user_command(user.RemoveDevice, (S.GATEWAY,)),
    _user_command(user.AddHost, (S.GATEWAY,)),
    _user_command(user.RemoveHost, (S.GATEWAY,)),
    _user_command(user.SetSecret, (S.GATEWAY,)),
    _user_command(user.RemoveSecret, (S.GATEWAY,)),
    _user_command(user.AddPushSubscription, (S.GATEWAY,)),
    _user_command(user.RemovePushSubscription, (S.GATEWAY,)),
    _user_command(user.SignInByGithub, (S.GATEWAY,)),
    _user_command(user.RotateGithubTokens, (S.REPOS,)),
    _user_command(user.ForgetGithub, (S.GATEWAY,)),
    _user_command(user.BeginBulk, (S.GATEWAY,)),
    _user_command(user.SetQueue, (S.GATEWAY,)),
    _user_command(user.SetRules, (S.GATEWAY,)),
    _user_command(user.SetSettings, (S.GATEWAY,)),
    _user_command(user.SetDailyLimit, (S.GATEWAY,)),
    _user_command(user.AddSchedule, (S.GATEWAY,)),
    _user_command(user.RemoveSchedule, (S.GATEWAY,)),
    _user_command(user.PauseSchedule, (S.GATEWAY,)),
    _user_command(user.ResumeSchedule, (S.GATEWAY,)),
    _user_command(user.FireSchedule, (S.SCHEDULER,)),
    _user_command(user.EndRun, (S.SCHEDULER,)),
    Route(
        subject="evt.<user>.<task>.task.<state>",
        messages=(task.Decision,),
        stream=Stream.TASKS,
        senders=(S.SCHEDULER,),
        receivers=(S.SCHEDULER, S.GATEWAY, S.RUNNER, S.HISTORY, S.READER),
        doc="A decision over a task: its events and the receipt; the last token is the state it led to.",
    ),
    Route(
        subject="evt.<user>.<task>.journal.<kind>",
        messages=(journal.JournalEntry,),
        stream=Stream.TASKS,
        senders=(S.RUNNER,),
        receivers=(S.GATEWAY, S.RUNNER, S.HISTORY, S.READER),
        doc="An entry of an attempt's journal; the last token is the entry's kind.",
    ),
    Route(
        subject="evt.<user>.user.<kind>",
        messages=(user.UserDecision,),
        stream=Stream.TASKS,
        senders=(S.SCHEDULER,),
        receivers=(S.SCHEDULER, S.GATEWAY, S.REPOS, S.HISTORY),
        doc="A decision over a user: devices, sign-in codes, credentials, GitHub; secrets are hashed or sealed.",
    ),
    Route(
        subject="timer.<owner>.<name>",
        messages=(task.FireTimer, user.FireSchedule),
        stream=Stream.TASKS,
        senders=(S.SCHEDULER,),
        receivers=(S.SCHEDULER,),
        doc="A JetStream message schedule; fires as the command that it carries.",
    ),
    Route(
        subject="out.<user>.<task>",
        messages=(journal.Output,),
        stream=Stream.OUTPUT,
        senders=(S.RUNNER,),
        receivers=(S.GATEWAY, S.READER),
        doc="Previews of a running step: text deltas, tool output. Kept for minutes, may be dropped.",
    ),
    Route(
        subject="printed.<user>.<task>",
        messages=(query.AskPrinted,),
        replies=(query.Printed,),
        senders=(S.GATEWAY,),
        receivers=(S.RUNNER,),
        doc="What the running steps have put out so far. Nobody has its attempt, nobody answers.",
    ),
    Route(
        subject="look.<user>.<device>",
        messages=(query.AskLooking,),
        replies=(query.DeviceLooks,),
        senders=(S.GATEWAY,),
        receivers=(S.GATEWAY,),
        doc="Whether the device's page is on the screen. The interest is the presence: nobody looks, nobody answers.",
    ),
    Route(
        subject="dead.<stream>",
        messages=(query.Refusal,),
        stream=Stream.DEAD,
        senders=(S.SCHEDULER, S.GATEWAY, S.RUNNER, S.REPOS, S.HISTORY),
        receivers=(S.GATEWAY, S.READER, S.OPERATOR),
        doc="What could not be decoded or handled, as it came; its headers say why and where from.",
    ),
    _query(S.SCHEDULER, query.ClaimAttempt, (query.AttemptGranted, query.NothingToClaim), (S.RUNNER,)),
    _query(S.SCHEDULER, query.AskSpending, (query.Spending,), (S.GATEWAY,)),
    _query(S.SCHEDULER, query.ListTasks, (query.TaskList,), (S.GATEWAY,)),
    _query(S.SCHEDULER, query.ShowQueue, (query.QueueShown,), (S.GATEWAY,)),
    _query(S.REPOS, repo.CheckRepository, (repo.RepositoryKnown,), (S.GATEWAY,)),
    _query(S.REPOS, repo.ResolveBase, (repo.BaseResolved,), (S.RUNNER,)),
    _query(S.REPOS, repo.PrepareWorkspace, (repo.WorkspacePrepared,), (S.RUNNER,)),
    _query(S.REPOS, repo.ReleaseWorkspace, (repo.WorkspaceReleased,), (S.RUNNER,)),
    _query(S.REPOS, repo.Publish, (repo.PublishDone,), (S.RUNNER,)),
    _query(S.REPOS, repo.ShowDiff, (repo.Diff,), (S.GATEWAY,)),
    _query(S.REPOS, repo.AskSealingKey, (repo.SealingKey,), (S.GATEWAY,)),
    _query(S.REPOS, repo.LendSecrets, (repo.SecretsLent,), (S.RUNNER,)),
    _query(S.HISTORY, history.RunSql, (history.SqlAnswer,), (S.GATEWAY,)),
    _query(S.HISTORY, history.AskReached, (history.HistoryReached,), (S.SCHEDULER,)),
    *(
        _query(service, query.AskHealth, (query.Health,), (S.OPERATOR, S.GATEWAY))
        for service in (S.GATEWAY, S.SCHEDULER, S.RUNNER, S.REPOS, S.HISTORY)
    ),
    *(
        _query(service, query.AskInForce, (query.InForce,), (S.GATEWAY,))
        for service in (S.GATEWAY, S.SCHEDULER, S.RUNNER, S.REPOS, S.HISTORY)
    ),
)


def command_subject(user_id: str, task_id: str, command: task.TaskCommand) -> str:
    return f"cmd.{user_id}.{task_id}.{tag_of(command)}"


def user_command_subject(user_id: str, command: user.UserCommand) -> str:
    return f"cmd.{user_id}.user.{tag_of(command)}"


def as_named(command: C, subject: str) -> C:
    """`command`, which came on `subject`. Who may send what is said by subjects alone (protocol/permissions.py): raises
    msgspec.ValidationError for another command than its subject names."""
    named = subject.rpartition(".")[2]
    if tag_of(command) != named:
        raise ValidationError(f"it is a `{tag_of(command)}` on the subject of a `{named}`")
    return command


def decision_subject(user_id: str, task_id: str, state: task.TaskState) -> str:
    return f"evt.{user_id}.{task_id}.task.{state.value}"


def journal_subject(user_id: str, task_id: str, event: task.Message) -> str:
    return f"evt.{user_id}.{task_id}.journal.{tag_of(event)}"


def user_decision_subject(user_id: str, decision: user.UserDecision) -> str:
    return f"evt.{user_id}.user.{user_decision_kind(decision)}"


def user_decision_kind(decision: user.UserDecision) -> str:
    return tag_of(decision.events[0]) if decision.events else user.REJECTED


def printed_subject(user_id: str, task_id: str) -> str:
    return f"printed.{user_id}.{task_id}"


def timer_subject(owner: str, name: str) -> str:
    return f"timer.{owner}.{name}"


def query_subject(service: Service, asked: type) -> str:
    return f"qry.{service.value}.{tag_of(asked)}"


def messages_of(union: object) -> tuple[type, ...]:
    """The members of a `A | B` union of messages."""
    return get_args(union)
