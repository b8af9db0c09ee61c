"""A user's log: who they are, which devices may sign in and are told by push, which GitHub account is theirs, which
hosts the owner gave credentials for, which secrets their set-ups get, what is submitted by the calendar."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType

from protocol.base import Message, Part, reader, tag_of
from protocol.rules import Rule
from protocol.schedule import CatchUp, Progress, Run, Submission
from protocol.task import OUTCOMES, Budget, Receipt, TaskState

QUEUES_LIMIT = 100
RUNNING_LIMIT_MAX = 100_000
"""The most that a queue's `running_limit` may say: as many tasks as one installation is made for."""
"""Queues that an owner can have settings for."""

NAME_LIMIT_CHARS = 64
DEVICES_LIMIT = 50
"""Devices a user can have signed in at one time."""


class Role(StrEnum):
    OWNER = "owner"
    USER = "user"


class HostKind(StrEnum):
    TOKEN = "token"
    """A password or access token, sent as HTTP basic authentication."""
    SSH_KEY = "ssh_key"
    """An OpenSSH private key without passphrase: a deploy key."""


class Settings(Part, frozen=True):
    """What a user's tasks have where they say nothing themselves."""

    model: str = ""
    """Empty means the installation's."""
    budget: Budget = Budget()
    """Of a turn; what is absent is the installation's."""
    time_zone: str = "UTC"
    """An IANA name, such as `Europe/Berlin`: when the user's day begins."""
    daily_usd: float | None = None
    """What all tasks together may spend in a day. It lowers what the owner allows; null lowers nothing."""


class UserCommand(Message, frozen=True):
    key: str


class AddUser(UserCommand, frozen=True):
    """To the new user's log, from the gateway for the owner, or from `errand up` for the owner's own."""

    name: str
    role: Role = Role.USER


class RemoveUser(UserCommand, frozen=True):
    """Sign the user out everywhere, for good. The id is not used again: its tasks stay in the history."""


class CreateSignInCode(UserCommand, frozen=True):
    """A one-time code to sign a device in with; only its hash travels."""

    code_hash: str
    expires_at: datetime


class RedeemSignInCode(UserCommand, frozen=True):
    """A device exchanges its code for a token that it made itself; only hashes travel."""

    code_hash: str
    device: str
    """The device's id."""
    device_name: str
    token_hash: str


class AddDevice(UserCommand, frozen=True):
    """From `errand up`: the machine it runs on needs no code."""

    device: str
    device_name: str
    token_hash: str


class RemoveDevice(UserCommand, frozen=True):
    """Sign a device out, now."""

    device: str


class AddHost(UserCommand, frozen=True):
    """A git host's credential, sealed so that the publisher alone can open it."""

    host: str
    """Lower-case host name, with `:port` where it is not the default."""
    kind: HostKind
    sealed: str
    """HPKE envelope (RFC 9180), base64."""
    username: str = ""
    """For a token: the HTTP user name."""
    shared: bool = False
    """Every user's tasks may use it, not the owner's alone."""


class RemoveHost(UserCommand, frozen=True):
    """Forget a git host's credential."""

    host: str


class SetSecret(UserCommand, frozen=True):
    """A secret for set-ups of the user's tasks, sealed so that the publisher alone can open it; in the place of the one
    before."""

    name: str
    sealed: str
    """HPKE envelope (RFC 9180), base64."""
    repository: str = ""
    """Empty: for every repository."""


class RemoveSecret(UserCommand, frozen=True):
    """Forget it: no set-up gets it any more."""

    name: str
    repository: str = ""


class AddPushSubscription(UserCommand, frozen=True):
    """A device may be told of what happens while its page is closed. It has one subscription: the newest."""

    device: str
    subscription: str
    """The hash of its endpoint: the same browser gives the same."""
    sealed: str
    """Endpoint and keys (a `PushSubscription` of the Push API, JSON) as an HPKE envelope that the gateways open."""


class RemovePushSubscription(UserCommand, frozen=True):
    """Tell this device nothing more."""

    device: str
    subscription: str = ""
    """Only if it is still this one; empty means whichever."""


class SignInByGithub(UserCommand, frozen=True):
    """GitHub said whose account it is: make the user where there is none, keep the tokens, allow one sign-in."""

    host: str
    """The GitHub server, as `normal_host` writes it."""
    account: int
    """GitHub's number of the account. A login can be given up and taken by somebody else, the number cannot."""
    login: str
    listed: str
    """The entry of the allow-list that lets the account in: its login when it first came."""
    sealed: str
    """HPKE envelope with the account's tokens, bound to host and user, base64."""
    code_hash: str
    """Of the one-time code that the browser gets."""
    expires_at: datetime


class RotateGithubTokens(UserCommand, frozen=True):
    """From the publisher: GitHub changed the tokens for new ones, and the old ones are dead."""

    sealed: str
    replaces: str
    """The envelope that they came from, hashed by `token_hash`: with another one in its place nothing changes."""


