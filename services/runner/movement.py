"""Whether an attempt can be shown to move: only then is its lease renewed.

A timer that renews by itself proves that the process has a timer. What proves that the agent moves is that it does
something, or that it waits for something which ends by itself: a command with its deadline, a reply of the model that
may be quiet for so long, a question that is held for so long.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from agents.contract import Model, ModelRequest, OnDelta
from protocol.journal import ModelReply
from protocol.task import Usage

STILL_SECONDS = 15.0
"""How long may pass between two signs of life, and how much later than its deadline a wait may end."""


class Movement:
    """Of one attempt."""

    def __init__(self) -> None:
        self._until = anyio.current_time() + STILL_SECONDS
        self._waits: dict[object, float] = {}

    @property
    def is_shown(self) -> bool:
        return anyio.current_time() < max((self._until, *self._waits.values()))

    def show(self) -> None:
        """Something was done."""
        self._until = anyio.current_time() + STILL_SECONDS

    @contextmanager
    def waits(self, seconds: float) -> Iterator[Wait]:
        """What is done inside ends within `seconds`, well or badly, whatever happens."""
        wait = Wait(self._waits, seconds)
        try:
            yield wait
        finally:
            wait.end()
            self.show()


class Wait:
    """One thing that is waited for."""

    def __init__(self, waits: dict[object, float], seconds: float) -> None:
        self._waits = waits
        self._seconds = seconds
        self.go_on()

    def go_on(self) -> None:
        """It was heard of: from now on it may take as long again."""
        self._waits[self] = anyio.current_time() + self._seconds + STILL_SECONDS

    def end(self) -> None:
        del self._waits[self]


class MovingModel:
    """A model whose replies show that the attempt moves."""

    def __init__(self, model: Model, movement: Movement) -> None:
        self._model = model
        self._movement = movement
        self.scripted = model.scripted
        self.quiet_seconds = model.quiet_seconds

    def most_it_can_cost(self, request: ModelRequest) -> Usage:
        return self._model.most_it_can_cost(request)

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        with self._movement.waits(self.quiet_seconds) as wait:

            async def heard(channel: str, text: str) -> None:
                wait.go_on()
                await on_delta(channel, text)

            return await self._model.reply(request, heard)
