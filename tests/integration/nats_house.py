"""A fresh nats-server with the house's own configuration, for a test module."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio

from protocol.cells import Cell
from protocol.routes import Service
from services import nats_server
from services.bus import BusConfig, Stored


def free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class NatsHouse:
    """One server over one data folder; can be killed and started again on its port."""

    def __init__(self, data: Path, *cells: str) -> None:
        self.data = data
        self.port = free_port()
        folders = [self.folder(cell) for cell in cells or [""]]
        for folder in folders:
            nats_server.make_passwords(folder)
        self.config = nats_server.write_config(data, self.port, *zip(folders, map(Cell, cells), strict=False))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def folder(self, cell: str) -> Path:
        return self.data / cell

    def bus_config(self, service: Service, cell: str = "") -> BusConfig:
        password = nats_server.password_file(self.folder(cell), service)
        return BusConfig(nats_url=self.url, nats_password_file=str(password), cell=cell)

    def start(self) -> None:
        """Return once the server accepts connections."""
        self._process = subprocess.Popen(
            [nats_server.program(), "-c", str(self.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        said = b""
        for line in self._process.stderr:
            said += line
            if b"Server is ready" in line:
                break
        else:
            raise AssertionError(f"NATS did not start: {said.decode()}")
        # From here on the server's log is of no interest, but its pipe must never fill up.
        self._drain = subprocess.Popen(["cat"], stdin=self._process.stderr, stdout=subprocess.DEVNULL)
        self._process.stderr.close()

    def kill(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._drain.wait()
            self._process = None


@contextmanager
def nats_house(data: Path, *cells: str) -> Iterator[NatsHouse]:
    house = NatsHouse(data, *cells)
    house.start()
    try:
        yield house
    finally:
        house.kill()


async def collect(reader: Any, count: int) -> list[Stored]:
    """The reader's next messages, at least `count`."""
    found: list[Stored] = []
    with anyio.fail_after(20):
        async for batch in reader.batches():
            found += batch
            if len(found) >= count:
                return found
    raise AssertionError
