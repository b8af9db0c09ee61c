"""Whatever is accepted of a user fits into the messages that it leads to: what was taken can be granted."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.evolve import SPENT_KEPT, Task, User, evolve_user
from protocol.marks import MARK_LIMIT_CHARS, METADATA_LIMIT, METADATA_LIMIT_CHARS, TAGS_LIMIT
from protocol.query import AttemptGranted
from protocol.rules import PATTERN_LIMIT_CHARS, RULES_LIMIT, Rule, RuleAction
from protocol.task import Published, PullRequest, SubmitTask, TagTask, Terms
from protocol.texts import PROMPT_LIMIT_CHARS
from protocol.user import AddUser, Role, SetRules
from services.scheduler.claims import Claims
from services.scheduler.decide import answer_user
from tests.unit.desk import NOW, Desk

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
