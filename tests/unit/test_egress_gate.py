"""What a sandbox lends is looked at before it is used: it may have sent anything."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.contract import SandboxError
from sandbox.egress.gate import NAME, lending_place, take


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextmanager
def listening(family: int = socket.AF_INET) -> Iterator[int]:
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.listen()
        yield made.fileno()


def send(folder: Path, *descriptors: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as to, short(folder) as path:
        to.connect(path)
        socket.send_fds(to, [b"x"], list(descriptors))


@contextmanager
def short(folder: Path) -> Iterator[str]:
    descriptor = os.open(folder, os.O_PATH)
    yield f"/proc/self/fd/{descriptor}/{NAME}"
    os.close(descriptor)


def test_a_listening_socket_is_taken_and_its_place_is_gone(tmp_path: Path) -> None:
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    with listening() as lent:
        with lending_place(deep, os.geteuid()) as place:
            send(deep, lent)
            with take(place) as taken:
                assert os.fstat(taken.fileno()).st_ino == os.fstat(lent).st_ino
                assert not os.get_inheritable(taken.fileno())
        assert list(deep.iterdir()) == []


def test_anything_else_is_refused_and_closed(tmp_path: Path) -> None:
    read, write = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs, listening(socket.AF_INET6) as six, socket.socket() as deaf:
        for descriptors in ([], [read], [write], [theirs.fileno()], [six], [deaf.fileno()]):
            before = open_files()
            with lending_place(tmp_path, os.geteuid()) as place:
                send(tmp_path, *descriptors)
                with pytest.raises(SandboxError):
                    take(place)
            assert open_files() == before, descriptors
    os.close(read)
    os.close(write)


def test_of_several_one_is_taken_and_none_left_open(tmp_path: Path) -> None:
    with listening() as first, listening() as second:
        before = open_files()
        with lending_place(tmp_path, os.geteuid()) as place:
            send(tmp_path, first, second)
            take(place).close()
        assert open_files() == before


def test_who_comes_and_says_nothing_holds_nobody_up(tmp_path: Path) -> None:
    with lending_place(tmp_path, os.geteuid()) as place, socket.socket(socket.AF_UNIX) as silent:
        with short(tmp_path) as path:
            silent.connect(path)
        with pytest.raises(SandboxError, match="did not open its way"):
            take(place)


def test_nobody_came(tmp_path: Path) -> None:
    with lending_place(tmp_path, os.geteuid()) as place, pytest.raises(SandboxError, match="did not open its way"):
        take(place)
