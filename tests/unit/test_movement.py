"""An attempt's lease is renewed only while it can be shown that the attempt moves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from agents.contract import ModelRequest, OnDelta
from protocol.journal import ModelReply
from protocol.task import Usage
from services.runner.movement import STILL_SECONDS, Movement, MovingModel
from tests.simulation.clockwork import VirtualLoop


def play(story: Callable[[Movement], Awaitable[None]]) -> None:
    async def tell() -> None:
        await story(Movement())

    anyio.run(tell, backend_options={"loop_factory": VirtualLoop})


def test_what_does_nothing_and_waits_for_nothing_does_not_move() -> None:
    async def story(movement: Movement) -> None:
        assert movement.is_shown
        await anyio.sleep(STILL_SECONDS + 0.1)
        assert not movement.is_shown
        movement.show()
        assert movement.is_shown

    play(story)


def test_what_waits_moves_until_the_wait_should_have_ended() -> None:
    async def story(movement: Movement) -> None:
        with movement.waits(600):
            await anyio.sleep(600)
            assert movement.is_shown
            await anyio.sleep(STILL_SECONDS + 0.1)
            assert not movement.is_shown, "whatever should have ended it has not"
        assert movement.is_shown, "the end of a wait is a sign of life"

    play(story)


def test_of_several_waits_the_longest_counts_and_none_after_its_end() -> None:
    async def story(movement: Movement) -> None:
        with movement.waits(10):
            with movement.waits(1000):
                await anyio.sleep(500)
                assert movement.is_shown
            await anyio.sleep(STILL_SECONDS + 0.1)
            assert not movement.is_shown

    play(story)


class Speaking:
    """A model that says a word now and then, and at last nothing more."""

    scripted = True
    quiet_seconds = 60.0

    def __init__(self, *pauses: float) -> None:
        self._pauses = pauses

    def most_it_can_cost(self, request: ModelRequest) -> Usage:
        return Usage()

    async def reply(self, request: ModelRequest, on_delta: OnDelta) -> ModelReply:
        for pause in self._pauses:
            await anyio.sleep(pause)
            await on_delta("text", "word")
        await anyio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize(
    ("pauses", "after", "moves"),
    [
        pytest.param((), 59.0, True, id="it may be quiet for so long"),
        pytest.param((), 60.0 + STILL_SECONDS + 1, False, id="and no longer: it should have broken off"),
        pytest.param((50.0, 50.0, 50.0), 200.0, True, id="each word counts anew"),
        pytest.param((50.0, 50.0, 50.0), 151.0 + 60.0 + STILL_SECONDS, False, id="from the last one"),
    ],
)
def test_a_reply_moves_while_the_model_is_heard(pauses: tuple[float, ...], after: float, moves: bool) -> None:
    async def ignore(*_: Any) -> None: ...

    async def story(movement: Movement) -> None:
        request = ModelRequest(model="m", system="", messages=(), tools=(), max_tokens=1)
        with anyio.move_on_after(after):
            await MovingModel(Speaking(*pauses), movement).reply(request, ignore)
            raise AssertionError
        # What was cut off here is what a renewal would have seen a moment before.

    async def watched(movement: Movement) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(story, movement)
            await anyio.sleep(after - 0.01)
            assert movement.is_shown is moves

    play(watched)
