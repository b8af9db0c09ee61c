"""The scheduler's core: a table of cases with a reason each."""

from __future__ import annotations

from datetime import timedelta

import pytest

from protocol.task import (
    AnswerQuestion,
    ApproveQuestion,
    Budget,
    CancelTask,
    DenyQuestion,
    FailAttempt,
    FinishAttempt,
    FireTimer,
    ParkAttempt,
    PauseTask,
    Question,
    QuestionAnswered,
    QuestionKind,
    RaiseQuestion,
    ReceiptStatus,
    ResumeTask,
    RetryTask,
    SendMessage,
    SetBudget,
    SetPriority,
    SubmitTask,
    TagTask,
    TaskCommand,
    TaskState,
    Usage,
)
from services.scheduler.decide import lose_lease
from tests.unit.desk import LIMITS, NOW, Desk

QUESTION = Question(id="q", text="which?")
APPROVAL = Question(id="q", text="may I?", kind=QuestionKind.APPROVAL, tool="bash", input="make")
FINISH = FinishAttempt(key="f", attempt=1, journal_sequence=9, summary="done", usage=Usage())
PAUSE, RESUME = PauseTask(key="pause"), ResumeTask(key="resume")
PARK = ParkAttempt(key="park", attempt=1, journal_sequence=0)
ASK, ANSWER = RaiseQuestion(key="a", attempt=1, question=QUESTION), AnswerQuestion(key="b", question="q", text="this")
PASSING_FAILURE = FailAttempt(key="x", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=9)


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
            "an approval lets the runner that waited go on",
            [RaiseQuestion(key="a", attempt=1, question=APPROVAL), ApproveQuestion(key="b", question="q")],
            TaskState.RUNNING,
        ),
        (
            "a denial too: the agent goes on without",
            [RaiseQuestion(key="a", attempt=1, question=APPROVAL), DenyQuestion(key="b", question="q")],
            TaskState.RUNNING,
        ),
        (
            "an approval of a parked attempt queues the turn",
            [
                RaiseQuestion(key="a", attempt=1, question=APPROVAL),
                ParkAttempt(key="p", attempt=1, journal_sequence=0),
                ApproveQuestion(key="b", question="q"),
            ],
            TaskState.QUEUED,
        ),
        (
            "words are no approval",
            [RaiseQuestion(key="a", attempt=1, question=APPROVAL), AnswerQuestion(key="b", question="q", text="yes")],
            TaskState.WAITING,
        ),
        (
            "an approval is no answer",
            [RaiseQuestion(key="a", attempt=1, question=QUESTION), ApproveQuestion(key="b", question="q")],
            TaskState.WAITING,
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
                FireTimer(key="t", name="delay", due=NOW),
            ],
            TaskState.DELAYED,
        ),
        (
            "its timer queues a delayed turn",
            [
                FailAttempt(key="x", attempt=1, journal_sequence=0, reason="busy", retry_after_seconds=9),
                FireTimer(key="t", name="delay", due=NOW + timedelta(seconds=9 * 1.5)),
            ],
            TaskState.QUEUED,
        ),
        ("a pause holds it back at once", [PAUSE], TaskState.PAUSED),
        ("its runner gives the attempt back, and it stays paused", [PAUSE, PARK], TaskState.PAUSED),
        ("resumed before its runner gave it back, that one has it", [PAUSE, RESUME], TaskState.RUNNING),
        ("the runner that was told to give it back does so all the same", [PAUSE, RESUME, PARK], TaskState.QUEUED),
        ("resumed after its runner gave it back, it waits for another", [PAUSE, PARK, RESUME], TaskState.QUEUED),
        ("a runner that was done before it saw the pause is believed", [PAUSE, FINISH], TaskState.SUCCEEDED),
        (
            "a message before that opens the next turn, which is paused too",
            [PAUSE, SendMessage(key="m", text="wait"), FINISH],
            TaskState.PAUSED,
        ),
        (
            "a passing failure of a paused turn moves nothing",
            [PAUSE, PASSING_FAILURE],
            TaskState.PAUSED,
        ),
        (
            "resumed before the time of its next try, it waits for that",
            [PASSING_FAILURE, PAUSE, RESUME],
            TaskState.DELAYED,
        ),
        (
            "a timer that fires while it is paused moves nothing",
            [PASSING_FAILURE, PAUSE, FireTimer(key="t", name="delay", due=NOW + timedelta(seconds=9))],
            TaskState.PAUSED,
        ),
        ("a question that is open when it is paused waits again", [ASK, PAUSE, PARK, RESUME], TaskState.WAITING),
        ("a question that its runner asks too late is kept", [PAUSE, ASK, PARK, RESUME], TaskState.WAITING),
        ("an answer to a paused task moves nothing", [ASK, PAUSE, PARK, ANSWER], TaskState.PAUSED),
        ("its turn goes on with the answer", [ASK, PAUSE, PARK, ANSWER, RESUME], TaskState.QUEUED),
        ("a paused task can be cancelled", [PAUSE, CancelTask(key="c")], TaskState.CANCELLED),
        ("a cancelled turn can be tried again", [CancelTask(key="c"), RetryTask(key="r")], TaskState.QUEUED),
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
        (SendMessage(key="k", text="x" * 100_001), "limit is 100,000"),
        (AnswerQuestion(key="k", question="none", text="x"), "not open any more"),
        (ApproveQuestion(key="k", question="none"), "not open any more"),
        (DenyQuestion(key="k", question="none"), "not open any more"),
        (FinishAttempt(key="k", attempt=2, journal_sequence=0, summary="", usage=Usage()), "Attempt 2 is over"),
        (FireTimer(key="k", name="delay", due=NOW), "Nothing waits"),
        (SetPriority(key="k", priority=-11), "-10 to 10"),
        (ResumeTask(key="k"), "not paused: it is running"),
        (RetryTask(key="k"), "has not ended yet"),
        (TagTask(key="k", add=("a b",)), "without spaces"),
        (TagTask(key="k", add=tuple(f"t{n}" for n in range(21))), "at most 20 tags"),
        (TagTask(key="k", metadata={"a": "x" * 501}), "at most 500 characters"),
        (TagTask(key="k", metadata={f"m{n}": "" for n in range(21)}), "at most 20 pieces"),
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


