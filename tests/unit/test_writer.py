"""When writes travel alone, when together, and what becomes of them. The server is played by the test."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from services.bus.writer import BATCH, BATCH_COMMIT, BATCH_SEQUENCE, Answer, Fault, Writer

pytestmark = pytest.mark.anyio
SINGLES = 3


class Server:
    """Notes what is sent, and answers when it is told to."""

    def __init__(self, *, timeout_seconds: float = 10) -> None:
        self.sent: list[tuple[str, dict[str, str], str]] = []
        self.writer = Writer(self._send, singles=SINGLES, timeout_seconds=timeout_seconds)
        self.results: dict[str, Any] = {}

    async def _send(self, subject: str, data: bytes, headers: dict[str, str], token: str) -> None:
        self.sent.append((subject, headers, token))

    async def store(self, subject: str, *, alone: bool = False) -> None:
        try:
            self.results[subject] = await self.writer.store(subject, b"", {}, alone=alone)
        except TimeoutError as error:
            self.results[subject] = error

    def begin(self, group: anyio.abc.TaskGroup, *subjects: str) -> None:
        for subject in subjects:
            group.start_soon(self.store, subject)

    def answer(self, subject: str, answer: Answer) -> None:
        [token] = [token for sent, _, token in reversed(self.sent) if sent == subject][:1]
        self.writer.answer(token, answer)

    @property
    def subjects(self) -> list[str]:
        return [subject for subject, _, _ in self.sent]

    async def __aenter__(self) -> Server:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self.writer.run)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()


async def test_a_few_writes_leave_at_once_and_on_their_own() -> None:
    async with Server() as server, anyio.create_task_group() as group:
        server.begin(group, "a", "b", "c")
        await settled()
        assert server.subjects == ["a", "b", "c"]
        assert not any(headers for _, headers, _ in server.sent)
        for sequence, subject in enumerate("abc", start=1):
            server.answer(subject, Answer(seq=sequence))
    assert {subject: answer.seq for subject, answer in server.results.items()} == {"a": 1, "b": 2, "c": 3}


async def test_what_piles_up_travels_as_one_batch_and_each_gets_its_sequence() -> None:
    async with Server() as server, anyio.create_task_group() as group:
        server.begin(group, *"abcdefg")
        await settled()
        server.answer("a", Answer(seq=1))
        await settled()
        batch = server.sent[3:]
        assert [subject for subject, _, _ in batch] == ["d", "e", "f", "g"]
        assert len({headers[BATCH] for _, headers, _ in batch}) == 1
        assert [headers[BATCH_SEQUENCE] for _, headers, _ in batch] == ["1", "2", "3", "4"]
        assert [BATCH_COMMIT in headers for _, headers, _ in batch] == [False, False, False, True]
        server.begin(group, "h")
        await settled()
        assert server.subjects[-1] == "g", "nothing leaves while a batch is on its way"
        server.answer("g", Answer(seq=9))
        await settled()
        assert server.subjects[-1] == "h"
        for sequence, subject in ((2, "b"), (3, "c"), (10, "h")):
            server.answer(subject, Answer(seq=sequence))
    sequences = {subject: answer.seq for subject, answer in server.results.items()}
    assert sequences == {"a": 1, "b": 2, "c": 3, "d": 6, "e": 7, "f": 8, "g": 9, "h": 10}


async def test_of_a_refused_batch_each_is_sent_again_on_its_own() -> None:
    refusal = Answer(error=Fault("wrong last sequence", 10071))
    async with Server() as server, anyio.create_task_group() as group:
        server.begin(group, *"abcdef")
        await settled()
        server.answer("a", Answer(seq=1))
        await settled()
        for subject in "bc":
            server.answer(subject, Answer(seq=2))
        server.answer("f", refusal)
        await settled()
        assert server.subjects[6:] == ["d", "e", "f"]
        assert not any(headers for _, headers, _ in server.sent[6:])
        for subject, answer in (("d", Answer(seq=4)), ("e", refusal), ("f", Answer(seq=5))):
            server.answer(subject, answer)
    assert server.results["e"] == refusal
    assert [server.results[subject].seq for subject in "df"] == [4, 5]


async def test_nobody_knows_what_became_of_a_batch_without_an_answer_and_the_next_one_leaves() -> None:
    async with Server(timeout_seconds=0.2) as server, anyio.create_task_group() as group:
        server.begin(group, *"abcdef")
        await settled()
        server.answer("a", Answer(seq=1))
        with anyio.fail_after(5):
            while len(server.results) < 6:
                await anyio.lowlevel.checkpoint()
        assert all(isinstance(server.results[subject], TimeoutError) for subject in "bcdef")
        server.begin(group, "g")
        await settled()
        server.answer("g", Answer(seq=7))
    assert server.results["g"].seq == 7


async def test_who_gave_up_waiting_is_not_sent() -> None:
    async with Server() as server, anyio.create_task_group() as group:
        server.begin(group, *"abc")
        await settled()
        async with anyio.create_task_group() as given_up:
            server.begin(given_up, "d")
            await settled()
            given_up.cancel_scope.cancel()
        for subject in "abc":
            server.answer(subject, Answer(seq=1))
    assert server.subjects == ["a", "b", "c"]


async def test_a_write_of_another_stream_waits_for_nobody() -> None:
    async with Server() as server, anyio.create_task_group() as group:
        server.begin(group, *"abcd")
        await settled()
        group.start_soon(lambda: server.store("lease", alone=True))
        await settled()
        assert server.subjects == ["a", "b", "c", "lease"]
        group.cancel_scope.cancel()


async def test_what_was_on_its_way_over_a_lost_connection_is_unknown_at_once_and_what_waited_leaves() -> None:
    async with Server() as server, anyio.create_task_group() as group:
        server.begin(group, *"abcde")
        await settled()
        server.writer.give_up()
        await settled()
        assert server.subjects == list("abcde")
        assert all(isinstance(server.results[subject], TimeoutError) for subject in "abc")
        for sequence, subject in enumerate("de", start=1):
            server.answer(subject, Answer(seq=sequence))
    assert (server.results["d"].seq, server.results["e"].seq) == (1, 2)
