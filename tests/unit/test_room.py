"""Whatever is accepted of a user fits into the messages that it leads to: what was taken can be granted,
and put into the archive once it has ended."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.evolve import SPENT_KEPT, Task, User, evolve, evolve_user
from protocol.ids import KEY_LIMIT_BYTES
from protocol.marks import MARK_LIMIT_CHARS, METADATA_LIMIT, METADATA_LIMIT_CHARS, TAGS_LIMIT
from protocol.query import AttemptGranted
from protocol.receipts import is_full
from protocol.rules import PATTERN_LIMIT_CHARS, RULES_LIMIT, Rule, RuleAction
from protocol.task import (
    Decision,
    FinishAttempt,
    Published,
    PullRequest,
    Receipt,
    ReceiptStatus,
    SendMessage,
    SubmitTask,
    TagTask,
    TaskArchived,
    Terms,
    Usage,
    decode_decision,
)
from protocol.texts import PROMPT_LIMIT_BYTES, PROMPT_LIMIT_CHARS
from protocol.user import AddUser, Role, SetRules
from services.scheduler.archivist import in_one_message
from services.scheduler.claims import Claims
from services.scheduler.decide import answer, answer_user
from tests.unit.desk import LIMITS, NOW, Desk

CHARACTERS = ("x", '"', "\n", "é", "修", "🔥", "\x01")
"""From one byte to six in JSON."""
QUARTERS = int(SPENT_KEPT / timedelta(minutes=15))
LONGEST = (Rule(action=RuleAction.ALLOW, tool="bash", pattern="x" * PATTERN_LIMIT_CHARS),) * RULES_LIMIT
WORK = Published(
    branch="b" * 250,
    commit="c" * 64,
    base_commit="d" * 64,
    pushed_to="https://" + "h" * 1_000,
    pull_request=PullRequest(number=10**9, url="https://" + "p" * 1_000),
)


def long(limit: int) -> st.SearchStrategy[str]:
    """Texts of up to a little more than `limit`, the longest often."""
    count = st.integers(1, limit + 1) | st.just(limit)
    return st.builds(lambda character, times: character * times, st.sampled_from(CHARACTERS), count)


rules = st.builds(
    lambda pattern, times: tuple(Rule(action=RuleAction.ALLOW, tool="bash", pattern=pattern) for _ in range(times)),
    long(PATTERN_LIMIT_CHARS),
    st.integers(0, RULES_LIMIT + 1) | st.just(RULES_LIMIT),
)


def marks(character: str) -> TagTask:
    """All that a task can be marked with, the longest of each."""
    names = [f"{n:02}" + "修" * (MARK_LIMIT_CHARS - 2) for n in range(max(TAGS_LIMIT, METADATA_LIMIT))]
    metadata: dict[str, str | None] = dict.fromkeys(names[:METADATA_LIMIT], character * METADATA_LIMIT_CHARS)
    return TagTask(key="marks", add=tuple(names[:TAGS_LIMIT]), metadata=metadata)


def granted(task: Task) -> AttemptGranted:
    return Claims.granted(task, 2**53)


def terms_after(asked: tuple[Rule, ...]) -> Terms:
    """What a user's log says who was asked to take these rules."""
    user, added = User(id="owner"), AddUser(key="a", name="o", role=Role.OWNER)
    for sequence, command in enumerate((added, SetRules(key="r", rules=asked)), start=1):
        decision = answer_user(user, command, sequence, NOW)
        assert decision is not None
        user = evolve_user(user, decision)
    return Terms(model="m" * 100, rules=user.rules, day_usd=1 / 3, day_ends=NOW)


def ended(receipts: dict[str, Receipt]) -> Desk:
    """A task that has the most of everything, and ended."""
    desk = Desk()
    prompt = "\x01" * (PROMPT_LIMIT_BYTES // 6)
    desk.give(SubmitTask(key="s", prompt=prompt, repository="🔥" * 1_000, title="🔥" * 200, rules=LONGEST))
    desk.give(marks("🔥"))
    desk.claim()
    said = "\x01" * 20_000
    done = FinishAttempt(key="finish 1", attempt=1, journal_sequence=1, summary=said, usage=Usage(), published=WORK)
    desk.give(done)
    spent = {NOW + timedelta(minutes=15 * n): 0.1 + 0.2 for n in range(QUARTERS)}
    desk.task = replace(desk.task, spent=spent, reason=said, receipts=receipts)
    return desk


def put_away(task: Task) -> Decision:
    fold = msgspec.to_builtins(in_one_message(task))
    event = TaskArchived(fold=fold, archive="a" * 200, until=2**53, checkpoint="c" * 200)
    return Decision(
        at=NOW, state=task.state, events=(event,), receipt=Receipt(key="k" * 200, status=ReceiptStatus.CONSUMED)
    )


def many(count: int, reason: str = "The task has succeeded already.") -> dict[str, Receipt]:
    keys = [f"{number:0{KEY_LIMIT_BYTES}}" for number in range(count)]
    status, command = ReceiptStatus.REJECTED, "answer_question"
    return {key: Receipt(key=key, status=status, reason=reason, command=command) for key in keys}


@settings(max_examples=60, deadline=None)
@given(long(PROMPT_LIMIT_CHARS), rules, rules, long(1_000), st.sampled_from(("x", '"', "🔥")))
@example("修" * PROMPT_LIMIT_CHARS, LONGEST, LONGEST, "🔥" * 1_000, "🔥")
def test_what_was_accepted_can_be_granted(
    prompt: str, own: tuple[Rule, ...], of_user: tuple[Rule, ...], address: str, marked: str
) -> None:
    desk = Desk()
    desk.give(
        SubmitTask(key="s", prompt=prompt, repository=address, base=address, model=address, title=address, rules=own)
    )
    desk.give(marks(marked))
    if desk.task.turn:
        assert desk.receipt("marks")[0] == "consumed"
        spent = {NOW + timedelta(minutes=15 * n): 0.1 + 0.2 for n in range(QUARTERS)}
        desk.task = replace(desk.task, spent=spent, published=WORK)
        desk.claim(terms_after(of_user))
        assert len(encode(granted(desk.task))) < MESSAGE_LIMIT_BYTES
    assert all(len(encode(decision)) < MESSAGE_LIMIT_BYTES for decision in desk.decisions)


def test_the_fullest_task_goes_into_the_archive_with_all_its_receipts() -> None:
    count = next(count for count in range(2_000) if is_full(many(count)))
    task = ended(many(count)).task
    decision = put_away(task)
    assert len(encode(decision)) < MESSAGE_LIMIT_BYTES
    back = evolve(Task(id="t1", user="owner"), decode_decision(encode(decision)))
    assert back.archived_at == NOW
    assert {key: back.receipts[key] for key in task.receipts} == task.receipts
    assert back.summary.endswith("…"), "the whole of it is in the archive"


def test_a_task_of_an_earlier_release_with_more_receipts_than_have_room_stays_full() -> None:
    task = ended(many(2_000, "x" * 500)).task
    decision = put_away(task)
    assert len(encode(decision)) < MESSAGE_LIMIT_BYTES
    back = evolve(Task(id="t1", user="owner"), decision)
    told = answer(back, SendMessage(key=next(iter(task.receipts)), text="again"), 2**53, NOW, LIMITS)
    assert told is not None
    assert (told.events, told.receipt and told.receipt.status) == ((), ReceiptStatus.REJECTED)
