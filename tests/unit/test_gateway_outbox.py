"""What one socket may owe."""

from __future__ import annotations

import anyio
import pytest

from gateway.live.outbox import JOIN_LIMIT_CHARS, Full, Outbox
from protocol.base import encode
from protocol.journal import Output
from protocol.live import OutputSeen, decode_server_frame

pytestmark = pytest.mark.anyio


def piece(offset: int, text: str, *, step: int = 1) -> tuple[str, Output, bytes]:
    output = Output(attempt=1, step=step, offset=offset, text=text)
    return "t1", output, encode(OutputSeen(task="t1", output=output))


async def drain(outbox: Outbox, count: int) -> list[bytes]:
    with anyio.fail_after(5):
        return [await outbox.get() for _ in range(count)]


async def test_frames_leave_in_the_order_they_came() -> None:
    outbox = Outbox(100)
    outbox.put(b"a")
    outbox.put(b"b")
    assert await drain(outbox, 2) == [b"a", b"b"]


async def test_an_event_over_the_limit_says_so_and_is_never_left_out() -> None:
    outbox = Outbox(10)
    outbox.put(b"12345678")
    with pytest.raises(Full):
        outbox.put(b"123")
    outbox.put(b"12")


async def test_one_frame_larger_than_the_limit_passes_when_nothing_else_waits() -> None:
    outbox = Outbox(10)
    outbox.put(b"x" * 50)
    assert await drain(outbox, 1) == [b"x" * 50]


async def test_pieces_of_one_step_are_joined() -> None:
    outbox = Outbox(10_000)
    outbox.put(b"before")
    outbox.put_preview(*piece(0, "ab"))
    outbox.put_preview(*piece(2, "cd"))
    _, frame = await drain(outbox, 2)
    seen = decode_server_frame(frame)
    assert isinstance(seen, OutputSeen)
    assert (seen.output.offset, seen.output.text) == (0, "abcd")


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (piece(5, "cd"), "a piece between was lost"),
        (piece(2, "cd", step=2), "it is another step's"),
    ],
)
async def test_pieces_that_do_not_follow_are_kept_apart(second: tuple[str, Output, bytes], why: str) -> None:
    outbox = Outbox(10_000)
    first = piece(0, "ab")
    outbox.put_preview(*first)
    outbox.put_preview(*second)
    assert await drain(outbox, 2) == [first[2], second[2]], why


async def test_previews_are_left_out_before_events_have_no_room() -> None:
    outbox = Outbox(4_000)
    for step in range(100):
        outbox.put_preview(*piece(0, "x" * 100, step=step))
    outbox.put(b"x" * 2_500)


async def test_a_joined_preview_is_bounded() -> None:
    outbox = Outbox(1_000_000)
    offset = 0
    for _ in range(50):
        outbox.put_preview(*piece(offset, "x" * 1_000))
        offset += 1_000
    frame = (await drain(outbox, 1))[0]
    assert len(frame) < JOIN_LIMIT_CHARS + 2_000


async def test_the_last_frame_replaces_all_that_waits() -> None:
    outbox = Outbox(10)
    outbox.put(b"12345678")
    outbox.put_last(b"closing")
    assert await drain(outbox, 1) == [b"closing"]


async def test_a_replay_waits_until_half_is_free() -> None:
    outbox = Outbox(10)
    outbox.put(b"123456")
    waited = anyio.Event()

    async def wait() -> None:
        await outbox.room(b"1")
        waited.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await anyio.lowlevel.checkpoint()
        assert not waited.is_set()
        await drain(outbox, 1)
        with anyio.fail_after(5):
            await waited.wait()
