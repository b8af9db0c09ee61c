"""What was printed before somebody looked: kept at its end, and joined to what is printed then."""

from __future__ import annotations

import random
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.live.preview import HELD_LIMIT, Previews
from protocol.base import MESSAGE_LIMIT_BYTES, encode
from protocol.journal import Output
from protocol.live import OutputSeen
from protocol.query import Printed
from services.runner.printed import LIMIT_CHARS, PIECE_CHARS, Tail


def piece(step: int, offset: int, text: str, channel: str = "tool") -> Output:
    return Output(attempt=1, step=step, offset=offset, text=text, channel=channel)


def shown(pieces: tuple[Output, ...], step: int) -> str:
    """The text of one step; AssertionError where there is a gap."""
    text, end = "", -1
    for each in pieces:
        if each.step == step:
            assert end in (-1, each.offset)
            text, end = text + each.text, each.offset + len(each.text)
    return text


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(0, 3 * PIECE_CHARS)), max_size=30))
def test_the_end_of_what_running_steps_said_is_kept_without_a_gap(said: list[tuple[int, int]]) -> None:
    tail, whole = Tail(), {1: "", 2: ""}
    for step, length in said:
        text = "".join(chr(97 + (len(whole[step]) + at) % 26) for at in range(length))
        tail.add(piece(step, len(whole[step]), text))
        whole[step] += text
    kept = {step: shown(tail.pieces, step) for step in whole}
    assert all(whole[step].endswith(kept[step]) for step in whole)
    total = sum(map(len, kept.values()))
    assert min(sum(map(len, whole.values())), LIMIT_CHARS - PIECE_CHARS) <= total <= LIMIT_CHARS
    tail.end(1)
    assert {each.step for each in tail.pieces} <= {2}
    assert shown(tail.pieces, 2) == kept[2]


def test_a_models_deltas_are_joined_and_its_channels_kept_apart() -> None:
    tail = Tail()
    for at, channel in enumerate(["thinking"] * 3 + ["text"] * 3):
        tail.add(piece(1, at, "x", channel))
    assert [(each.channel, each.offset, each.text) for each in tail.pieces] == [
        ("thinking", 0, "xxx"),
        ("text", 3, "xxx"),
    ]


@pytest.mark.parametrize("character", ["\x00", "\u2028", "😀"])
def test_the_most_that_is_kept_fits_into_a_message(character: str) -> None:
    tail = Tail()
    for at in range(0, 4 * LIMIT_CHARS, 1000):
        tail.add(piece(1, at, character * 1000))
    assert len(encode(Printed(output=tail.pieces))) < MESSAGE_LIMIT_BYTES


def test_what_is_printed_while_the_runner_is_asked_comes_once_and_after_what_was_printed_before() -> None:
    async def story(chance: random.Random) -> str:
        printed, seen, asked = Tail(), [], 0

        def show(_: str, output: Output, frame: bytes) -> None:
            assert frame == encode(OutputSeen(task="t", output=output))
            seen.append(output)

        async def ask() -> Printed:
            nonlocal asked
            asked += 1
            for _ in range(chance.randrange(3)):
                await anyio.lowlevel.checkpoint()
            answer = Printed(output=printed.pieces)
            for _ in range(chance.randrange(3)):
                await anyio.lowlevel.checkpoint()
            return answer

        async with anyio.create_task_group() as group:
            previews = Previews("t", group, ask, lambda: True, show)
            for at in range(HELD_LIMIT):
                output = piece(1, 3 * at, "abc")
                printed.add(output)
                if chance.random() < 0.2:
                    previews.catch_up()  # this piece is not heard
                else:
                    previews.offer(output, encode(OutputSeen(task="t", output=output)))
                await anyio.lowlevel.checkpoint()
            previews.catch_up()
        assert asked
        return shown(tuple(seen), 1)

    for seed in range(200):
        assert anyio.run(story, random.Random(seed)) == "abc" * HELD_LIMIT, seed


def test_a_piece_whose_step_is_not_on_the_screen_is_left_for_the_next_answer() -> None:
    seen: list[str] = []
    live: dict[str, Any] = {"now": False}

    async def story() -> None:
        async def ask() -> Printed:
            return Printed(output=(piece(1, 0, "one"),))

        async with anyio.create_task_group() as group:
            previews = Previews("t", group, ask, lambda: live["now"], lambda _, output, __: seen.append(output.text))
            previews.offer(piece(1, 0, "one"), b"")
            live["now"] = True
            previews.catch_up()

    anyio.run(story)
    assert seen == ["one"]
