"""What a watcher sees: a pure fold of frames to lines. Every text in a line has been cleaned."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import assert_never

from msgspec import Struct
from msgspec.structs import replace

from protocol.evolve import Task, evolve
from protocol.journal import (
    SETUP_STEP,
    AttemptStarted,
    CheckpointMade,
    HostRefused,
    JournalEntry,
    ModelCall,
    ModelReply,
    Noticed,
    Output,
    SandboxRestored,
    SetupFinished,
    SetupStarted,
    StepFinished,
    StepLost,
    StepStarted,
    ToolCall,
    ToolResult,
)
from protocol.live import AnyServerFrame, CaughtUp, DecisionSeen, JournalSeen, OutputSeen, Refused, SignedIn
from protocol.task import (
    OUTCOMES,
    AnyTaskEvent,
    AttemptClaimed,
    AttemptEnded,
    BudgetSet,
    Decision,
    MessageSent,
    PrioritySet,
    Question,
    QuestionAnswered,
    QuestionRaised,
    ReceiptStatus,
    TaskArchived,
    TaskDelayed,
    TaskPaused,
    TaskQueued,
    TaskRestored,
    TaskResumed,
    TaskState,
    TaskSubmitted,
    TaskTagged,
    TurnEnded,
    TurnOpened,
    Usage,
)
from services.cli import units
from services.cli.calls import describe
from services.cli.text import clean, cut, one_line, tail

TAIL_LINES = 5
"""Of a command's output, so many lines stay on the screen."""
LINE_LIMIT_CHARS = 400
PREVIEW_LIMIT_CHARS = 4_000
"""Of a running step's output, so much is kept."""
SCRIPTED = "The model is scripted, not Claude."
UNSANDBOXED = "UNSANDBOXED: commands run on the server itself, without a sandbox."


class Kind(StrEnum):
    """What a line is; a screen gives each kind its look."""

    NOTICE = "notice"
    """To be seen at all times."""
    SAID = "said"
    """By the user."""
    SPOKEN = "spoken"
    """By the model."""
    STEP = "step"
    OUTPUT = "output"
    PLAN = "plan"
    QUESTION = "question"
    CHOICE = "choice"
    INFO = "info"
    WARNING = "warning"
    OUTCOME = "outcome"
    SUMMARY = "summary"
    FIELD = "field"


class Line(Struct, frozen=True, kw_only=True):
    kind: Kind
    text: str
    mark: str = ""
    """How it went: `ok`, `failed`, `unknown`, or a state for an outcome."""
    note: str = ""
    """Stands behind the text and is never cut: exit code, duration, cost."""


class Running(Struct, frozen=True, kw_only=True):
    """A step that was started and not finished."""

    step: int
    what: str
    at: datetime
    is_model: bool
    preview: str = ""
    """The end of its output, uncleaned: a control sequence may come in pieces."""
    end: int = 0
    """How many characters of its output were seen, on all channels."""


class PlanItem(Struct, frozen=True):
    text: str
    status: str


class View(Struct, frozen=True, kw_only=True):
    """One task as its watcher knows it."""

    task: Task
    notices: tuple[str, ...] = ()
    running: tuple[Running, ...] = ()
    cut_off: tuple[Running, ...] = ()
    """Steps that ran when their turn ended: the next attempt says what became of them."""
    plan: tuple[PlanItem, ...] = ()
    model: str = ""
    steps: int = 0
    """Of the turn."""
    usage: Usage = Usage()
    """Of the turn so far."""
    turn_at: datetime | None = None
    caught_up: bool = False

    @property
    def outcome(self) -> TaskState | None:
        """How the last turn ended, once everything stored was seen and no turn is open."""
        return self.task.state if self.caught_up and self.task.state in OUTCOMES else None


Folded = tuple[View, tuple[Line, ...]]


def begin(task: str) -> View:
    return View(task=Task(id=task, user=""))


def fold(view: View, frame: AnyServerFrame) -> Folded:
    """`view` after `frame`, and the lines to print for good."""
    match frame:
        case SignedIn():
            return _notice(view, *frame.notices)
        case DecisionSeen() if frame.task == view.task.id:
            return _decided(view, frame.decision)
        case JournalSeen() if frame.task == view.task.id:
            return _journalled(view, frame.entry)
        case OutputSeen() if frame.task == view.task.id:
            return replace(view, running=tuple(_preview(one, frame.output) for one in view.running)), ()
        case CaughtUp() if frame.task == view.task.id:
            return replace(view, caught_up=True), ()
        case Refused():
            return view, (_line(Kind.WARNING, one_line(frame.reason, LINE_LIMIT_CHARS)),)
        case _:
            return view, ()


# Decisions