class ForgetGithub(UserCommand, frozen=True):
    """Drop the GitHub account and its tokens; another one may be bound then."""


class SetQueue(UserCommand, frozen=True):
    """To the owner's log, from the gateway for the owner: how a queue is served."""

    queue: str
    paused: bool | UnsetType = UNSET
    """Whether its tasks are held back. Absent: as it was."""
    running_limit: int | UnsetType | None = UNSET
    """How many of its tasks run at one time; null is the scheduler's own setting."""


class SetRules(UserCommand, frozen=True):
    """What the user's tasks may do unasked, in the place of all rules before. Counts from each task's next attempt."""

    rules: tuple[Rule, ...]


class SetSettings(UserCommand, frozen=True):
    """In the place of all settings before."""

    settings: Settings


class SetDailyLimit(UserCommand, frozen=True):
    """From the gateway for the owner: what the user may spend in a day."""

    daily_usd: float | UnsetType | None = UNSET
    """Absent means the installation's default, null unlimited."""


class BulkAction(StrEnum):
    """What can be done to many tasks at once."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"

    @property
    def states(self) -> frozenset[TaskState]:
        """Of the tasks to which it can be done."""
        match self:
            case BulkAction.CANCEL:
                return frozenset(TaskState) - OUTCOMES
            case BulkAction.PAUSE:
                return frozenset(TaskState) - OUTCOMES - {TaskState.PAUSED}
            case BulkAction.RESUME:
                return frozenset({TaskState.PAUSED})
            case BulkAction.RETRY:
                return frozenset({TaskState.FAILED, TaskState.CANCELLED})


BULK_LIMIT = 200
"""Tasks of one bulk."""


class BeginBulk(UserCommand, frozen=True):
    """From the gateway: do this to these tasks. What is kept under the key is which tasks they were: a request that is
    repeated later means them and no other ones, whatever its filter finds by then."""

    action: BulkAction
    tasks: tuple[str, ...]


class AddSchedule(UserCommand, frozen=True):
    """Submit a task whenever a cron expression says so."""

    schedule: str
    name: str
    cron: str
    """Minute, hour, day of the month, month, day of the week."""
    time_zone: str
    """An IANA name: Europe/Berlin."""
    submission: Submission
    catch_up: CatchUp = CatchUp.ONCE


class RemoveSchedule(UserCommand, frozen=True):
    """Submit nothing more by it. The tasks that it made stay."""

    schedule: str


class PauseSchedule(UserCommand, frozen=True):
    """Submit nothing until it is resumed."""

    schedule: str


class ResumeSchedule(UserCommand, frozen=True):
    """Go on with the next occurrence from now; its failures are forgiven."""

    schedule: str


class FireSchedule(UserCommand, frozen=True):
    """From a JetStream schedule: an occurrence is due. May come late or twice."""

    schedule: str
    due: datetime


class EndRun(UserCommand, frozen=True):
    """From the scheduler: a task that a schedule made has its outcome. May come twice."""

    schedule: str
    task: str
    outcome: TaskState
    reason: str = ""


AnyUserCommand = (
    AddUser
    | RemoveUser
    | CreateSignInCode
    | RedeemSignInCode
    | AddDevice
    | RemoveDevice
    | AddHost
    | RemoveHost
    | SetSecret
    | RemoveSecret
    | AddPushSubscription
    | RemovePushSubscription
    | SignInByGithub
    | RotateGithubTokens
    | ForgetGithub
    | SetQueue
    | SetRules
    | SetSettings
    | SetDailyLimit
    | BeginBulk
    | AddSchedule
    | RemoveSchedule
    | PauseSchedule
    | ResumeSchedule
    | FireSchedule
    | EndRun
)


class UserEvent(Message, frozen=True):
    pass


class UserAdded(UserEvent, frozen=True):
    """The user exists."""

    name: str
    role: Role


class UserRemoved(UserEvent, frozen=True):
    """Devices, credentials and accounts are gone with it."""


class SignInCodeCreated(UserEvent, frozen=True):
    """A link that signs one device in."""

    code_hash: str
    expires_at: datetime


class SignInCodeRedeemed(UserEvent, frozen=True):
    """The code is used up."""

    code_hash: str


class DeviceAdded(UserEvent, frozen=True):
    """A device is signed in; its token is known by its hash."""

    device: str
    device_name: str
    token_hash: str


class DeviceRemoved(UserEvent, frozen=True):
    """The device's token opens nothing any more; its subscription is gone with it."""

    device: str


class HostAdded(UserEvent, frozen=True):
    """A git host's credential, in the place of the one before."""

    host: str
    kind: HostKind
    sealed: str
    username: str = ""
    shared: bool = False


