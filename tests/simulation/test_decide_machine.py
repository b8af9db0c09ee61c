"""A machine that throws everything at the scheduler's core: every command that there is, in any order, repeated and
late, with timers that fire late and twice, two schedulers that decide over whatever each of them knows, commits that
are not stored and commits whose answer is lost.

A failure prints `ERRAND_STORY=<hex>`, which tells that story alone and step by step; `ERRAND_SEED=<n>` draws others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from multiprocessing import get_context
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from protocol.base import encode, tag_of
from protocol.evolve import Task, User
from protocol.query import ClaimAttempt, Spending
from protocol.task import (
    AnyTaskCommand,
    AttemptClaimed,
    AttemptEnded,
    Decision,
    FireTimer,
    Question,
    QuestionAnswered,
    QuestionKind,
    QuestionRaised,
    RaiseQuestion,
    SubmitTask,
    TaskPaused,
    TaskResumed,
    TaskState,
    TaskSubmitted,
    Terms,
    TurnEnded,
    TurnOpened,
)
from protocol.user import AddSchedule, AddUser, AnyUserCommand, FireSchedule, UserDecision
from services.bus import Stored
from services.scheduler.actors import Entry, TaskActor, UserActor
from services.scheduler.decide import claim, fold_log, go_on, is_short, lose_lease, wait_for_day
from services.scheduler.log_keeper import superseded
from tests.simulation.drawn import Drawn
from tests.unit.desk import LIMITS, NOW

RUNS = int(os.environ.get("ERRAND_RUNS", "10000"))
SEED = int(os.environ.get("ERRAND_SEED", "0"))
PORTIONS = 4
BYTES = (200, 1200)
"""Of one story; 400 on average, some 130 steps."""


class Owner:
    """A scheduler, as far as one actor goes: what it has read of the stream, what it takes the state to be."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.read = 0