def _decided(view: View, decision: Decision) -> Folded:
    view = replace(view, task=evolve(view.task, decision))
    lines: list[Line] = []
    is_end = any(isinstance(event, TurnEnded) for event in decision.events)  # it tells the reason of its attempt too
    for event in decision.events:
        view, more = _event(view, event, decision.at, is_end=is_end)
        lines.extend(more)
    receipt = decision.receipt
    # A key of ours has a space: a late timer, say, is nobody's concern.
    if receipt is not None and receipt.status is not ReceiptStatus.CONSUMED and " " not in receipt.key:
        lines.append(_line(Kind.WARNING, f"Not done: {one_line(receipt.reason, LINE_LIMIT_CHARS)}"))
    return view, tuple(lines)


def _event(view: View, event: AnyTaskEvent, at: datetime, *, is_end: bool) -> Folded:
    match event:
        case TaskSubmitted():
            where = f"{event.repository} at {event.base}" if event.base else event.repository
            return _new_turn(view, at), (*_block(Kind.SAID, event.prompt), _line(Kind.INFO, one_line(where)))
        case MessageSent():
            return view, _block(Kind.SAID, event.text)
        case TurnOpened():
            again = f", turn {event.retries} again" if event.retries else ""
            return _new_turn(view, at), (_line(Kind.INFO, f"turn {event.turn}{again}"),)
        case AttemptClaimed():
            again = "" if event.attempt == 1 else f"attempt {event.attempt}, "
            return view, (_line(Kind.INFO, f"{again}taken by runner {one_line(event.runner)}"),)
        case BudgetSet():
            return view, (_line(Kind.INFO, f"a turn may spend {units.budget(event.budget)}"),)
        case PrioritySet():
            return view, (_line(Kind.INFO, f"its priority is {event.priority}"),)
        case AttemptEnded():
            # Its open steps stay: the next attempt settles them. A set-up that was cut off is not settled by anybody.
            return _without_setup(view), (*_cut_off(view, at), *(() if is_end else _ended(event)))
        case TaskQueued():
            return view, (_line(Kind.INFO, f"queued again: {one_line(event.reason, LINE_LIMIT_CHARS)}"),)
        case TaskDelayed():
            return view, (_delayed(event),)
        case TaskPaused():
            return view, (_line(Kind.INFO, f"held back: {one_line(event.reason, LINE_LIMIT_CHARS)}"),)
        case TaskTagged():
            marks = (*event.tags, *(f"{name}={value}" for name, value in event.metadata.items()))
            told = f"marked {', '.join(marks)}" if marks else "marked with nothing any more"
            return view, (_line(Kind.INFO, one_line(told, LINE_LIMIT_CHARS)),)
        case TaskResumed():
            return view, (_line(Kind.INFO, "goes on"),)
        case QuestionRaised():
            return view, _asked(event.question)
        case QuestionAnswered():
            return view, (_line(Kind.INFO, _answered(event)),)
        case TurnEnded():
            return replace(view, running=(), cut_off=view.running), _outcome(view, event, at)
        case TaskArchived():
            return view, (_line(Kind.INFO, "in the archive"),)
        case TaskRestored():
            return view, (_line(Kind.INFO, "out of the archive"),)
        case _:
            assert_never(event)


def _new_turn(view: View, at: datetime) -> View:
    return replace(view, turn_at=at, steps=0, usage=Usage(), plan=(), running=())


def _cut_off(view: View, at: datetime) -> tuple[Line, ...]:
    setup = (one for one in view.running if one.step == SETUP_STEP)
    return tuple(
        _step(one.what, "unknown", f"cut off · {units.seconds((at - one.at).total_seconds())}") for one in setup
    )


def _ended(event: AttemptEnded) -> tuple[Line, ...]:
    reason = f": {one_line(event.reason, LINE_LIMIT_CHARS)}" if event.reason else ""
    match event.how:
        case "finished" | "cancelled" | "deadline":
            return ()
        case "parked":
            return (_line(Kind.INFO, f"the sandbox is given back until the task goes on{reason}"),)
        case "lease_lost":
            return (_line(Kind.WARNING, f"the runner of attempt {event.attempt} is gone{reason}"),)
        case _:
            return (_line(Kind.WARNING, f"attempt {event.attempt} failed{reason}"),)


def _delayed(event: TaskDelayed) -> Line:
    """In the zone of who reads it."""
    until = f"{event.until.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    return _line(Kind.WARNING, f"waits until {until}: {one_line(event.reason, LINE_LIMIT_CHARS)}")


def _asked(question: Question) -> tuple[Line, ...]:
    choices = (
        Line(kind=Kind.CHOICE, text=one_line(choice), mark=str(number))
        for number, choice in enumerate(question.choices, 1)
    )
    return (*_block(Kind.QUESTION, question.text), *_block(Kind.SPOKEN, question.input), *choices)