class HostRemoved(UserEvent, frozen=True):
    """The credential is forgotten."""

    host: str


class SecretSet(UserEvent, frozen=True):
    """In the place of the one before."""

    name: str
    sealed: str
    repository: str = ""


class SecretRemoved(UserEvent, frozen=True):
    """No set-up gets it any more."""

    name: str
    repository: str = ""


class PushSubscriptionAdded(UserEvent, frozen=True):
    """In the place of the device's one before."""

    device: str
    subscription: str
    sealed: str


class PushSubscriptionRemoved(UserEvent, frozen=True):
    """The device is told nothing more."""

    device: str


class GithubLinked(UserEvent, frozen=True):
    """The GitHub account is the user's, with its tokens of this moment."""

    host: str
    account: int
    login: str
    listed: str
    sealed: str


class GithubTokensRotated(UserEvent, frozen=True):
    """The account's tokens, in the place of the ones before."""

    sealed: str


class GithubForgotten(UserEvent, frozen=True):
    """The account and its tokens are gone."""

    account: int


class QueueSet(UserEvent, frozen=True):
    """How a queue is served from now on."""

    queue: str
    paused: bool = False
    running_limit: int | None = None


class RulesSet(UserEvent, frozen=True):
    """In the place of all rules before."""

    rules: tuple[Rule, ...]


class SettingsSet(UserEvent, frozen=True):
    """In the place of all settings before."""

    settings: Settings


class DailyLimitSet(UserEvent, frozen=True):
    """What the owner allows the user to spend in a day."""

    daily_usd: float | UnsetType | None = UNSET


class BulkBegun(UserEvent, frozen=True):
    """Each of the tasks gets its own command, and has its own receipt."""

    bulk: str
    """The key."""
    action: BulkAction
    tasks: tuple[str, ...]


class ScheduleAdded(UserEvent, frozen=True):
    """The first occurrence is at `next_at`."""

    schedule: str
    name: str
    cron: str
    time_zone: str
    submission: Submission
    catch_up: CatchUp
    next_at: datetime


class ScheduleRemoved(UserEvent, frozen=True):
    """Nothing more is submitted by it."""

    schedule: str


class SchedulePaused(UserEvent, frozen=True):
    """By the user, or after failures in a row."""

    schedule: str
    reason: str


class ScheduleResumed(UserEvent, frozen=True):
    """It goes on at `next_at`."""

    schedule: str
    next_at: datetime


class ScheduleFired(UserEvent, frozen=True):
    """Occurrences are due: each run's task is to be submitted. The next one is at `next_at`."""

    schedule: str
    runs: tuple[Run, ...]
    next_at: datetime


class RunEnded(UserEvent, frozen=True):
    """A task that a schedule made has its outcome."""

    schedule: str
    task: str
    outcome: TaskState


class LogFolded(UserEvent, frozen=True):
    """What nobody did by hand leaves the log before this (`ROUTINE`); here is what it came to. A fold that has it all
    stays as it is, one that begins later ends up the same."""

    schedules: tuple[Progress, ...] = ()
    github_sealed: str = ""
    """The account's tokens as they were changed last; empty without an account."""
    receipts: tuple[Receipt, ...] = ()
    """All that are kept, in the place of those before."""
    answered: int = 0
    """The stream sequence of the last command that has a receipt."""


AnyScheduleEvent = ScheduleAdded | ScheduleRemoved | SchedulePaused | ScheduleResumed | ScheduleFired | RunEnded
AnyUserEvent = (
    UserAdded
    | UserRemoved
    | SignInCodeCreated
    | SignInCodeRedeemed
    | DeviceAdded
    | DeviceRemoved
    | HostAdded
    | HostRemoved
    | SecretSet
    | SecretRemoved
    | PushSubscriptionAdded
    | PushSubscriptionRemoved
    | GithubLinked
    | GithubTokensRotated
    | GithubForgotten
    | QueueSet
    | RulesSet
    | SettingsSet
    | DailyLimitSet
    | BulkBegun
    | AnyScheduleEvent
    | LogFolded
)

REJECTED = "rejected"
"""The kind of a decision without an event."""
ROUTINE = frozenset((*map(tag_of, (ScheduleFired, RunEnded, GithubTokensRotated, LogFolded)), REJECTED))
"""Kinds of decisions that come by the clock, day and night, or only refuse. All others are a person's doing and stay:
a log grows with them alone."""


class UserDecision(Message, frozen=True):
    """One message on `evt.<user>.user.<kind>`: the kind is its first event's tag, or `rejected`."""

    at: datetime
    events: tuple[AnyUserEvent, ...] = ()
    receipt: Receipt | None = None
    command_sequence: int = 0


decode_user_decision = reader(msgspec.json.Decoder(UserDecision).decode)
decode_user_command = reader(msgspec.json.Decoder(AnyUserCommand).decode)