class Machine:
    """One actor's part of the stream, and two owners of the actor. What is stored is checked at once."""

    kinds: Sequence[type]
    """Every command that there is, but for what timers send."""
    make: Callable[[], Any]

    def __init__(self, drawn: Drawn, tell: Callable[[str], None]) -> None:
        self.drawn = drawn
        self.tell = tell
        self.now = NOW
        self.stream: list[Stored] = []
        self.gone: set[int] = set()
        """The sequences of what was taken away."""
        self.keys: list[str] = []
        self.receipts: list[str] = []
        self.answered = 0
        self.armed: list[Entry] = []
        """Every timer that a state ever asked for."""
        self.truth = self.make()
        """The fold of everything that is stored."""
        self.owners = [Owner(self.make()), Owner(self.make())]

    def play(self) -> None:
        steps = self.steps()
        while not self.drawn.over:
            self.drawn.of(steps)()
        for owner in self.owners:
            self.catch_up(owner)
            while owner.actor.mailbox:
                self.answer(owner, certain=True)
        self.catch_up(self.owners[0])
        assert sorted(self.receipts) == sorted(set(self.keys)), "each command has exactly one receipt"
        newcomer = self.make()
        self.fold_all(newcomer)
        for actor in (self.owners[0].actor, self.owners[1].actor, newcomer):
            assert _state(actor) == _state(self.truth)
            assert (actor.sequence, actor.answered) == (self.truth.sequence, self.truth.answered)

    def steps(self) -> list[Callable[[], None]]:
        often = [self.send] * 6 + [self.answer_some] * 6 + [self.read_some] * 3
        return [self.rest, *often, self.repeat, self.pass_time, self.fire]

    def rest(self) -> None:
        """The first choice: hypothesis turns every step into it that a failure does not need."""

    # What comes into the stream

    def send(self) -> None:
        kind = self.drawn.of(self.drawn.of((*[self.likely()] * 4, self.kinds)))
        self.keys.append(f"k{len(self.keys)}")
        self.send_command(self.drawn.message(kind, {**self.known(), "key": self.keys[-1:]}))

    def send_command(self, command: Any) -> None:
        self.store(f"cmd.{tag_of(command)}", command)

    def repeat(self) -> None:
        """The same command, stored a second time."""
        if sent := [stored for stored in self.stream if stored.subject.startswith("cmd.")]:
            again = self.drawn.of(sent)
            self.tell(f"again: {again.data.decode()}")
            self.stream.append(Stored(again.subject, len(self.stream) + 1, again.data, self.now))

    def fire(self) -> None:
        """A timer fires: it may be one of long ago, and it may have fired before."""
        if self.armed:
            command = self.drawn.of(self.armed[-4:]).message
            self.keys.append(command.key)  # type: ignore[attr-defined]
            self.send_command(command)

    def likely(self) -> Sequence[type]:
        """The commands that lead on from where the actor stands."""
        return self.kinds

    def known(self) -> dict[str, list[Any]]:
        """Values that make a command of some sense."""
        return {}

    def pass_time(self) -> None:
        self.now += timedelta(seconds=self.drawn.of((1, 60, 100_000)))
        self.tell(f"it is {self.now}")

    def store(self, subject: str, message: Any) -> int:
        self.tell(f"{len(self.stream) + 1} {subject}: {message}")
        self.stream.append(Stored(subject, len(self.stream) + 1, encode(message), self.now))
        return len(self.stream)

    # What the owners do, as the scheduler's shell does it

    def read_some(self) -> None:
        owner = self.drawn.of(self.owners)
        self.read(owner, self.drawn.of((1000, 1, 2, 3)))

    def read(self, owner: Owner, count: int) -> None:
        for stored in self.stream[owner.read : owner.read + count]:
            if stored.subject.startswith("cmd."):
                owner.actor.mailbox.append(stored)
            elif stored.sequence not in self.gone:
                owner.actor.fold(stored)
            owner.read = stored.sequence

    def catch_up(self, owner: Owner) -> None:
        self.read(owner, len(self.stream))

    def answer_some(self) -> None:
        owner = self.drawn.of(self.owners)
        self.read(owner, self.drawn.of((1000, 0, 1)))
        if owner.actor.mailbox:
            self.answer(owner)

    def answer(self, owner: Owner, *, certain: bool = False) -> None:
        """One command: decided over the state that the owner has, and again after each commit that fails."""
        command = owner.actor.mailbox[0]
        while (entry := owner.actor.answer(command, self.now, LIMITS)) is not None:
            if self.commit(owner, entry, certain=certain):
                break
        owner.actor.mailbox.popleft()

    def commit(self, owner: Owner, entry: Entry, *, certain: bool = False) -> bool:
        """False when it has to be decided again: another owner wrote meanwhile, or no answer came."""
        fate = "stored" if certain else self.drawn.of(("stored", "stored", "stored", "not stored", "answer lost"))
        if owner.actor.sequence == self.truth.sequence and fate != "not stored":
            sequence = self.store(entry.subject, entry.message)
            self.check(entry, sequence)
            if fate == "stored":
                owner.actor.applied(entry.message, sequence)
                return True
        self.tell(f"not committed by owner {self.owners.index(owner)}: {fate}")
        owner.actor.forget()
        self.fold_all(owner.actor)
        return False

    def fold_all(self, actor: Any) -> None:
        for stored in self.stream:
            if stored.subject.startswith("evt.") and stored.sequence not in self.gone:
                actor.fold(stored)

    # What must hold of what was stored

    def check(self, entry: Entry, sequence: int) -> None:
        decision: Any = entry.message
        if decision.receipt is not None:
            assert decision.receipt.key not in self.receipts, "a command has one receipt"
            self.receipts.append(decision.receipt.key)
        if decision.command_sequence:
            assert decision.command_sequence > self.answered, "commands are answered in their order"
            self.answered = decision.command_sequence
        self.truth.fold(self.stream[-1])
        for name, due in self.truth.timers(LIMITS).items():
            self.armed.append(self.truth.timer(name, due))
        self.check_events(decision)

    def check_events(self, decision: Any) -> None: ...


