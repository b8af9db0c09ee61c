"""A line to the gateway that breaks when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class CutLine:
    """A TCP proxy. Each new connection carries `answers` pieces back and breaks at the next, where `answers` has one
    for it; `cut` breaks all that are open."""

    def __init__(self, server: str, answers: list[int]) -> None:
        self.connections = 0
        self._target = urlsplit(server)
        self._answers = answers
        self._open: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def freeze(self) -> None:
        """What is open carries nothing more, and does not break: as when a phone slept."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        limit = self._answers.pop(0) if self._answers else -1
        back, forth = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._open |= {writer, forth}
        with suppress(OSError):
            flowing = self._flowing
            await asyncio.gather(_pump(reader, forth, -1, flowing), _pump(back, writer, limit, flowing))
        for end in (writer, forth):
            end.transport.abort()
        self._open -= {writer, forth}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int, flowing: asyncio.Event) -> None:
    while data := await reader.read(65536):
        await flowing.wait()
        if limit == 0:
            break
        limit -= 1
        writer.write(data)
        await writer.drain()
    writer.transport.abort()


@asynccontextmanager
async def cut_line(server: str, *answers: int) -> AsyncIterator[tuple[CutLine, str]]:
    """The line, and the server's address through it."""
    line = CutLine(server, list(answers))
    listener = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        try:
            yield line, f"http://127.0.0.1:{port}"
        finally:
            line.cut()
