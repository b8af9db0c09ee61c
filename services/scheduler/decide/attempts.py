"""A runner's part: it claims a turn, ends it, gives it back, or is lost. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from protocol.evolve import Task
from protocol.query import ClaimAttempt
from protocol.task import (
    WAIT_LIMIT_SECONDS,
    AnyTaskEvent,
    AttemptClaimed,
    AttemptEnd,
    AttemptEnded,
    Decision,
    FailAttempt,
    FinishAttempt,
    ParkAttempt,
    TaskDelayed,
    TaskQueued,
    TaskState,
    Terms,
    TurnEnded,
)
from services.scheduler.decide.base import Limits, Rejected, with_state
from services.scheduler.decide.turns import next_turn

NO_TERMS = Terms()
"""Of a user who has set nothing."""

ROUNDING_USD = 0.01
"""By so much more than was too little, the day has more for a turn."""


def claim(task: Task, asked: ClaimAttempt, now: datetime, terms: Terms = NO_TERMS) -> Decision:
    """A runner gets the queued turn."""
    assert task.state is TaskState.QUEUED, task.state
    claimed = AttemptClaimed(
        attempt=task.attempt + 1,
        turn=task.turn,
        runner=asked.runner,
        request=asked.request,
        labels=asked.labels,
        terms=terms,
    )
    return with_state(task, Decision(at=now, state=task.state, events=(claimed,)))


def lose_lease(task: Task, now: datetime, limits: Limits) -> Decision:
    """The runner that holds the attempt was not heard of for longer than its lease."""
    assert task.holder is not None
    reason = "The runner was not heard of any more."
    ended = AttemptEnded(attempt=task.holder.attempt, how=AttemptEnd.LEASE_LOST, reason=reason)
    events: tuple[AnyTaskEvent, ...] = (ended,)
    if task.state is TaskState.RUNNING:
        if task.turn_attempts + 1 < limits.attempts_per_turn:
            events = ended, TaskQueued(reason="The runner was lost; another one goes on with the turn.")
        else:
            reason = f"{limits.attempts_per_turn} runners were lost over this turn: see their log, then send a message."
            events = ended, TurnEnded(turn=task.turn, outcome=TaskState.FAILED, reason=reason)
    return with_state(task, Decision(at=now, state=task.state, events=events))


def finish(task: Task, command: FinishAttempt) -> tuple[AnyTaskEvent, ...]:
    must_hold(task, command.attempt)
    ended = AttemptEnded(attempt=command.attempt, how=AttemptEnd.FINISHED, usage=command.usage)
    outcome = TurnEnded(
        turn=task.turn,
        outcome=TaskState.SUCCEEDED,
        summary=command.summary,
        published=command.published,
        usage=command.usage,
    )
    return ended, outcome, *next_turn(task, command.messages_read)


def fail(task: Task, command: FailAttempt, now: datetime, limits: Limits) -> tuple[AnyTaskEvent, ...]:
    must_hold(task, command.attempt)
    ended = AttemptEnded(attempt=command.attempt, how=AttemptEnd.FAILED, reason=command.reason, usage=command.usage)
    if command.retry_after_seconds is not None and task.question is not None:
        return (ended,)  # the turn waits for the user all the same; the answer opens another attempt
    if command.retry_after_seconds is not None and task.turn_attempts + 1 < limits.attempts_per_turn:
        until = now + timedelta(seconds=_pause_seconds(task, command.retry_after_seconds, limits))
        return ended, TaskDelayed(until=until, reason=command.reason)
    outcome = TurnEnded(
        turn=task.turn,
        outcome=TaskState.FAILED,
        reason=command.reason,
        published=command.published,
        usage=command.usage,
    )
    return ended, outcome, *next_turn(task, command.messages_read)


def _pause_seconds(task: Task, asked_seconds: float, limits: Limits) -> float:
    """Until the next attempt: never less than was asked for, as a rate limit's reset is exact."""
    backoff = min(limits.first_retry_seconds * 2**task.turn_attempts, limits.longest_retry_seconds)
    pause = max(min(asked_seconds, WAIT_LIMIT_SECONDS), backoff)
    return pause + min(pause / 2, limits.jitter_seconds) * _chance(task)


def _chance(task: Task) -> float:
    """From 0 to 1: random between attempts, and for the same one always the same, so that a decision can be made
    again."""
    drawn = hashlib.blake2b(f"{task.id} {task.attempt}".encode(), digest_size=4).digest()
    return int.from_bytes(drawn) / 2**32


def park(task: Task, command: ParkAttempt) -> tuple[AnyTaskEvent, ...]:
    must_hold(task, command.attempt)
    ended = AttemptEnded(attempt=command.attempt, how=AttemptEnd.PARKED, usage=command.usage)
    if task.question is not None or task.state is TaskState.PAUSED:
        return (ended,)
    if command.day_is_spent and task.holder and (day_ends := task.holder.terms.day_ends):
        return ended, TaskDelayed(until=day_ends, reason=command.day_is_spent, day_usd=_too_little(task, command))
    return ended, TaskQueued(reason="The runner gave the attempt back.")


def _too_little(task: Task, command: ParkAttempt) -> float:
    """What the attempt leaves of what was set aside for it. The day may have more, as the turn's budget may be higher
    by now: then it goes on at once."""
    assert task.holder is not None
    set_aside = task.holder.terms.day_usd or 0.0
    return max(0.0, set_aside - (command.usage.cost_usd - task.turn_usage.cost_usd)) + ROUNDING_USD


def must_hold(task: Task, attempt: int) -> None:
    if task.holder is None or task.holder.attempt != attempt:
        raise Rejected(f"Attempt {attempt} is over.")
