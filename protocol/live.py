"""The frames of the phone's WebSocket, JSON both ways. The first frame signs in; everything else follows.

A client keeps, for each task it watches, the sequence of the last event it saw: its cursor. After a reconnect it
watches from there and gets what it missed, once and in order. Output has no cursor: it is superseded by its step's
`step_finished`. A watch that begins in the middle of a step is sent the end of what it put out so far.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from protocol.base import Message, reader
from protocol.journal import JournalEntry, Output
from protocol.query import TaskSummary
from protocol.rules import Rule
from protocol.task import DEFAULT_QUEUE, Budget, Decision, Receipt

FRAME_LIMIT_BYTES = 512 * 1024
"""The largest frame a client may send. A larger one is refused; over twice as much, the connection is closed (code
1009)."""
WATCHES_LIMIT = 100
"""Tasks one socket may watch at one time."""
LIST_LIMIT = 200
"""Lines of a task list."""
SIGN_IN_SECONDS = 10
"""How long a new socket may take to sign in."""


# From the phone.


class SignIn(Message, frozen=True):
    """The first frame."""

    token: str
    """The device's own, from `POST /api/sign-in`."""


class WatchTask(Message, frozen=True):
    """Replay the task's events after `cursor`, then follow it. Watching again changes `output`, and moves nothing
    back."""

    task: str
    cursor: int = 0
    output: bool = True
    """Whether to send previews of running steps too."""


class UnwatchTask(Message, frozen=True):
    """Send nothing more of this task."""

    task: str


class WatchTasks(Message, frozen=True):
    """Send the task list now, and a line whenever a task of the user's changes. After a break between server and NATS
    the whole list comes again."""

    limit: int = 50
    """Lines of the list, at most `LIST_LIMIT`."""


class Submit(Message, frozen=True):
    """Open a task. `key` is the client's idempotency key: sent again, it is the same task."""

    key: str
    prompt: str
    repository: str = ""
    """A git URL, or a path on the server (the owner only); a fork's is the other task's."""
    base: str = ""
    model: str = ""
    budget: Budget = Budget()
    title: str = ""
    queue: str = DEFAULT_QUEUE
    """Whose runners it waits for."""
    labels: tuple[str, ...] = ()
    """What its runner must have."""
    priority: int = 0
    """-10 to 10: which of the user's own tasks goes first."""
    pull_request: bool = True
    """Whether a pull request is opened for the branch, where the git host has them."""
    rules: tuple[Rule, ...] = ()
    """What this task asks before; they come before the user's own."""
    tags: tuple[str, ...] = ()
    metadata: dict[str, str] = msgspec.field(default_factory=dict)
    fork_of: str = ""
    """A task of the user's whose work this one starts from, in its repository."""
    start_at: datetime | None = None
    """Not before this time, which has a time zone; none, or one that has passed, means now."""
    queue_seconds: float | None = None
    """A turn that no runner has begun after so long fails."""
    turn_seconds: float | None = None
    """A turn is ended after so long, its work saved; counted from when a runner could have begun it."""


class Say(Message, frozen=True):
    """A message to a task: steers the open turn, or opens the next."""

    key: str
    task: str
    text: str


class Answer(Message, frozen=True):
    """An answer to the open question; the first one wins, whichever device it comes from."""

    key: str
    task: str
    question: str
    text: str


class Approve(Message, frozen=True):
    """Yes to what the open question asks to do; the first decision wins, whichever device it comes from."""

    key: str
    task: str
    question: str


class Deny(Message, frozen=True):
    """No to it: the agent is told so, with the reason, and goes on."""

    key: str
    task: str
    question: str
    reason: str = ""


class Cancel(Message, frozen=True):
    """End the open turn now."""

    key: str
    task: str
    reason: str = ""


class ChangeBudget(Message, frozen=True):
    """What a turn of this task may spend from now on; a running one has it before its next step."""

    key: str
    task: str
    budget: Budget
    """What it says nothing of stays as it is."""


class Prioritize(Message, frozen=True):
    """This one sooner, or later, than the user's others."""

    key: str
    task: str
    priority: int


class Pause(Message, frozen=True):
    """Hold the open turn back: the work is saved, and no attempt starts until `resume`."""

    key: str
    task: str
    reason: str = ""


class Resume(Message, frozen=True):
    """Let a paused turn go on."""

    key: str
    task: str


