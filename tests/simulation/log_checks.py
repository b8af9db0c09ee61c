"""What must hold of a task's log once the task is over, whatever happened on the way: DESIGN's invariants 1 to 3."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from itertools import pairwise

from protocol.evolve import User, evolve_user
from protocol.journal import StepFinished, StepStarted, ToolCall, ToolResult, decode_entry
from protocol.rules import RuleAction
from protocol.task import (
    AttemptClaimed,
    AttemptEnded,
    Decision,
    QuestionAnswered,
    QuestionRaised,
    ReceiptStatus,
    TaskSubmitted,
    TurnEnded,
    TurnOpened,
    decode_decision,
    is_of_a_runner,
)
from protocol.user import decode_user_decision
from services.bus import Stored


def check_log(log: list[Stored], sent: set[str]) -> None:
    """`log` is all of `evt.<user>.<task>.>`, `sent` the keys of the commands that were acknowledged."""
    decisions = [decode_decision(stored.data) for stored in log if ".task." in stored.subject]
    check_fence(log)
    check_receipts(decisions, sent)
    check_turns(decisions)
    check_attempts(log)
    check_steps(log)
    check_approvals(log)


def check_user_log(user: str, told: list[Stored], log: list[Stored]) -> None:
    """`told` is everything that was decided over the user, `log` what is in the stream of it."""
    for before, stored in pairwise(told):
        assert stored.previous == before.sequence, (
            f"{stored.subject} at {stored.sequence} was written over an old state"
        )
    assert folded(user, log) == folded(user, told)


def folded(user: str, log: list[Stored]) -> User:
    return reduce(evolve_user, (decode_user_decision(stored.data) for stored in log), User(id=user))


def check_fence(log: list[Stored]) -> None:
    """Whoever wrote had seen what was before it: a runner everything, a scheduler every decision."""
    last = decided = 0
    for stored in log:
        seen = (last,)
        if ".task." in stored.subject:
            assert decode_decision(stored.data).state == stored.subject.rpartition(".")[2]
            seen, decided = (last, decided), stored.sequence
        assert stored.previous in seen, f"{stored.subject} at {stored.sequence} was written over an old state"
        last = stored.sequence


def check_receipts(decisions: list[Decision], sent: set[str]) -> None:
    """Each command that was acknowledged has exactly one receipt, and they come in the commands' order."""
    receipts = [decision.receipt for decision in decisions if decision.receipt]
    users = Counter(receipt.key for receipt in receipts if not is_of_a_runner(receipt.key))
    assert max(users.values(), default=1) == 1, users
    assert sent <= set(users)
    done = Counter(receipt.key for receipt in receipts if receipt.status is ReceiptStatus.CONSUMED)
    assert max(done.values(), default=1) == 1, done
    answered = [decision.command_sequence for decision in decisions if decision.command_sequence]
    assert answered == sorted(answered)


def check_turns(decisions: list[Decision]) -> None:
    """Each turn ends exactly once, and the next opens after that."""
    open_turn, ended = 0, 0
    for event in (event for decision in decisions for event in decision.events):
        match event:
            case TaskSubmitted():
                assert (open_turn, ended) == (0, 0)
                open_turn = 1
            case TurnOpened(turn=turn):
                assert (open_turn, ended) == (0, turn - 1)
                open_turn = turn
            case TurnEnded(turn=turn):
                assert turn == open_turn
                open_turn, ended = 0, turn
            case _:
                pass
    assert open_turn == 0


def check_attempts(log: list[Stored]) -> None:
    """Attempts count up, one at a time, and whoever holds none writes nothing."""
    held, last = 0, 0
    for stored in log:
        if ".journal." in stored.subject:
            assert decode_entry(stored.data).attempt == held, f"{stored.subject} at {stored.sequence}: a stale write"
            continue
        for event in decode_decision(stored.data).events:
            match event:
                case AttemptClaimed(attempt=attempt):
                    assert (held, attempt) == (0, last + 1)
                    held = last = attempt
                case AttemptEnded(attempt=attempt):
                    assert attempt == held
                    held = 0
                case _:
                    pass
    assert held == 0


def check_steps(log: list[Stored]) -> None:
    """Steps count up, and each has at most one outcome; the last turn's have exactly one, or were cut off."""
    started, finished = [], []
    for entry in (decode_entry(stored.data) for stored in log if ".journal." in stored.subject):
        match entry.event:
            case StepStarted(step=step):
                started.append(step)
            case StepFinished(step=step):
                finished.append(step)
            case _:
                pass
    assert started == list(range(1, len(started) + 1))
    assert max(Counter(finished).values(), default=1) == 1
    assert set(finished) <= set(started)


def check_approvals(log: list[Stored]) -> None:
    """What the task's rules ask for is done after a yes alone, and no question that was answered is asked again."""
    asks_before: set[str] = set()
    words: dict[str, bool | None] = {}
    unapproved: set[int] = set()
    for stored in log:
        if ".task." in stored.subject:
            for event in decode_decision(stored.data).events:
                match event:
                    case TaskSubmitted(rules=rules):
                        asks_before = {rule.tool for rule in rules if rule.action is RuleAction.ASK}
                    case QuestionRaised(question=asked):
                        assert asked.id not in words, f"{asked.id} was answered already"
                    case QuestionAnswered(question=question, approved=approved):
                        words[question] = approved
                    case _:
                        pass
            continue
        match decode_entry(stored.data).event:
            case StepStarted(step=step, action=ToolCall(name=name)) if name in asks_before:
                if words.get(f"approval_{step}") is not True:
                    unapproved.add(step)
            case StepFinished(step=step, result=ToolResult() as result) if step in unapproved:
                assert result.text.startswith(("Not allowed:", "Not run:")), f"step {step} was run without a yes"
            case _:
                pass
