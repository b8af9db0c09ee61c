"""Whose sandbox the next attempt may go on in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from protocol.journal import (
    AnyJournalEvent,
    AttemptStarted,
    JournalEntry,
    ModelCall,
    SandboxRestored,
    StepStarted,
    ToolCall,
)
from services.runner.attempt import left_by

BEGUN = AttemptStarted(turn=1, base_commit="", branch="b", model="m", sandbox="docker")
KEPT = AttemptStarted(turn=1, base_commit="", branch="b", model="m", sandbox="docker", sandbox_kept=True)
USED = StepStarted(step=2, action=ToolCall(id="t", name="bash", input={}))
ASKED = StepStarted(step=3, action=ModelCall())
RESTORED = SandboxRestored(reason="its container ended")


@pytest.mark.parametrize(
    ("journal", "attempt"),
    [
        ([], 0),
        ([(1, BEGUN), (1, ASKED)], 0),  # it may have died before its sandbox had its files
        ([(1, BEGUN), (1, USED)], 1),
        ([(1, BEGUN), (1, USED), (2, BEGUN)], 0),  # nor need the second one's be restored
        ([(1, BEGUN), (1, USED), (2, KEPT)], 2),
        ([(1, BEGUN), (1, USED), (2, KEPT), (2, RESTORED)], 0),
        ([(1, BEGUN), (1, USED), (1, RESTORED), (1, ASKED)], 0),
        ([(1, BEGUN), (1, USED), (1, RESTORED), (1, USED)], 1),
    ],
)
def test_it_is_one_that_is_known_to_have_been_ready(journal: list[tuple[int, AnyJournalEvent]], attempt: int) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    assert left_by([JournalEntry(attempt=number, at=at, event=event) for number, event in journal]) == attempt