class Archive(Message, frozen=True):
    """Put an ended task into the archive now. A message opens it again."""

    key: str
    task: str


class Retry(Message, frozen=True):
    """Try a turn that failed or was cancelled again: the next turn, with the same wish."""

    key: str
    task: str


class Tag(Message, frozen=True):
    """Mark the task, in any state, so that it is found again."""

    key: str
    task: str
    add: tuple[str, ...] = ()
    """Tags."""
    remove: tuple[str, ...] = ()
    """Tags; one that it does not have does not matter."""
    metadata: dict[str, str | None] = msgspec.field(default_factory=dict)
    """What to put under these names; null takes away what is there."""


class Ping(Message, frozen=True):
    """Is the connection alive? A page in a browser cannot see the pings of the WebSocket itself."""


class Looking(Message, frozen=True):
    """Whether the page is on the screen: a device that looks is sent no push. A new socket does not look until it says
    so. Sockets of one device count together."""

    looking: bool


CommandFrame = (
    Submit | Say | Answer | Approve | Deny | Cancel | ChangeBudget | Prioritize | Pause | Resume | Retry | Tag | Archive
)
"""What becomes a command to a task: each has its receipt."""

AnyClientFrame = (
    SignIn
    | WatchTask
    | UnwatchTask
    | WatchTasks
    | Submit
    | Say
    | Answer
    | Approve
    | Deny
    | Cancel
    | ChangeBudget
    | Prioritize
    | Pause
    | Resume
    | Retry
    | Tag
    | Archive
    | Ping
    | Looking
)


# To the phone.


class SignedIn(Message, frozen=True):
    """The answer to `sign_in`: who this device is."""

    user: str
    name: str
    role: str
    device: str = ""
    """The id of this device."""
    notices: tuple[str, ...] = ()
    """Sentences to show on every screen: scripted model, unsandboxed."""


class Accepted(Message, frozen=True):
    """The command is stored and will have exactly one receipt, which this socket sees after this frame."""

    key: str
    task: str
    sequence: int


class Refused(Message, frozen=True):
    """What was sent was not taken, and the socket stays. `key` or `task` say which, where the frame had one."""

    reason: str
    """A sentence that says what to do."""
    key: str = ""
    task: str = ""
    field: str = ""
    """The field that is wrong, where it is one."""
    code: str = "refused"
    """`refused`, `not_found` or `unavailable`; only `unavailable` is worth another try, with the same key."""


class DecisionSeen(Message, frozen=True):
    """One decision of the task's log."""

    task: str
    sequence: int
    previous: int
    """The sequence of the task's decision before this one; 0 for the first. Of the task's last event of either kind
    where the decision ended an attempt without its runner's word (a cancel, a lost lease)."""
    decision: Decision


class JournalSeen(Message, frozen=True):
    """One entry of the task's journal."""

    task: str
    sequence: int
    previous: int
    """The sequence of the task's event before this one, of either kind."""
    entry: JournalEntry


class OutputSeen(Message, frozen=True):
    """A preview of a running step. On a slow connection pieces are joined, or left out: `output.offset` shows it."""

    task: str
    output: Output


class CaughtUp(Message, frozen=True):
    """All that was stored by the time of the watch has been sent."""

    task: str
    cursor: int


class TaskLine(Message, frozen=True):
    """A line of the task list, new or changed."""

    task: TaskSummary


class Tasks(Message, frozen=True):
    """The task list, the last changed first."""

    tasks: tuple[TaskSummary, ...]
    more: bool = False
    """Whether there are older ones than `limit` let in."""


class ReceiptSeen(Message, frozen=True):
    """How a command ended. Sent to every device of the user that is signed in; to the one that sent the command also
    when it had ended before it was sent again."""

    task: str
    receipt: Receipt


class Closing(Message, frozen=True):
    """The last frame before the server closes; `come_back` says whether to reconnect from the cursors."""

    reason: str
    come_back: bool = True


class Pong(Message, frozen=True):
    """The answer to `Ping`."""


AnyServerFrame = (
    SignedIn
    | Accepted
    | Refused
    | DecisionSeen
    | JournalSeen
    | OutputSeen
    | CaughtUp
    | TaskLine
    | Tasks
    | ReceiptSeen
    | Closing
    | Pong
)

decode_client_frame = reader(msgspec.json.Decoder(AnyClientFrame).decode)
decode_server_frame = reader(msgspec.json.Decoder(AnyServerFrame).decode)
