"""The line gives the policy's answers, whatever happens to the tasks, and what it promises holds."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from protocol.evolve import Holder, QueueSettings, Task
from protocol.task import TaskState
from services.scheduler import policy
from services.scheduler.line import Line
from services.scheduler.policy import Load, Rules, Slot, is_queued
from tests.unit.desk import NOW

USERS = ("ann", "bob", "cy")
LABELS = ((), ("arm64",), ("gpu",), ("arm64", "gpu"))
QUEUES = ("default", "gpu")
SLOTS = [Slot(queue, frozenset(labels)) for queue in QUEUES for labels in LABELS]


def held(task: Task, seconds: float) -> Task:
    holder = Holder(attempt=task.attempt + 1, runner="r1", request=f"{task.id}-{task.attempt}")
    at = NOW + timedelta(seconds=seconds)
    return replace(task, state=TaskState.RUNNING, attempt=task.attempt + 1, holder=holder, claimed_at=at)


def waiting(name: str, user: str, seconds: float = 0, **more: object) -> Task:
    since = NOW + timedelta(seconds=seconds)
    return replace(Task(id=name, user=user, turn=1, queued_at=since, in_line_since=since), **more)


class LineMachine(RuleBasedStateMachine):
    """Tasks come, get slots, end, are queued again, change their priority; the owner changes the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks: dict[str, Task] = {}
        self.clock = 0.0

    @initialize(user=st.integers(1, 3), repository=st.integers(1, 2), queue=st.integers(1, 4))
    def begin(self, user: int, repository: int, queue: int) -> None:
        rules = Rules(running_per_user=user, running_per_repository=repository, running_per_queue=queue)
        self.line = Line(rules)

    def put(self, task: Task) -> None:
        self.tasks[task.id] = task
        self.line.update(task)
        assert not self.line.update(task), "the same again changes nothing"

    @rule(
        user=st.sampled_from(USERS),
        queue=st.sampled_from(QUEUES),
        labels=st.sampled_from(LABELS),
        repository=st.sampled_from("rst"),
        priority=st.integers(-10, 10),
        seconds=st.integers(0, 9_000),
    )
    def submit(
        self, user: str, queue: str, labels: tuple[str, ...], repository: str, priority: int, seconds: int
    ) -> None:
        task = waiting(f"t{len(self.tasks)}", user, seconds, queue=queue, labels=labels)
        self.put(replace(task, repository=repository, priority=priority))

    @rule(slot=st.sampled_from(SLOTS))
    def claim(self, slot: Slot) -> None:
        chosen = self.line.choose(slot)
        if chosen is not None:
            self.clock += 1
            assert self.line.load.queues.get(slot.queue, 0) < self.line.rules.limit_of(slot.queue)
            self.put(held(self.tasks[chosen], self.clock))

    @rule(slot=st.sampled_from(SLOTS))
    def a_grant_is_not_stored(self, slot: Slot) -> None:
        chosen = self.line.choose(slot)
        if chosen is not None:
            task = self.tasks[chosen]
            before = self.line.load.users.get(task.user, 0)
            self.line.update(task, is_granted=True)
            assert self.line.load.users[task.user] == before + 1
            assert self.line.choose(slot) != chosen
            self.line.update(task)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), state=st.sampled_from([TaskState.QUEUED, TaskState.SUCCEEDED, TaskState.DELAYED]))
    def end(self, data: st.DataObject, state: TaskState) -> None:
        """Of an attempt, or of the wait."""
        task = self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))]
        self.put(replace(task, state=state, holder=None))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), priority=st.integers(-10, 10))
    def prioritize(self, data: st.DataObject, priority: int) -> None:
        self.put(replace(self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))], priority=priority))

    @rule(queue=st.sampled_from(QUEUES), paused=st.booleans(), limit=st.none() | st.integers(1, 2))
    def set_queue(self, queue: str, paused: bool, limit: int | None) -> None:
        given = {**self.line.rules.queues, queue: QueueSettings(paused=paused, running_limit=limit)}
        self.line.rules = replace(self.line.rules, queues=given)

    @invariant()
    def a_slot_gets_what_the_policy_says(self) -> None:
        load, rules = Load.of(self.tasks.values()), self.line.rules
        assert load == self.line.load
        queued = [task for task in self.tasks.values() if is_queued(task)]
        for slot in SLOTS:
            chosen = policy.choose(queued, slot, load, rules)
            assert self.line.choose(slot) == (chosen.id if chosen else None)
        for queue in QUEUES:
            of_queue = [task for task in queued if task.queue == queue]
            assert list(self.line.in_order(queue)) == [task.id for task in policy.in_order(of_queue, load, rules)]
            assert self.line.waiting(None)[queue] == len(of_queue)
        for user in USERS:
            assert self.line.waiting(user) == Counter(task.queue for task in queued if task.user == user)
        assert len(self.line) == len(queued)
        assert all((task.id in self.line) == is_queued(task) for task in self.tasks.values())

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        # The one of a queue may be set below what runs.
        load, rules = self.line.load, self.line.rules
        assert max(load.users.values(), default=0) <= rules.running_per_user
        assert max(load.repositories.values(), default=0) <= rules.running_per_repository


TestLineMachine = LineMachine.TestCase
TestLineMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None, print_blob=True)


def serve(line: Line, tasks: dict[str, Task], times: int) -> list[Task]:
    """One slot, one task after the other, ten seconds each."""
    served = []
    for turn in range(times):
        chosen = line.choose(Slot("default"))
        if chosen is None:
            break
        served.append(task := held(tasks[chosen], 10_000 + 10 * turn))
        line.update(task)
        line.update(replace(task, state=TaskState.SUCCEEDED, holder=None))
    return served


def test_nobody_starves_beside_a_user_who_sends_thousands() -> None:
    line, chance = Line(Rules()), random.Random(1)
    users = ["flood"] * 3_000 + [f"u{number}" for number in range(20)] * 5
    tasks = {
        f"t{n}": waiting(f"t{n}", user, n, priority=10 if user == "flood" else chance.randint(-10, 10))
        for n, user in enumerate(users)
    }
    for task in tasks.values():
        line.update(task)
    served = Counter(task.user for task in serve(line, tasks, 21 * 5))
    assert set(served.values()) == {5}, "as many turns each as there are rounds"


def test_the_lowest_priority_is_served_while_the_highest_keep_coming() -> None:
    line, tasks = Line(Rules(priority_seconds=60)), {"low": waiting("low", "ann", priority=-10)}
    line.update(tasks["low"])
    for n in range(300):
        tasks[f"high{n}"] = waiting(f"high{n}", "ann", 10 * n, priority=10)
        line.update(tasks[f"high{n}"])
        if serve(line, tasks, 1)[0].id == "low":
            break
    assert n == 121, "20 priorities, a minute each: until then one of ten seconds went first"


def test_among_20_000_a_task_is_found_in_less_than_a_millisecond() -> None:
    line, chance = Line(Rules(running_per_user=1_000)), random.Random(2)
    tasks = {
        f"t{n}": waiting(
            f"t{n}",
            f"u{chance.randrange(500)}",
            chance.uniform(0, 1e6),
            repository=f"r{chance.randrange(2_000)}",
            labels=chance.choice(LABELS),
            priority=chance.randint(-10, 10),
        )
        for n in range(20_000)
    }
    for task in tasks.values():
        line.update(task)
    began = time.process_time()
    served = serve(line, tasks, 1_000)
    assert len(served) == 1_000
    # 0.1 ms on a free core, which a test never has.
    assert (time.process_time() - began) / 1_000 < 0.001