def test_a_priority_that_there_is_not_makes_no_task() -> None:
    desk = Desk()
    desk.give(SubmitTask(key="s", prompt="do it", repository="r", priority=11))
    assert desk.task.turn == 0
    assert "-10 to 10" in desk.receipt("s")[1]


def test_a_priority_can_be_set_in_any_state() -> None:
    desk = Desk().submit()
    for priority in (3, -3):
        desk.give(SetPriority(key=f"p{priority}", priority=priority))
        assert (desk.task.priority, desk.task.state) == (priority, TaskState.QUEUED)
    desk.give(CancelTask(key="c"))
    desk.give(SetPriority(key="p", priority=1))
    assert (desk.task.priority, desk.task.state) == (1, TaskState.CANCELLED)


def test_what_has_ended_is_not_ended_again_and_says_how_it_did() -> None:
    desk = Desk().submit()
    desk.give(CancelTask(key="c"))
    desk.give(CancelTask(key="again"))
    assert desk.receipt("again") == (ReceiptStatus.REJECTED, "The task was cancelled already.")


def test_a_turn_that_had_begun_keeps_its_place_and_a_new_one_waits_from_now() -> None:
    desk = Desk().submit()
    desk.now += timedelta(minutes=1)
    desk.claim()
    desk.now += timedelta(minutes=1)
    desk.give(ParkAttempt(key="p", attempt=1, journal_sequence=0))
    assert (desk.task.in_line_since, desk.task.queued_at) == (NOW, desk.now)
    desk.give(CancelTask(key="c"))
    desk.now += timedelta(minutes=1)
    desk.give(SendMessage(key="m", text="once more"))
    assert desk.task.in_line_since == desk.now


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


def test_of_two_devices_that_decide_the_first_wins_and_the_other_is_told() -> None:
    desk = Desk().submit().claim()
    desk.give(RaiseQuestion(key="a", attempt=1, question=APPROVAL))
    desk.give(DenyQuestion(key="b", question="q", reason=" use the branch ", device="phone"))
    desk.give(ApproveQuestion(key="c", question="q", device="laptop"))
    assert desk.receipt("b")[0] == ReceiptStatus.CONSUMED
    status, reason = desk.receipt("c")
    assert (status, "not open any more" in reason) == (ReceiptStatus.REJECTED, True)
    decided = [e for d in desk.decisions for e in d.events if isinstance(e, QuestionAnswered)]
    assert decided == [QuestionAnswered(question="q", text="use the branch", approved=False, device="phone")]