def _answered(event: QuestionAnswered) -> str:
    text = one_line(event.text, LINE_LIMIT_CHARS)
    if event.approved is None:
        return f"{'nobody answered in time, so it goes on with' if event.by_deadline else 'answered'}: {text}"
    return "approved" if event.approved else f"denied: {text}" if text else "denied"


def _outcome(view: View, event: TurnEnded, at: datetime) -> tuple[Line, ...]:
    took = f"in {units.seconds((at - view.turn_at).total_seconds())}" if view.turn_at else ""
    lines = [Line(kind=Kind.OUTCOME, text=event.outcome.value, mark=event.outcome.value, note=took)]
    if event.reason:
        first, *more = event.reason.strip().split("\n")
        lines.append(_field("reason", first))
        lines.extend(_line(Kind.OUTPUT, cut(line, LINE_LIMIT_CHARS)) for line in tail("\n".join(more), TAIL_LINES))
    lines.extend(_block(Kind.SUMMARY, event.summary))
    if event.published is None:
        lines.append(_field("changed", "nothing"))
    else:
        lines.append(_field("branch", event.published.branch))
        lines.append(_field("pushed to", event.published.pushed_to))
        lines.append(_field("changed", units.changed(event.published)))
        if event.published.pull_request is not None:
            lines.append(_field("pull request", units.pull_request(event.published.pull_request)))
    lines.append(_field("cost", f"{units.used(event.usage)} · {units.many(view.steps, 'step')}"))
    lines.extend(_line(Kind.NOTICE, notice) for notice in view.notices)
    return tuple(lines)


def _field(name: str, value: str) -> Line:
    return Line(kind=Kind.FIELD, text=one_line(value, LINE_LIMIT_CHARS), mark=name)


# Journal


def _journalled(view: View, entry: JournalEntry) -> Folded:
    match entry.event:
        case AttemptStarted() as started:
            return _started(view, started, entry.attempt)
        case SandboxRestored(reason=reason, restored_step=step):
            why = one_line(reason, LINE_LIMIT_CHARS)
            return view, (_line(Kind.WARNING, f"The sandbox ended: {why}. The work goes on {_anew(step)}."),)
        case StepStarted(step=step, action=action):
            running = Running(
                step=step, what=_what(action), at=entry.at, is_model=isinstance(action, ModelCall)
            )  # fmt: skip
            return replace(_planned(view, action), running=(*view.running, running), steps=view.steps + 1), ()
        case StepFinished() as finished:
            return _finished(view, finished)
        case Noticed(text=text, level=level):
            kind = Kind.WARNING if level == "warning" else Kind.INFO
            return view, (_line(kind, one_line(text, LINE_LIMIT_CHARS)),)
        case HostRefused(reason=reason):
            return view, (_line(Kind.WARNING, f"Network: {one_line(reason, LINE_LIMIT_CHARS)}"),)
        case SetupStarted(script=script):
            running = Running(step=SETUP_STEP, what=_setup(script), at=entry.at, is_model=False)
            return replace(view, running=(*view.running, running)), ()
        case SetupFinished() as finished:
            return _set_up(view, finished)
        case CheckpointMade():
            return view, ()
        case _:
            assert_never(entry.event)


def _anew(restored_step: int) -> str:
    """As the page says it, in gateway/web/task/fold.js."""
    return f"in a new sandbox, {f'restored as after step {restored_step}' if restored_step else 'from the start'}"


def _started(view: View, started: AttemptStarted, attempt: int) -> Folded:
    warnings = [SCRIPTED] if started.scripted else []
    if started.sandbox == "unsandboxed":
        warnings.append(UNSANDBOXED)
    view, lines = _notice(replace(view, model=clean(started.model)), *warnings)
    where = f", {_found(started)}" if attempt > 1 or started.restored_step else ""
    ground = f"{one_line(started.branch)} from {started.base_commit[:10]}, {one_line(started.sandbox)}{where}"
    return view, (*lines, _line(Kind.INFO, ground))


def _found(started: AttemptStarted) -> str:
    return "in the same sandbox, as it was" if started.sandbox_kept else _anew(started.restored_step)


def _setup(script: str) -> str:
    return f"set-up: {one_line(script)}"


def _without_setup(view: View) -> View:
    return replace(view, running=tuple(one for one in view.running if one.step != SETUP_STEP))


def _set_up(view: View, finished: SetupFinished) -> Folded:
    """Why it failed is said by the turn's end."""
    took = units.seconds(finished.duration_seconds)
    note = f"exit {finished.exit_code} · {took}" if finished.exit_code else took
    step = _step(_setup(finished.script), "failed" if finished.reason else "ok", note)
    output = (_line(Kind.OUTPUT, cut(line, LINE_LIMIT_CHARS)) for line in tail(finished.output, TAIL_LINES))
    return _without_setup(view), (step, *output)


