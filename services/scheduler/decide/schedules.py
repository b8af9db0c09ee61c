"""What a cron schedule of a user's leads to. Pure.

An occurrence that is due becomes a run in the fold, and a run is what is owed: its task, until that one has its
receipt, and the word of how it ended. So whoever takes over owes the same, and nothing is submitted twice: a task's id
follows from its schedule and its occurrence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from msgspec.structs import asdict, replace

from protocol.evolve import Task, User
from protocol.ids import is_token, task_id
from protocol.schedule import (
    FAILURES_LIMIT,
    LATE_SECONDS,
    OPEN_RUNS_LIMIT,
    SCHEDULES_LIMIT,
    CatchUp,
    Run,
    Schedule,
)
from protocol.task import OUTCOMES, SubmitTask, TaskState
from protocol.user import (
    NAME_LIMIT_CHARS,
    AddSchedule,
    AnyScheduleEvent,
    EndRun,
    FireSchedule,
    PauseSchedule,
    RemoveSchedule,
    ResumeSchedule,
    RunEnded,
    ScheduleAdded,
    ScheduleFired,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
)
from services import cron
from services.scheduler.decide.base import Rejected, must_be_rules, must_be_text

BY_USER = "Paused by the user."
UNSENT = "Its task could not be sent"


def timers(user: User) -> dict[str, datetime]:
    """When each schedule is due next, by its id."""
    return {one.id: one.next_at for one in user.schedules.values() if one.next_at is not None}


def owed(user: User, task_of: Callable[[str], Task]) -> Iterator[tuple[str, SubmitTask] | EndRun]:
    """What follows from the runs: a task to be submitted, with its id, or the end of one to be told."""
    for schedule in user.schedules.values():
        for run in schedule.runs:
            task, command = task_of(run.task), _submission(schedule, run)
            rejected = task.receipts.get(command.key) if task.turn == 0 else None
            if rejected is not None:
                yield _end(schedule, run, TaskState.FAILED, rejected.reason)
            elif task.turn == 0:
                yield run.task, command
            elif task.state in OUTCOMES:
                yield _end(schedule, run, task.state, task.reason)


def end_unsent(task: str, command: SubmitTask, reason: str) -> EndRun:
    """The end of a run whose task can never be sent: `command` was refused."""
    key = command.key.removeprefix("schedule ")
    reason = f"{UNSENT}: {reason}"
    return EndRun(key=f"end {key}", schedule=command.schedule, task=task, outcome=TaskState.FAILED, reason=reason)


def add(user: User, command: AddSchedule, now: datetime) -> tuple[AnyScheduleEvent, ...]:
    if command.schedule in user.schedules:
        raise Rejected("This schedule was added before.")
    if len(user.schedules) >= SCHEDULES_LIMIT:
        raise Rejected(f"There are {SCHEDULES_LIMIT} schedules: remove one first.")
    if not is_token(command.schedule) or not 0 < len(command.name.strip()) <= NAME_LIMIT_CHARS:
        raise Rejected(f"A schedule's name has 1 to {NAME_LIMIT_CHARS} characters.")
    must_be_text(command.submission.prompt, "prompt")
    must_be_rules(command.submission.rules)
    added = ScheduleAdded(
        schedule=command.schedule,
        name=command.name.strip(),
        cron=command.cron,
        time_zone=command.time_zone,
        submission=command.submission,
        catch_up=command.catch_up,
        next_at=_next_after(command.cron, command.time_zone, now),
    )
    return (added,)


def remove(user: User, command: RemoveSchedule) -> tuple[AnyScheduleEvent, ...]:
    return (ScheduleRemoved(schedule=_known(user, command.schedule).id),)


def pause(user: User, command: PauseSchedule) -> tuple[AnyScheduleEvent, ...]:
    if _known(user, command.schedule).paused:
        raise Rejected("This schedule is paused already.")
    return (SchedulePaused(schedule=command.schedule, reason=BY_USER),)


def resume(user: User, command: ResumeSchedule, now: datetime) -> tuple[AnyScheduleEvent, ...]:
    schedule = _known(user, command.schedule)
    if not schedule.paused:
        raise Rejected("This schedule is not paused.")
    next_at = _next_after(schedule.cron, schedule.time_zone, now)
    return (ScheduleResumed(schedule=schedule.id, next_at=next_at),)


def fire(user: User, command: FireSchedule, now: datetime) -> tuple[AnyScheduleEvent, ...]:
    """Late, there may be more than one occurrence since; early or twice, there is none."""
    schedule = _known(user, command.schedule)
    if schedule.next_at is None or command.due < schedule.next_at:
        raise Rejected("Nothing waits for this timer any more.")
    # Our clock may be behind the server's, which has fired.
    until = max(now, schedule.next_at)
    try:
        cron.check(schedule.cron, schedule.time_zone)
    except ValueError as error:
        # The machine had this time zone once. To be refused would leave the timer due, again and again.
        return (SchedulePaused(schedule=schedule.id, reason=str(error)),)
    room = OPEN_RUNS_LIMIT - len(schedule.runs)
    runs = [Run(task=task_id(user.id, _key(schedule, due)), due=due) for due in _due(schedule, until)][
        -OPEN_RUNS_LIMIT:
    ]
    next_at = cron.next_after(schedule.cron, schedule.time_zone, until)
    return (ScheduleFired(schedule=schedule.id, runs=tuple(runs[:room]), next_at=next_at),)


def end_run(user: User, command: EndRun) -> tuple[AnyScheduleEvent, ...]:
    schedule = _known(user, command.schedule)
    if all(run.task != command.task for run in schedule.runs):
        raise Rejected("This run is over already.")
    ended = RunEnded(schedule=schedule.id, task=command.task, outcome=command.outcome)
    failures = schedule.failures + (command.outcome is TaskState.FAILED)
    if schedule.paused or command.outcome is not TaskState.FAILED or failures < FAILURES_LIMIT:
        return (ended,)
    reason = f"{failures} runs in a row failed, at last: {command.reason}"
    return ended, SchedulePaused(schedule=schedule.id, reason=reason)


def _due(schedule: Schedule, until: datetime) -> list[datetime]:
    """The occurrences that are to be run, by the schedule's way to catch up."""
    assert schedule.next_at is not None
    since = cron.last_until(schedule.cron, schedule.time_zone, schedule.next_at, until, OPEN_RUNS_LIMIT)
    since = since or [schedule.next_at]
    match schedule.catch_up:
        case CatchUp.ALL:
            return since
        case CatchUp.ONCE:
            return since[-1:]
        case CatchUp.SKIP:
            return [due for due in since[-1:] if (until - due).total_seconds() <= LATE_SECONDS]


def _next_after(expression: str, time_zone: str, after: datetime) -> datetime:
    try:
        cron.check(expression, time_zone)
    except ValueError as error:
        raise Rejected(str(error)) from None
    return cron.next_after(expression, time_zone, after)


def _known(user: User, schedule: str) -> Schedule:
    if schedule not in user.schedules:
        raise Rejected("There is no such schedule.")
    return user.schedules[schedule]


def _key(schedule: Schedule, due: datetime) -> str:
    """Keys of commands of ours have a space, which a client's key cannot have."""
    return f"schedule {schedule.id} {due.isoformat()}"


def _submission(schedule: Schedule, run: Run) -> SubmitTask:
    asked = replace(schedule.submission, title=schedule.submission.title or schedule.name)
    return SubmitTask(key=_key(schedule, run.due), schedule=schedule.id, **asdict(asked))


def _end(schedule: Schedule, run: Run, outcome: TaskState, reason: str) -> EndRun:
    key = f"end {schedule.id} {run.due.isoformat()}"
    return EndRun(key=key, schedule=schedule.id, task=run.task, outcome=outcome, reason=reason)
