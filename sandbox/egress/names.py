"""Names looked up as the machine does it: by the system's resolver, which blocks a thread for as long as a name server
keeps silent. A sandbox has two such threads at most, so that the names it makes up hold back nobody but itself."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

EACH_LIMIT = 2
"""Look-ups of one sandbox at once, those included that nobody waits for any more."""
ALL_LIMIT = 64
"""Of all sandboxes together: what so many need whose name servers are silent. A thread is made when it is needed."""

LookUp = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a name; OSError when it has none."""


def ask_system(name: str) -> list[str]:
    return [str(place[0]) for *_, place in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]


class Names:
    """Of all sandboxes of a runner."""

    def __init__(self, ask: Callable[[str], list[str]] = ask_system) -> None:
        self._ask = ask
        self._threads = ThreadPoolExecutor(ALL_LIMIT, thread_name_prefix="look-up")

    def of_one(self) -> LookUp:
        """One sandbox's."""
        turns = asyncio.Semaphore(EACH_LIMIT)

        async def look_up(name: str) -> Sequence[str]:
            await turns.acquire()
            asked = self._threads.submit(self._ask, name)
            loop = asyncio.get_running_loop()

            def give_back(_: Future[list[str]]) -> None:
                with suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(turns.release)

            # Whoever waits may leave; the turn is over when the resolver is.
            asked.add_done_callback(give_back)
            return await asyncio.wrap_future(asked)

        return look_up
