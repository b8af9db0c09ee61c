"""Names that are slow and addresses that are dead hold up nobody else, and themselves not for long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import anyio
import pytest
from anyio.abc import SocketAttribute

from sandbox.egress.names import EACH_LIMIT, Names
from sandbox.egress.outside import NEXT_SECONDS, Closed, Outside, Unreachable, by_turns

pytestmark = pytest.mark.anyio
DEAD, ALIVE, CLOSED = "127.0.0.3", "127.0.0.2", "127.0.0.4"


async def test_the_silent_names_of_one_sandbox_hold_up_no_other() -> None:
    silence, asked = threading.Event(), []

    def ask(name: str) -> list[str]:
        asked.append(name)
        if name.startswith("silent"):
            silence.wait()
        return ["192.0.2.1"]

    names = Names(ask)
    greedy, other = names.of_one(), names.of_one()
    try:
        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(greedy, f"silent{number}.example.com")
            await anyio.wait_all_tasks_blocked()
            with anyio.fail_after(5):
                assert await other("fast.example.com") == ["192.0.2.1"]
            # Who does not wait any more has ended no look-up: there are no more than before.
            group.cancel_scope.cancel()
        with anyio.move_on_after(0.05):
            await greedy("fast.example.com")
        assert len(asked) == EACH_LIMIT + 1
    finally:
        silence.set()
    with anyio.fail_after(5):
        assert await greedy("fast.example.com") == ["192.0.2.1"]


@contextmanager
def listening(host: str, port: int = 0, *, silent: bool = False) -> Iterator[int]:
    """A silent one drops what wants to connect: its queue is full."""
    with ExitStack() as stack:
        place = stack.enter_context(socket.socket())
        place.bind((host, port))
        place.listen(0 if silent else 8)
        for _ in range(3 if silent else 0):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(place.getsockname())
        yield place.getsockname()[1]


@pytest.mark.parametrize("first", [DEAD, CLOSED], ids=["silent", "refusing"])
async def test_an_address_that_is_dead_costs_a_moment(first: str) -> None:
    async def look_up(_: str) -> Sequence[str]:
        return [first, ALIVE]

    with listening(DEAD, silent=True) as port, listening(ALIVE, port):
        began = anyio.current_time()
        async with await Outside(look_up, lambda _: True).connect("x.example.com", port) as stream:
            assert stream.extra(SocketAttribute.remote_address) == (ALIVE, port)
        assert anyio.current_time() - began < NEXT_SECONDS + 1


async def test_one_address_that_is_not_open_closes_the_name_before_any_is_connected_to() -> None:
    async def look_up(_: str) -> Sequence[str]:
        return [ALIVE, CLOSED]

    with listening(ALIVE) as port, pytest.raises(Closed):
        await Outside(look_up, lambda address: address == ALIVE).connect("x.example.com", port)


async def test_a_name_none_of_whose_addresses_answers_is_unreachable() -> None:
    async def look_up(_: str) -> Sequence[str]:
        return [CLOSED, "127.0.0.5"]

    with pytest.raises(Unreachable, match="does not answer"):
        await Outside(look_up, lambda _: True).connect("x.example.com", 9)


@pytest.mark.parametrize(
    ("found", "order"),
    [
        (["::1", "::2", "::3", "10.0.0.1"], ["::1", "10.0.0.1", "::2", "::3"]),
        (["10.0.0.1", "10.0.0.2", "::1"], ["10.0.0.1", "::1", "10.0.0.2"]),
        (["10.0.0.1"], ["10.0.0.1"]),
    ],
)
def test_the_families_take_turns(found: list[str], order: list[str]) -> None:
    assert by_turns(found) == order
