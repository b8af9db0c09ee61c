"""The scheduler's core: a table of cases with a reason each, and a machine that throws everything at it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from protocol.evolve import PushSubscription, Task, User, evolve, evolve_user
from protocol.ids import OWNER
from protocol.task import (
    AnswerQuestion,
    AttemptClaimed,
    AttemptEnded,
    CancelTask,
    Decision,
    FailAttempt,
    FinishAttempt,
    FireTimer,
    ParkAttempt,
    Question,
    RaiseQuestion,
    ReceiptStatus,
    SendMessage,
    SubmitTask,
    TaskCommand,
    TaskState,
    TaskSubmitted,
    TurnEnded,
    TurnOpened,
    Usage,
)
from protocol.user import (
    AddDevice,
    AddHost,
    AddPushSubscription,
    AddUser,
    AnyUserCommand,
    CreateSignInCode,
    HostKind,
    RedeemSignInCode,
    RemoveDevice,
    RemovePushSubscription,
    RemoveUser,
    Role,
)
from services.scheduler.decide import Limits, answer, answer_user, claim, lose_lease
from services.scheduler.policy import choose

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(attempts_per_turn=3)


class Desk:
    """Gives commands to one task as the scheduler would."""

    def __init__(self) -> None:
        self.task = Task(id="t1", user="owner")
        self.sequence = 0
        self.now = NOW
        self.decisions: list[Decision] = []

    def give(self, command: TaskCommand, sequence: int | None = None) -> Decision | None:
        if sequence is None:
            self.sequence += 1
            sequence = self.sequence
        decision = answer(self.task, command, sequence, self.now, LIMITS)  # type: ignore[arg-type]
        if decision is not None:
            self.take(decision)
        return decision

    def take(self, decision: Decision) -> None:
        self.task = evolve(self.task, decision)
        assert self.task.state == decision.state, "the subject's last token is the state it led to"
        self.decisions.append(decision)

    def submit(self) -> Desk:
        self.give(SubmitTask(key="s", prompt="do it", repository="r"))
        return self

    def claim(self) -> Desk:
        self.take(claim(self.task, "r", f"q{self.task.attempt}", self.now))
        return self

    def receipt(self, key: str) -> tuple[str, str]:
        receipt = self.task.receipts[key]
        return receipt.status, receipt.reason


QUESTION = Question(id="q", text="which?")
FINISH = FinishAttempt(key="f", attempt=1, journal_sequence=9, summary="done", usage=Usage())


@pytest.mark.parametrize(
    ("why", "commands", "state"),
    [
        ("a finished attempt ends the turn", [FINISH], TaskState.SUCCEEDED),
        (
            "a message that the model never saw opens the next turn",
            [SendMessage(key="m", text="wait"), FINISH],
            TaskState.QUEUED,
        ),
        ("a cancel ends the turn at once", [CancelTask(key="c")], TaskState.CANCELLED),
        ("what comes after a cancel changes nothing", [CancelTask(key="c"), FINISH], TaskState.CANCELLED),
        ("a question makes it wait", [RaiseQuestion(key="a", attempt=1, question=QUESTION)], TaskState.WAITING),
        (
            "an answer lets the runner that waited go on",
            [
                RaiseQuestion(key="a", attempt=1, question=QUESTION),
                AnswerQuestion(key="b", question="q", text="this"),
            ],
            TaskState.RUNNING,
        ),
        (
            "an answer to a parked question queues the turn",
            [
                RaiseQuestion(key="a", attempt=1, question=QUESTION),
                ParkAttempt(key="p", attempt=1, journal_sequence=0),
                AnswerQuestion(key="b", question="q", text="this"),
            ],
            TaskState.QUEUED,
        ),
        (
            "a parked attempt without a question is queued",
            [ParkAttempt(key="p", attempt=1, journal_sequence=0)],
            TaskState.QUEUED,
        ),
        (
            "a passing failure is delayed",
            [FailAttempt(key="x", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=9)],
            TaskState.DELAYED,
        ),
        (
            "a lasting failure ends the turn",
            [FailAttempt(key="x", attempt=1, journal_sequence=0, reason="no key")],
            TaskState.FAILED,
        ),
        (
            "a timer that comes early moves nothing",
            [
                FailAttempt(key="x", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=9),
                FireTimer(key="t", name="retry", due=NOW),
            ],
            TaskState.DELAYED,
        ),
        (
            "its timer queues a delayed turn",
            [
                FailAttempt(key="x", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=9),
                FireTimer(key="t", name="retry", due=NOW + timedelta(seconds=9)),
            ],
            TaskState.QUEUED,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_running_task_goes_where_a_command_sends_it(why: str, commands: list[TaskCommand], state: TaskState) -> None:
    desk = Desk().submit().claim()
    for command in commands:
        desk.give(command)
    assert desk.task.state is state, why


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (SubmitTask(key="again", prompt="x", repository="r"), "submitted before"),
        (SendMessage(key="k", text="  "), "empty"),
        (SendMessage(key="k", text="x" * 100_001), "limit is 100000"),
        (AnswerQuestion(key="k", question="none", text="x"), "not open any more"),
        (FinishAttempt(key="k", attempt=2, journal_sequence=0, summary="", usage=Usage()), "Attempt 2 is over"),
        (FireTimer(key="k", name="retry", due=NOW), "Nothing waits"),
    ],
)
def test_what_cannot_be_done_is_rejected_with_its_reason(command: TaskCommand, reason: str) -> None:
    desk = Desk().submit().claim()
    before = desk.task
    desk.give(command)
    status, told = desk.receipt(command.key)
    assert status == ReceiptStatus.REJECTED
    assert reason in told
    assert (desk.task.state, desk.task.messages, desk.task.turn) == (before.state, before.messages, before.turn)


@pytest.mark.parametrize("command", [SendMessage(key="k", text="x"), CancelTask(key="k"), FINISH])
def test_a_task_that_was_never_submitted_takes_nothing(command: TaskCommand) -> None:
    desk = Desk()
    desk.give(command)
    assert desk.receipt(command.key) == (ReceiptStatus.REJECTED, "There is no such task.")


def test_an_empty_prompt_makes_no_task() -> None:
    desk = Desk()
    desk.give(SubmitTask(key="s", prompt=" \n", repository="r"))
    assert desk.task.turn == 0
    assert "prompt is empty" in desk.receipt("s")[1]


def test_a_message_that_a_failed_turn_never_saw_opens_the_next_turn_and_does_so_once() -> None:
    desk = Desk().submit().claim()
    desk.give(SendMessage(key="m", text="use the other branch"))
    desk.give(FailAttempt(key="x", attempt=1, journal_sequence=0, reason="no such repository"))
    assert (desk.task.state, desk.task.turn) == (TaskState.QUEUED, 2)
    desk.claim()
    desk.give(FailAttempt(key="y", attempt=2, journal_sequence=0, reason="no such repository"))
    assert (desk.task.state, desk.task.turn) == (TaskState.FAILED, 2)


def test_a_runner_that_fails_while_the_user_thinks_leaves_the_question_open() -> None:
    desk = Desk().submit().claim()
    desk.give(RaiseQuestion(key="a", attempt=1, question=QUESTION))
    desk.give(FailAttempt(key="x", attempt=1, journal_sequence=0, reason="sandbox died", retry_after_seconds=0))
    assert (desk.task.state, desk.task.question, desk.task.holder) == (TaskState.WAITING, QUESTION, None)
    desk.give(AnswerQuestion(key="b", question="q", text="this"))
    assert desk.task.state is TaskState.QUEUED


def test_a_lost_runner_is_replaced_until_the_attempts_are_used_up() -> None:
    desk = Desk().submit()
    for left in (2, 1, 0):
        desk.claim()
        desk.take(lose_lease(desk.task, NOW, LIMITS))
        assert desk.task.state is (TaskState.QUEUED if left else TaskState.FAILED)
    desk.give(SendMessage(key="m", text="try again"))
    assert (desk.task.state, desk.task.turn, desk.task.turn_attempts) == (TaskState.QUEUED, 2, 0)


def test_a_runner_lost_while_the_user_thinks_leaves_the_question_open() -> None:
    desk = Desk().submit().claim()
    desk.give(RaiseQuestion(key="a", attempt=1, question=QUESTION))
    desk.take(lose_lease(desk.task, NOW, LIMITS))
    assert (desk.task.state, desk.task.question, desk.task.holder) == (TaskState.WAITING, QUESTION, None)


def test_the_slot_goes_to_the_user_with_the_fewest_running_and_to_nobody_over_the_limit() -> None:
    def queued(name: str, user: str, seconds: int, queue: str = "default") -> Task:
        return Task(id=name, user=user, queue=queue, queued_at=NOW + timedelta(seconds=seconds))

    tasks = [queued("a", "ann", 1), queued("b", "bob", 2), queued("c", "bob", 0), queued("g", "ann", 0, "gpu")]
    cases = [
        ("the one that waits longest", {}, 4, "default", "c"),
        ("the user with fewer running first", {"bob": 1}, 4, "default", "a"),
        ("nobody over the limit", {"bob": 2, "ann": 2}, 2, "default", None),
        ("only of its own queue", {}, 4, "gpu", "g"),
        ("nothing of a queue without tasks", {}, 4, "arm64", None),
    ]
    for why, running, limit, queue, expected in cases:
        chosen = choose(tasks, running, queue=queue, running_per_user=limit)
        assert (chosen.id if chosen else None) == expected, why


class TaskMachine(RuleBasedStateMachine):
    """Any commands in any order, repeated and late ones too, with claims and lost leases between them."""

    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.sent: list[tuple[TaskCommand, int]] = []
        self.count = 0

    def send(self, command: TaskCommand) -> None:
        self.desk.give(command)
        self.sent.append((command, self.desk.sequence))

    def key(self) -> str:
        self.count += 1
        return f"k{self.count}"

    @rule()
    def submit(self) -> None:
        self.send(SubmitTask(key=self.key(), prompt="p", repository="r"))

    @rule(text=st.sampled_from(["", "go on"]))
    def say(self, text: str) -> None:
        self.send(SendMessage(key=self.key(), text=text))

    @rule()
    def cancel(self) -> None:
        self.send(CancelTask(key=self.key()))

    @rule(back=st.integers(0, 2), read=st.integers(0, 2))
    def finish(self, back: int, read: int) -> None:
        attempt = self.desk.task.attempt - back
        self.send(
            FinishAttempt(
                key=self.key(), attempt=attempt, journal_sequence=0, summary="", usage=Usage(), messages_read=read
            )
        )

    @rule(back=st.integers(0, 1), retry=st.none() | st.floats(0, 100))
    def fail(self, back: int, retry: float | None) -> None:
        attempt = self.desk.task.attempt - back
        self.send(
            FailAttempt(key=self.key(), attempt=attempt, journal_sequence=0, reason="x", retry_after_seconds=retry)
        )

    @rule(back=st.integers(0, 1))
    def park(self, back: int) -> None:
        self.send(ParkAttempt(key=self.key(), attempt=self.desk.task.attempt - back, journal_sequence=0))

    @rule(question=st.sampled_from("ab"))
    def ask(self, question: str) -> None:
        asked = Question(id=question, text="?")
        self.send(RaiseQuestion(key=self.key(), attempt=self.desk.task.attempt, question=asked))

    @rule(question=st.sampled_from("ab"))
    def reply(self, question: str) -> None:
        self.send(AnswerQuestion(key=self.key(), question=question, text="yes"))

    @rule(early=st.integers(-10, 200))
    def timer(self, early: int) -> None:
        self.send(FireTimer(key=self.key(), name="retry", due=NOW + timedelta(seconds=early)))

    @precondition(lambda self: self.desk.task.state is TaskState.QUEUED and self.desk.task.turn > 0)
    @rule()
    def runner_claims(self) -> None:
        self.desk.claim()

    @precondition(lambda self: self.desk.task.holder is not None)
    @rule()
    def runner_dies(self) -> None:
        self.desk.take(lose_lease(self.desk.task, NOW, LIMITS))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def an_old_command_comes_again(self, data: st.DataObject) -> None:
        command, sequence = data.draw(st.sampled_from(self.sent))
        assert self.desk.give(command, sequence) is None, "the same message of the stream"
        self.desk.sequence += 1
        assert self.desk.give(command, self.desk.sequence) is None, "the same key, stored a second time"

    @invariant()
    def every_command_has_exactly_one_receipt(self) -> None:
        keys = [d.receipt.key for d in self.desk.decisions if d.receipt]
        assert sorted(keys) == sorted(command.key for command, _ in self.sent)

    @invariant()
    def turns_and_attempts_end_exactly_once(self) -> None:
        events = [event for decision in self.desk.decisions for event in decision.events]
        opened = [1 for e in events if isinstance(e, TaskSubmitted)] + [
            e.turn for e in events if isinstance(e, TurnOpened)
        ]
        ended = [event.turn for event in events if isinstance(event, TurnEnded)]
        assert opened == list(range(1, len(opened) + 1))
        assert ended == opened[: len(ended)]
        assert len(opened) - len(ended) == int(self.desk.task.is_open)
        claimed = [event.attempt for event in events if isinstance(event, AttemptClaimed)]
        over = [event.attempt for event in events if isinstance(event, AttemptEnded)]
        assert claimed == list(range(1, len(claimed) + 1))
        assert over == claimed[: len(over)]
        assert len(claimed) - len(over) == int(self.desk.task.holder is not None)

    @invariant()
    def the_state_fits_what_it_says(self) -> None:
        task = self.desk.task
        assert (task.state is TaskState.RUNNING) <= (task.holder is not None)
        assert (task.holder is not None) <= (task.state in (TaskState.RUNNING, TaskState.WAITING))
        assert (task.state is TaskState.WAITING) == (task.question is not None)
        assert (task.state is TaskState.DELAYED) == (task.delayed_until is not None)

    @invariant()
    def the_fold_of_the_log_is_the_state(self) -> None:
        folded = Task(id="t1", user="owner")
        for decision in self.desk.decisions:
            folded = evolve(folded, decision)
        assert folded == self.desk.task


TestTaskMachine = TaskMachine.TestCase
TestTaskMachine.settings = settings(max_examples=300, stateful_step_count=30, deadline=None, print_blob=True)


def user_after(*commands: AnyUserCommand, id_: str = OWNER) -> tuple[User, list[str]]:
    """The owner, or another user, after the commands, and how each ended."""
    user, ends = User(id=id_), []
    for sequence, command in enumerate(commands, 1):
        decision = answer_user(user, command, sequence, NOW)
        assert decision is not None
        assert decision.receipt is not None
        user = evolve_user(user, decision)
        ends.append(decision.receipt.reason or "consumed")
    return user, ends


OWNER_ADDED = AddUser(key="o", name="owner", role=Role.OWNER)
LATER = NOW + timedelta(hours=1)


def test_a_sign_in_code_works_once_and_not_after_its_end() -> None:
    user, ends = user_after(
        OWNER_ADDED,
        CreateSignInCode(key="c", code_hash="h", expires_at=LATER),
        RedeemSignInCode(key="r1", code_hash="h", device="d1", device_name="phone", token_hash="t1"),
        RedeemSignInCode(key="r2", code_hash="h", device="d2", device_name="thief", token_hash="t2"),
        CreateSignInCode(key="c2", code_hash="old", expires_at=NOW),
    )
    assert list(user.devices) == ["d1"]
    assert ends[:3] == ["consumed"] * 3
    assert "used already" in ends[3]
    assert "ended already" in ends[4]


def test_there_is_one_owner_and_a_name_is_given_once() -> None:
    _, ends = user_after(AddUser(key="a", name="eve"), OWNER_ADDED, AddUser(key="b", name="x", role=Role.OWNER))
    assert ends[0] == "There is exactly one owner."
    assert ends[1] == "consumed"
    assert "already" in ends[2]


def test_only_the_owner_gives_credentials() -> None:
    user = User(id="uother")
    added = answer_user(user, AddUser(key="a", name="eve"), 1, NOW)
    assert added is not None
    host = AddHost(key="h", host="git.example", kind=HostKind.TOKEN, sealed="…")
    refused = answer_user(evolve_user(user, added), host, 2, NOW)
    assert refused is not None
    assert refused.receipt is not None
    assert "Only the owner" in refused.receipt.reason


def test_a_credential_is_the_owners_alone_unless_it_is_shared() -> None:
    mine = AddHost(key="h", host="git.example", kind=HostKind.TOKEN, sealed="…")
    user, _ = user_after(OWNER_ADDED, mine, AddHost(key="i", host="b", kind=HostKind.TOKEN, sealed="…", shared=True))
    assert {host.host: host.shared for host in user.hosts.values()} == {"git.example": False, "b": True}
    user, _ = user_after(OWNER_ADDED, replace(mine, shared=True), replace(mine, key="j"))
    assert not user.hosts["git.example"].shared, "given again without the word, it is no longer"


def test_a_removed_user_has_nothing_left_and_does_not_come_again() -> None:
    eve = AddUser(key="a", name="eve")
    device = AddDevice(key="d", device="d1", device_name="laptop", token_hash="t")
    commands = (eve, device, RemoveUser(key="r"), replace(eve, key="b"), replace(device, key="e"))
    user, ends = user_after(*commands, id_="ueve")
    assert (user.exists, user.devices) == (False, {})
    assert ends[:3] == ["consumed", "consumed", "consumed"]
    assert ["The owner removed this user" in end for end in ends[3:]] == [True, True]


def test_the_owner_stays() -> None:
    user, ends = user_after(OWNER_ADDED, RemoveUser(key="r"))
    assert user.exists
    assert ends[-1] == "The owner cannot be removed."


def test_devices_come_and_go_and_a_missing_one_is_said_to_be_missing() -> None:
    device = AddDevice(key="d", device="d1", device_name="laptop", token_hash="t")
    user, ends = user_after(OWNER_ADDED, device, RemoveDevice(key="x", device="d1"), RemoveDevice(key="y", device="d1"))
    assert user.devices == {}
    assert ends == ["consumed", "consumed", "consumed", "There is no such device."]


def test_a_device_has_one_subscription_which_goes_with_it() -> None:
    device = AddDevice(key="d", device="d1", device_name="phone", token_hash="t")
    user, ends = user_after(
        OWNER_ADDED,
        device,
        AddPushSubscription(key="1", device="d1", subscription="old", sealed="…"),
        AddPushSubscription(key="2", device="d1", subscription="new", sealed="…"),
        RemovePushSubscription(key="3", device="d1", subscription="old"),
        AddPushSubscription(key="4", device="d2", subscription="x", sealed="…"),
    )
    assert user.devices["d1"].push == PushSubscription(id="new", sealed="…")
    assert ends[4:] == ["This device is told nothing by push.", "There is no such device."]
    user, ends = user_after(
        OWNER_ADDED,
        device,
        AddPushSubscription(key="1", device="d1", subscription="new", sealed="…"),
        RemovePushSubscription(key="2", device="d1"),
        RemovePushSubscription(key="3", device="d1"),
    )
    assert user.devices["d1"].push is None
    assert ends[3:] == ["consumed", "This device is told nothing by push."]
