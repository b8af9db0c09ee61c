"""An attempt's journal, written by the runner that holds it: what the agent did, step by step.

`step_started` is journalled before the effect, `step_finished` after it. Steps count from 1 through the whole task.
The conversation is the fold of the prompt, the messages and this journal (`agents/context.py`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from protocol.base import Message, Part, reader
from protocol.task import Usage


class AttemptStarted(Message, frozen=True):
    """The attempt's ground: what it works on and with."""

    turn: int
    base_commit: str
    """The commit of the repository that the task's work stands on, the same in every attempt."""
    branch: str
    model: str
    """The name as requested from the API."""
    sandbox: str
    """The driver's name; `unsandboxed` is shown as a warning."""
    scripted: bool = False
    """True when the answers come from the scripted model and not from Claude."""
    instructions: str = ""
    """The repository's AGENTS.md or CLAUDE.md at the base commit, as put into the system prompt."""
    told: str = ""
    """What Errand tells the model where a turn begins otherwise than by the user's words; once a turn."""
    egress: tuple[str, ...] = ()
    """What the sandbox may reach of the network: hosts and names of registries, as the owner wrote them."""
    restored_step: int = 0
    """The last step whose effect on the workspace is there again; what came after it is lost."""
    sandbox_kept: bool = False
    """The sandbox is that of the attempt before, as that left it: files, shell, processes, and a command that ran."""


class ModelCall(Message, frozen=True):
    """One request to the model."""

    messages_read: tuple[int, ...] = ()
    """The user's messages that this request is the first to contain (0 is the prompt), in order."""
    reserved_usd: float = 0.0
    """The most it can cost; counted as spent if its answer is lost."""


class ToolCall(Message, frozen=True):
    """One tool call of the model's last message."""

    id: str
    """The model's `tool_use` id."""
    name: str
    input: dict[str, Any]
    waited_seconds: float = 0.0
    """How long the user took to approve it; no part of the time that the turn takes."""


class StepStarted(Message, frozen=True):
    """Written before the effect: after it, the step's outcome is known or said to be unknown."""

    step: int
    action: ModelCall | ToolCall


class ModelReply(Message, frozen=True):
    """The model's message, its content verbatim."""

    content: tuple[dict[str, Any], ...]
    stop_reason: str
    usage: Usage


class ToolResult(Message, frozen=True):
    """What the tool answered to the model."""

    text: str
    is_error: bool = False
    exit_code: int | None = None
    dropped_bytes: int = 0
    """Cut out of the middle of a long output."""


class StepLost(Message, frozen=True):
    """The outcome is unknown or there is none: the runner died, the call broke off, or the turn ended first."""

    reason: str
    usage: Usage = Usage()
    """What was paid or must be taken as paid."""


class StepFinished(Message, frozen=True):
    """Each started step has exactly one."""

    step: int
    result: ModelReply | ToolResult | StepLost
    duration_seconds: float = 0.0


class CheckpointMade(Message, frozen=True):
    """The workspace as it was after `step`."""

    step: int
    head: str
    commit: str
    tree: str
    blob: str = ""
    """The bundle's name in the object store; empty when there is nothing beyond the base commit."""
    size_bytes: int = 0
    ignored: str = ""
    """The name there of a tar with the files that git ignores; empty where they are not kept."""


class SandboxRestored(Message, frozen=True):
    """The attempt's sandbox has died, and the attempt goes on in a new one: without the shell, what ran in it, files
    outside of the workspace, and what was done since the checkpoint. Written before the new one is made."""

    reason: str
    """Why the one before is gone."""
    restored_step: int = 0
    """As in `AttemptStarted`."""


class SetupStarted(Message, frozen=True):
    """The repository's set-up runs, or the same one of another task is waited for. What it says comes as `Output` of
    step 0. Nothing is written where what an earlier one left is used."""

    script: str
    """The file of the repository that is run."""


class SetupFinished(Message, frozen=True):
    """What it left is kept for this and later tasks; or it failed, and so does the turn."""

    script: str
    reason: str = ""
    """Why it failed; empty when it did not."""
    output: str = ""
    """The end of what it said, without the values of secrets."""
    exit_code: int | None = None
    duration_seconds: float = 0.0


class Noticed(Message, frozen=True):
    """Something a person would want to know: a retry of the model, a restored workspace, a refused host."""

    text: str
    level: str = "info"
    """`info` or `warning`."""


class HostRefused(Message, frozen=True):
    """A command asked for a host of the network that its sandbox may not reach, or that cannot be reached. Told once a
    host and port; where there are very many, of some."""

    host: str
    """As it was asked for, in visible ASCII; empty where further ones are not told, or a name was looked up where names
    are not."""
    port: int
    reason: str
    """A sentence that says what can be done."""


AnyJournalEvent = (
    AttemptStarted
    | SandboxRestored
    | StepStarted
    | StepFinished
    | CheckpointMade
    | SetupStarted
    | SetupFinished
    | Noticed
    | HostRefused
)


class JournalEntry(Part, frozen=True):
    """One message on `evt.<user>.<task>.journal.<kind>`; the kind is the event's tag."""

    attempt: int
    at: datetime
    event: AnyJournalEvent


SETUP_STEP = 0
"""Stands for the set-up, which comes before the first step, where its output is shown."""


class Output(Part, frozen=True):
    """One message on `out.<user>.<task>`: a preview, superseded by its step's `step_finished`."""

    attempt: int
    step: int
    """`SETUP_STEP` for the set-up."""
    offset: int
    """Characters of this step's output before this piece."""
    text: str
    channel: str = "text"
    """`text` and `thinking` come from the model, `tool` from a command, `input` is a tool call being written."""


decode_entry = reader(msgspec.json.Decoder(JournalEntry).decode)
decode_output = reader(msgspec.json.Decoder(Output).decode)