class TaskMachine(Machine):
    kinds = tuple(kind for kind in get_args(AnyTaskCommand) if kind is not FireTimer)
    by_runner = tuple(kind for kind in kinds if "attempt" in kind.__struct_fields__)
    to_question = tuple(kind for kind in kinds if "question" in kind.__struct_fields__ and kind is not RaiseQuestion)
    by_user = tuple(kind for kind in kinds if kind is not SubmitTask and "attempt" not in kind.__struct_fields__)

    def __init__(self, drawn: Drawn, tell: Callable[[str], None]) -> None:
        super().__init__(drawn, tell)
        self.open_turn = self.ended_turn = self.held = self.attempts = 0
        self.paused = False
        self.asked: Question | None = None

    @staticmethod
    def make() -> TaskActor:
        return TaskActor("owner", "t1")

    def steps(self) -> list[Callable[[], None]]:
        return [*super().steps() * 2, *[self.claim] * 8, self.lose, self.let_go_on]

    def likely(self) -> Sequence[type]:
        task: Task = self.truth.task
        if task.turn == 0:
            return (SubmitTask,)
        if task.question:
            return self.to_question
        return self.by_runner if task.holder else self.by_user

    def known(self) -> dict[str, list[Any]]:
        task: Task = self.truth.task
        return {
            "attempt": [task.attempt, task.attempt, task.attempt, task.attempt - 1],
            "question": [task.question.id] * 3 if task.question else ["a"],
            "RaiseQuestion.question": [],
            "prompt": ["p", "p", "p", ""],
            "text": ["go on", "go on", "go on", ""],
        }

    def claim(self) -> None:
        owner = self.drawn.of(self.owners)
        task: Task = owner.actor.task
        if task.is_open and task.state is TaskState.QUEUED:
            self.commit(owner, owner.actor.entry(self.claimed(task)))

    def claimed(self, task: Task) -> Decision:
        """With money without a limit, with a little, and with none."""
        asked = ClaimAttempt(request=f"q{len(self.stream)}", runner="r")
        ends = self.now + timedelta(hours=5)
        match self.drawn.of(("unlimited", "unlimited", "a little", "none")):
            case "none":
                return wait_for_day(
                    task, Spending(spent_usd=5.0, reserved_usd=0.0, limit_usd=5.0, day_ends=ends), self.now
                )
            case "a little":
                return claim(task, asked, self.now, Terms(day_usd=0.5, day_ends=ends))
            case _:
                return claim(task, asked, self.now)

    def let_go_on(self) -> None:
        """There is money again."""
        owner = self.drawn.of(self.owners)
        if is_short(owner.actor.task):
            self.commit(owner, owner.actor.entry(go_on(owner.actor.task, self.now)))

    def lose(self) -> None:
        owner = self.drawn.of(self.owners)
        if owner.actor.task.holder is not None:
            self.commit(owner, owner.actor.entry(lose_lease(owner.actor.task, self.now, LIMITS)))

    def check_events(self, decision: Decision) -> None:
        for event in decision.events:
            self.check_event(event)
        task: Task = self.truth.task
        assert decision.state == task.state, "the subject's last token is the state it led to"
        assert self.open_turn == (task.turn if task.is_open else 0)
        assert self.held == (task.holder.attempt if task.holder else 0)
        assert (task.state is TaskState.RUNNING) <= (task.holder is not None)
        assert (task.holder is not None) <= (task.state in (TaskState.RUNNING, TaskState.WAITING, TaskState.PAUSED))
        assert self.paused == (task.state is TaskState.PAUSED), "only the user moves a paused task on"
        assert (task.state is TaskState.WAITING) <= (task.question is not None)
        assert (task.question is not None) <= (task.state in (TaskState.WAITING, TaskState.PAUSED))
        assert (task.state is TaskState.DELAYED) <= (task.delayed_until is not None)
        assert (task.delayed_until is not None) <= (task.state in (TaskState.DELAYED, TaskState.PAUSED))
        assert (task.day_usd is not None) <= (task.delayed_until is not None)
        assert (task.state is TaskState.DELAYED) <= bool(self.truth.timers(LIMITS)), "nobody would wake it"
        assert task.is_open or not self.truth.timers(LIMITS), "a task that is over waits for nothing"

    def check_event(self, event: Any) -> None:
        match event:
            case TaskSubmitted():
                assert (self.open_turn, self.ended_turn) == (0, 0)
                self.open_turn = 1
            case TurnOpened(turn=turn):
                assert (self.open_turn, self.ended_turn) == (0, turn - 1)
                self.open_turn = turn
            case TurnEnded(turn=turn):
                assert turn == self.open_turn, "a turn ends once"
                assert self.held == 0, "nobody works on a turn that is over"
                self.open_turn, self.ended_turn, self.paused = 0, turn, False
            case TaskPaused():
                self.paused = True
            case TaskResumed():
                assert self.paused
                self.paused = False
            case AttemptClaimed(attempt=attempt):
                assert (self.held, attempt) == (0, self.attempts + 1)
                self.held = self.attempts = attempt
            case AttemptEnded(attempt=attempt):
                assert attempt == self.held, "an attempt ends once"
                self.held = 0
            case QuestionRaised(question=asked):
                self.asked = asked
            case QuestionAnswered():
                assert self.asked is not None
                assert self.asked.id == event.question
                assert (event.approved is None) == (self.asked.kind is QuestionKind.ANSWER)
                self.asked = None


