"""The runners that wait for work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from msgspec.structs import replace

from protocol.evolve import Task
from protocol.query import AttemptGranted, ClaimAttempt, NothingToClaim

WAIT_LIMIT_SECONDS = 30.0


class Claims:
    """Waiting claims in the order they came. One request id waits once, however often it is sent."""

    class Waiting:
        def __init__(self, asked: ClaimAttempt) -> None:
            self.asked = asked
            self.askers = 0
            self.reply: AttemptGranted | NothingToClaim | None = None
            self._answered = anyio.Event()
            self._free = anyio.Event()
            self._free.set()

        @contextmanager
        def taken(self) -> Iterator[None]:
            """While an attempt is being committed for it: it is not told meanwhile that there is none."""
            self._free = anyio.Event()
            try:
                yield
            finally:
                self._free.set()

        async def free(self) -> None:
            await self._free.wait()

        def answer(self, reply: AttemptGranted | NothingToClaim) -> None:
            self.reply = reply
            self._answered.set()

        async def answered(self) -> None:
            await self._answered.wait()

    def __init__(self) -> None:
        self._waiting: dict[str, Claims.Waiting] = {}
        self._stirred = anyio.Event()

    def waiting(self) -> list[Claims.Waiting]:
        return [waiting for waiting in self._waiting.values() if waiting.reply is None]

    async def wait(self, asked: ClaimAttempt) -> AttemptGranted | NothingToClaim:
        """Wait for a grant, for as long as the runner asked to. Whoever asks by the same request id shares the wait."""
        waiting = self._waiting.setdefault(asked.request, Claims.Waiting(asked))
        waiting.askers += 1
        self.stir()
        try:
            with anyio.move_on_after(min(asked.wait_seconds, WAIT_LIMIT_SECONDS)):
                await waiting.answered()
            await waiting.free()
            return waiting.reply or NothingToClaim()
        finally:
            waiting.askers -= 1
            if not waiting.askers:
                del self._waiting[asked.request]

    def give_up(self) -> None:
        for waiting in self.waiting():
            waiting.answer(NothingToClaim())

    def stir(self) -> None:
        """Something changed: a claim came, a task was queued, a slot of a user's limit became free."""
        self._stirred.set()

    async def stirred(self) -> None:
        await self._stirred.wait()
        self._stirred = anyio.Event()

    @staticmethod
    def granted(task: Task, sequence: int) -> AttemptGranted:
        # Without the receipts: they grow with the task's life, and the runner has no use for them.
        return AttemptGranted(task=replace(task, receipts={}), sequence=sequence)
