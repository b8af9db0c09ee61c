"""Whatever is lost, doubled, late or read from a replica that lags: each event once, in order, none left out."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.live.splice import HELD_LIMIT, UNKNOWN, Event, Splice


def journal(sequence: int, follows: int) -> Event:
    return Event(sequence, follows, b"")


def decision(sequence: int) -> Event:
    return Event(sequence, UNKNOWN, b"")


def in_sync(cursor: int) -> Splice:
    splice = Splice(cursor)
    splice.begin()
    assert splice.settle() == []
    assert splice.live
    return splice


def test_a_journal_entry_that_follows_the_cursor_is_handed_on_at_once() -> None:
    splice = in_sync(5)
    assert splice.offer(journal(9, follows=5))
    assert splice.cursor == 9


def test_an_event_seen_before_is_dropped() -> None:
    splice = in_sync(5)
    assert not splice.offer(journal(5, follows=3))
    assert splice.live


def test_a_decision_is_read_back_because_a_journal_entry_may_lie_before_it() -> None:
    splice = in_sync(5)
    assert not splice.offer(decision(9))
    assert splice.missing
    splice.begin()
    assert [splice.take(journal(7, follows=5)), splice.take(decision(9))] == [True, True]
    assert splice.settle() == []
    assert splice.live


def test_a_decision_with_the_very_next_sequence_needs_no_read() -> None:
    splice = in_sync(5)
    assert splice.offer(decision(6))


def test_what_arrives_during_a_read_is_handed_on_after_it() -> None:
    splice = Splice(0)
    splice.begin()
    late = journal(8, follows=4)
    assert not splice.offer(late)
    assert splice.take(decision(4))
    assert splice.settle() == [late]
    assert splice.live


def test_an_interruption_during_a_read_asks_for_another_one() -> None:
    splice = Splice(0)
    splice.begin()
    splice.doubt()
    splice.settle()
    assert splice.missing


def test_more_than_can_be_held_is_read_in_the_next_round() -> None:
    splice = Splice(0)
    splice.begin()
    for sequence in range(1, HELD_LIMIT + 2):
        splice.offer(journal(sequence * 2, follows=sequence * 2 - 2))
    assert splice.settle() == []
    assert splice.missing


class Delivery(RuleBasedStateMachine):
    """A stream that is written to, a feed that loses, doubles and reorders, reads that may be behind; one splice."""

    @initialize(cursor=st.integers(0, 6))
    def start(self, cursor: int) -> None:
        self.stored: list[Event] = []
        self.last = 0
        self.on_the_way: list[Event] = []
        self.seen: list[int] = []
        self.splice = Splice(cursor)
        self.first = cursor
        self.page: list[Event] | None = None

    @rule(is_decision=st.booleans(), others=st.integers(0, 2), lost=st.booleans(), copies=st.integers(1, 2))
    def store(self, is_decision: bool, others: int, lost: bool, copies: int) -> None:
        """Somebody writes; other tasks' messages lie between."""
        sequence = self.last + 1 + others
        follows = self.stored[-1].sequence if self.stored else 0
        event = decision(sequence) if is_decision else journal(sequence, follows)
        self.last = sequence
        self.stored.append(event)
        if not lost:
            self.on_the_way += [event] * copies

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        """The feed brings one of what is on its way: mostly the next, sometimes a later one."""
        if self.on_the_way:
            index = data.draw(st.sampled_from([0, 0, 0, len(self.on_the_way) - 1]))
            event = self.on_the_way.pop(index)
            if self.splice.offer(event):
                self.seen.append(event.sequence)

    @rule()
    def interrupt(self) -> None:
        """The connection is lost, with what was on its way, and is back."""
        self.on_the_way.clear()
        self.splice.doubt()

    @rule(behind=st.integers(0, 3))
    def begin_read(self, behind: int) -> None:
        if self.splice.missing and self.page is None:
            self.splice.begin()
            known = self.stored[: len(self.stored) - behind] if behind else list(self.stored)
            self.page = [event for event in known if event.sequence > self.splice.cursor]

    @rule(count=st.integers(1, 3))
    def take(self, count: int) -> None:
        for _ in range(count):
            if self.page:
                self._take(self.page.pop(0))

    @rule()
    def end_read(self) -> None:
        if self.page is not None:
            while self.page:
                self._take(self.page.pop(0))
            self._settle()

    @rule()
    def lose_read(self) -> None:
        """NATS did not answer."""
        if self.page is not None:
            self.splice.doubt()
            self._settle()

    def _take(self, event: Event) -> None:
        if self.splice.take(event):
            self.seen.append(event.sequence)

    def _settle(self) -> None:
        self.page = None
        self.seen += [event.sequence for event in self.splice.settle()]

    @invariant()
    def what_was_seen_has_no_gap_and_no_double(self) -> None:
        if hasattr(self, "stored"):
            due = [event.sequence for event in self.stored if event.sequence > self.first]
            assert self.seen == due[: len(self.seen)]

    def teardown(self) -> None:
        """After a last interruption and as many reads as are asked for, everything was seen."""
        if not hasattr(self, "stored"):
            return
        self.end_read()
        self.interrupt()
        for _ in range(3):
            self.begin_read(0)
            self.end_read()
        assert self.splice.live
        assert self.seen == [event.sequence for event in self.stored if event.sequence > self.first]


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