class UserMachine(Machine):
    kinds = tuple(kind for kind in get_args(AnyUserCommand) if kind is not FireSchedule)

    def likely(self) -> Sequence[type]:
        user: User = self.truth.user
        if not user.exists:
            return (AddUser,)
        return self.kinds if user.schedules else (AddSchedule,)

    def known(self) -> dict[str, list[Any]]:
        runs = [run.task for one in self.truth.user.schedules.values() for run in one.runs]
        return {
            "schedule": ["s1", "s1", "s2"],
            "cron": ["0 * * * *", "*/5 * * * *", "no cron"],
            "time_zone": ["Europe/Berlin", "Europe/Berlin", "nowhere"],
            "EndRun.task": [*runs, "a"],
        }

    @staticmethod
    def make() -> UserActor:
        return UserActor("owner")

    def steps(self) -> list[Callable[[], None]]:
        return [*super().steps(), self.fold_log, self.clear_log]

    def fold_log(self) -> None:
        owner = self.drawn.of(self.owners)
        self.commit(owner, owner.actor.entry(fold_log(owner.actor.user, self.now)))

    def clear_log(self) -> None:
        """Some of what one owner knows to be said elsewhere leaves the log."""
        folded = self.drawn.of(self.owners).actor.folded
        log = [each for each in self.stream if each.subject.startswith("evt.") and each.sequence not in self.gone]
        going = superseded(log, folded)[: self.drawn.of((1000, 1, 3))]
        self.tell(f"gone: {[each.sequence for each in going]}")
        self.gone |= {each.sequence for each in going}

    def check_events(self, decision: UserDecision) -> None:
        assert self.truth.user.removed_at is None, "the owner stays"


def _state(actor: TaskActor | UserActor) -> Any:
    return actor.task if isinstance(actor, TaskActor) else actor.user


def tell_story(machine: type[Machine], data: bytes, tell: Callable[[str], None] = lambda _: None) -> None:
    machine(Drawn(data), tell).play()


def failure(machine: type[Machine], runs: int, first: int) -> str:
    """The shortest story found that goes wrong, told; empty where none of `runs` does. Runs in a process of its own."""
    wrong: list[bytes] = []

    @seed(first)
    @settings(
        max_examples=runs,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(min_size=BYTES[0], max_size=BYTES[1]))
    def try_one(data: bytes) -> None:
        try:
            tell_story(machine, data)
        except Exception:
            wrong.append(data)
            raise

    try:
        try_one()
    except Exception:
        told: list[str] = []
        try:
            tell_story(machine, wrong[-1], told.append)
        except Exception as same:
            error = same
        return f"ERRAND_STORY={wrong[-1].hex()}\n" + "\n".join(told) + f"\n{error!r}"
    return ""


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("machine", "runs"), [(TaskMachine, RUNS), (UserMachine, RUNS // 10)])
def test_no_story_makes_an_actor_lose_repeat_or_contradict_itself(machine: type[Machine], runs: int) -> None:
    if story := os.environ.get("ERRAND_STORY"):
        tell_story(machine, bytes.fromhex(story), print)
        return
    seeds = range(SEED * PORTIONS, (SEED + 1) * PORTIONS)
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        found = processes.map(failure, [machine] * PORTIONS, [runs // PORTIONS] * PORTIONS, seeds)
        assert not (wrong := [text for text in found if text]), wrong[0]
