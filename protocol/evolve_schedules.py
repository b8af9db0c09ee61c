"""The fold of a user's schedules. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import assert_never

from msgspec.structs import asdict, replace

from protocol.schedule import Progress, Schedule
from protocol.task import TaskState
from protocol.user import (
    AnyScheduleEvent,
    RunEnded,
    ScheduleAdded,
    ScheduleFired,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
)

Schedules = Mapping[str, Schedule]


def evolve_schedules(schedules: Schedules, event: AnyScheduleEvent, at: datetime) -> dict[str, Schedule]:
    """`schedules` by their ids, after `event`. Of one whose beginning could not be read it is as it was."""
    if isinstance(event, ScheduleRemoved):
        return {key: one for key, one in schedules.items() if key != event.schedule}
    if isinstance(event, ScheduleAdded):
        return {**schedules, event.schedule: _added(event, at)}
    if event.schedule not in schedules:
        return dict(schedules)
    return {**schedules, event.schedule: _evolve(schedules[event.schedule], event)}


def with_progress(schedules: Schedules, progress: Iterable[Progress]) -> dict[str, Schedule]:
    """`schedules`, each as far as its runs have come."""
    known = [each for each in progress if each.id in schedules]
    return {**schedules, **{each.id: replace(schedules[each.id], **asdict(each)) for each in known}}


def _added(event: ScheduleAdded, at: datetime) -> Schedule:
    return Schedule(
        id=event.schedule,
        name=event.name,
        cron=event.cron,
        time_zone=event.time_zone,
        submission=event.submission,
        catch_up=event.catch_up,
        next_at=event.next_at,
        added_at=at,
    )


def _evolve(schedule: Schedule, event: SchedulePaused | ScheduleResumed | ScheduleFired | RunEnded) -> Schedule:
    match event:
        case SchedulePaused():
            return replace(schedule, paused=event.reason, next_at=None)
        case ScheduleResumed():
            return replace(schedule, paused="", failures=0, next_at=event.next_at)
        case ScheduleFired():
            return replace(schedule, runs=(*schedule.runs, *event.runs), next_at=event.next_at)
        case RunEnded():
            return _after_run(schedule, event)
        case _:
            assert_never(event)


def _after_run(schedule: Schedule, event: RunEnded) -> Schedule:
    due = next((run.due for run in schedule.runs if run.task == event.task), schedule.last_due)
    failures = {TaskState.SUCCEEDED: 0, TaskState.FAILED: schedule.failures + 1}.get(event.outcome, schedule.failures)
    return replace(
        schedule,
        runs=tuple(run for run in schedule.runs if run.task != event.task),
        failures=failures,
        last_task=event.task,
        last_due=due,
        last_outcome=event.outcome,
    )