def test_a_queued_task_that_is_paused_gets_no_attempt_and_goes_to_the_end_of_the_queue() -> None:
    desk = Desk().submit()
    desk.give(PAUSE)
    assert desk.task.state is TaskState.PAUSED
    desk.give(PauseTask(key="again"))
    assert desk.receipt("again") == (ReceiptStatus.REJECTED, "The task is paused already.")
    desk.now += timedelta(seconds=5)
    desk.give(RESUME)
    assert (desk.task.state, desk.task.queued_at) == (TaskState.QUEUED, desk.now)


def test_a_paused_task_whose_runner_dies_stays_paused() -> None:
    desk = Desk().submit().claim()
    desk.give(PAUSE)
    desk.take(lose_lease(desk.task, NOW, LIMITS))
    assert (desk.task.state, desk.task.holder) == (TaskState.PAUSED, None)


def test_a_delay_that_is_over_while_the_task_is_paused_is_not_waited_for_again() -> None:
    desk = Desk().submit().claim()
    for command in (PASSING_FAILURE, PAUSE):
        desk.give(command)
    desk.now += timedelta(seconds=9 * 1.5)
    desk.give(RESUME)
    assert (desk.task.state, desk.task.delayed_until) == (TaskState.QUEUED, None)


def test_the_timer_of_a_resumed_delay_is_another_one() -> None:
    """The old one may have fired meanwhile by the server's clock: its key has its receipt."""
    desk = Desk().submit().claim()
    for command in (PASSING_FAILURE, PAUSE, FireTimer(key="t", name="delay", due=NOW + timedelta(seconds=9)), RESUME):
        desk.give(command)
    assert desk.task.delayed_until is not None
    assert desk.task.delayed_until > NOW + timedelta(seconds=9)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (FailAttempt(key="e", attempt=1, journal_sequence=0, reason="no key"), ReceiptStatus.CONSUMED),
        (CancelTask(key="e"), ReceiptStatus.CONSUMED),
        (FINISH, ReceiptStatus.REJECTED),
    ],
)
def test_what_failed_or_was_cancelled_is_tried_again(ending: TaskCommand, status: ReceiptStatus) -> None:
    desk = Desk().submit().claim()
    desk.give(ending)
    desk.give(RetryTask(key="again"))
    assert desk.receipt("again")[0] == status
    assert desk.task.turn == (2 if status is ReceiptStatus.CONSUMED else 1)
    assert desk.task.messages == 0, "the user said nothing new"


def test_marks_are_put_on_and_taken_away_in_any_state() -> None:
    desk = Desk()
    desk.give(SubmitTask(key="s", prompt="do it", repository="r", tags=("b", "a", "b"), metadata={"for": "Ann"}))
    assert (desk.task.tags, desk.task.metadata) == (("a", "b"), {"for": "Ann"})
    desk.give(CancelTask(key="c"))
    desk.give(TagTask(key="t", add=("c",), remove=("a", "never"), metadata={"for": None, "ticket": "7"}))
    assert (desk.task.tags, desk.task.metadata) == (("b", "c"), {"ticket": "7"})
    assert desk.task.state is TaskState.CANCELLED


def test_a_budget_can_be_changed_in_any_state_and_what_is_not_said_stays() -> None:
    desk = Desk().submit().claim()
    desk.give(SetBudget(key="b", budget=Budget(money_usd=2.0, steps=0)))
    desk.give(SetBudget(key="c", budget=Budget(money_usd=None)))
    assert (desk.task.budget, desk.task.state) == (Budget(money_usd=None, steps=0), TaskState.RUNNING)
    desk.give(CancelTask(key="d"))
    desk.give(SetBudget(key="e", budget=Budget(steps=5)))
    assert (desk.task.budget, desk.task.state) == (Budget(money_usd=None, steps=5), TaskState.CANCELLED)
