"""The frames of the phone's WebSocket, JSON both ways. The first frame signs in; everything else follows.

A client keeps, for each task it watches, the sequence of the last event it saw: its cursor. After a reconnect it watches from
there and gets what it missed, once and in order. Output has no cursor: it is superseded by its step's `step_finished`.
"""

from __future__ import annotations

import msgspec

from protocol.base import Message
from protocol.journal import JournalEntry, Output
from protocol.query import TaskSummary
from protocol.task import Budget, Decision, Receipt

FRAME_LIMIT_BYTES = 512 * 1024
"""The largest frame a client may send."""


# From the phone.


class SignIn(Message):
    token: str


class WatchTask(Message):
    """Replay the task's events after `cursor`, then follow it. Watching again moves nothing back."""

    task: str
    cursor: int = 0
    output: bool = True
    """Whether to send previews of running steps too."""


class UnwatchTask(Message):
    task: str


class WatchTasks(Message):
    """Send the task list now and a line whenever one of them changes."""

    limit: int = 50


class Submit(Message):
    """Open a task. `key` is the client's idempotency key: sent again, it is the same task."""

    key: str
    prompt: str
    repository: str
    base: str = ""
    model: str = ""
    budget: Budget = Budget()
    title: str = ""


class Say(Message):
    """A message to a task: steers the open turn, or opens the next."""

    key: str
    task: str
    text: str


class Answer(Message):
    key: str
    task: str
    question: str
    text: str


class Cancel(Message):
    key: str
    task: str
    reason: str = ""


AnyClientFrame = SignIn | WatchTask | UnwatchTask | WatchTasks | Submit | Say | Answer | Cancel


# To the phone.


class SignedIn(Message):
    user: str
    name: str
    role: str
    notices: tuple[str, ...] = ()
    """Sentences to show on every screen: scripted model, unsandboxed."""


class Accepted(Message):
    """The command is stored and will have exactly one receipt."""

    key: str
    task: str
    sequence: int


class Refused(Message):
    """What was sent was not taken. `key` or `task` say which, where the frame had one."""

    reason: str
    key: str = ""
    task: str = ""


class DecisionSeen(Message):
    """One decision of the task's log."""

    task: str
    sequence: int
    previous: int
    """The sequence of the task's decision before this one; 0 for the first."""
    decision: Decision


class JournalSeen(Message):
    """One entry of the task's journal."""

    task: str
    sequence: int
    previous: int
    """The sequence of the task's event before this one, of either kind."""
    entry: JournalEntry


class OutputSeen(Message):
    task: str
    output: Output


class CaughtUp(Message):
    """All that was stored by the time of the watch has been sent."""

    task: str
    cursor: int


class TaskLine(Message):
    """A line of the task list, new or changed."""

    task: TaskSummary


class Tasks(Message):
    tasks: tuple[TaskSummary, ...]


class ReceiptSeen(Message):
    """How a command of this user ended. Sent to every device of the user that is signed in."""

    task: str
    receipt: Receipt


class Closing(Message):
    """The last frame before the server closes; `come_back` says whether to reconnect from the cursors."""

    reason: str
    come_back: bool = True


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
)

decode_client_frame = msgspec.json.Decoder(AnyClientFrame).decode
decode_server_frame = msgspec.json.Decoder(AnyServerFrame).decode