def _notice(view: View, *notices: str) -> Folded:
    """Notices that are not on the screen yet. One that says the same in the server's words is not told twice."""
    cleaned = (one_line(notice, LINE_LIMIT_CHARS) for notice in notices)
    new = [notice for notice in cleaned if notice and not any(_same(notice, known) for known in view.notices)]
    return replace(view, notices=(*view.notices, *new)), tuple(_line(Kind.NOTICE, notice) for notice in new)


def _same(one: str, other: str) -> bool:
    return one == other or any(word in one.lower() and word in other.lower() for word in ("scripted", "unsandboxed"))


def _what(action: ModelCall | ToolCall) -> str:
    return "model" if isinstance(action, ModelCall) else describe(clean(action.name), action.input)


def _planned(view: View, action: ModelCall | ToolCall) -> View:
    if not isinstance(action, ToolCall) or action.name != "todo":
        return view
    items = action.input.get("items")
    plan = [
        PlanItem(text=one_line(str(item.get("text", "")), LINE_LIMIT_CHARS), status=str(item.get("status", "")))
        for item in (items if isinstance(items, list) else [])
        if isinstance(item, dict)
    ]
    return replace(view, plan=tuple(plan))


def _finished(view: View, finished: StepFinished) -> Folded:
    running = next((one for one in (*view.running, *view.cut_off) if one.step == finished.step), None)
    what = running.what if running else f"step {finished.step}"
    view = replace(view, running=tuple(one for one in view.running if one.step != finished.step))
    took = units.seconds(finished.duration_seconds)
    match finished.result:
        case ModelReply() as reply:
            view = replace(view, usage=view.usage + reply.usage)
            return view, (_step("model", "ok", f"{units.used(reply.usage)} · {took}"), *_spoken(reply))
        case ToolResult() as result:
            return view, _used(view, what, result, took)
        case StepLost() as lost:
            reason = one_line(lost.reason, LINE_LIMIT_CHARS)
            return replace(view, usage=view.usage + lost.usage), (
                _step(what, "unknown", took),
                _line(Kind.WARNING, reason),
            )
        case _:
            assert_never(finished.result)


def _spoken(reply: ModelReply) -> tuple[Line, ...]:
    texts = [
        block["text"] for block in reply.content if block.get("type") == "text" and isinstance(block.get("text"), str)
    ]
    return tuple(line for text in texts for line in _block(Kind.SPOKEN, text))


def _used(view: View, what: str, result: ToolResult, took: str) -> tuple[Line, ...]:
    failed = result.is_error or result.exit_code not in (None, 0)
    if not failed and what == "plan":
        return _plan_line(view)
    if not failed and (what == "finish" or what.startswith("ask: ")):
        return ()  # the outcome and the answer say it
    note = f"exit {result.exit_code} · {took}" if result.exit_code not in (None, 0) else took
    step = _step(what, "failed" if failed else "ok", note)
    if not failed and not what.startswith("$ "):
        return (step,)
    output = [line for line in tail(result.text, TAIL_LINES + 1) if not line.startswith("[exit code ")]
    return (step, *(_line(Kind.OUTPUT, cut(line, LINE_LIMIT_CHARS)) for line in output[-TAIL_LINES:]))


def _plan_line(view: View) -> tuple[Line, ...]:
    done = sum(item.status == "done" for item in view.plan)
    now = next((item.text for item in view.plan if item.status == "in_progress"), "")
    if not view.plan:
        return ()
    return (Line(kind=Kind.PLAN, text=f"plan {done}/{len(view.plan)}{f': {now}' if now else ''}"),)


def _step(what: str, mark: str, note: str) -> Line:
    return Line(kind=Kind.STEP, text=what, mark=mark, note=note)


def _line(kind: Kind, text: str) -> Line:
    return Line(kind=kind, text=text)


def _block(kind: Kind, text: str) -> tuple[Line, ...]:
    """A text of several lines, blank ones at its ends left out."""
    return tuple(_line(kind, line.rstrip()) for line in clean(text).strip().split("\n")) if text.strip() else ()


# Output


def _preview(running: Running, output: Output) -> Running:
    """A piece that was seen already is left out; one that was dropped leaves a hole, which the step's end will fill."""
    end = output.offset + len(output.text)
    if running.step != output.step or end <= running.end:
        return running
    if output.channel == "input":
        return replace(running, end=end)
    new = output.text[max(0, running.end - output.offset) :]
    return replace(running, preview=(running.preview + new)[-PREVIEW_LIMIT_CHARS:], end=end)
