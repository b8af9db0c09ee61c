"""Which site a TLS client asks for. Behind one address there are many: a tunnel to a listed host of a large network
would else lead to every other one of it (RFC 8446, 4.1.2; RFC 6066, 3)."""

from __future__ import annotations

HANDSHAKE, CLIENT_HELLO, SERVER_NAME, HOST_NAME = 22, 1, 0, 0
RECORD_HEAD_BYTES, HELLO_HEAD_BYTES = 5, 4
HELLO_LIMIT_BYTES = 16 * 1024
RANDOM_BYTES = 2 + 32
"""The version before it, too."""


class NoHello(Exception):
    """This is no ClientHello that names one host."""


def server_name(said: bytes) -> str | None:
    """The host that the client names; None while more has to come. NoHello."""
    hello = b""
    while len(said) >= RECORD_HEAD_BYTES:
        end = RECORD_HEAD_BYTES + int.from_bytes(said[3:RECORD_HEAD_BYTES], "big")
        if said[0] != HANDSHAKE or end == RECORD_HEAD_BYTES or len(hello) + end > HELLO_LIMIT_BYTES:
            raise NoHello
        if len(said) < end:
            break
        hello, said = hello + said[RECORD_HEAD_BYTES:end], said[end:]
        if hello[0] != CLIENT_HELLO:
            raise NoHello
        if len(hello) >= HELLO_HEAD_BYTES:
            size = int.from_bytes(hello[1:HELLO_HEAD_BYTES], "big")
            if size > HELLO_LIMIT_BYTES:
                raise NoHello
            if len(hello) >= HELLO_HEAD_BYTES + size:
                return _named(hello[HELLO_HEAD_BYTES : HELLO_HEAD_BYTES + size])
    if said[:1] not in (b"", bytes((HANDSHAKE,))):
        raise NoHello
    return None


def _named(hello: bytes) -> str:
    body = _Bytes(hello)
    body.take(RANDOM_BYTES)
    for size_bytes in (1, 2, 1):  # session, ciphers, compressions
        body.vector(size_bytes)
    extensions = _Bytes(body.vector(2))
    found: list[bytes] = []
    while extensions.left:
        kind, data = int.from_bytes(extensions.take(2), "big"), extensions.vector(2)
        if kind == SERVER_NAME:
            found.append(data)
    if len(found) != 1:
        raise NoHello
    names = _Bytes(_Bytes(found[0]).vector(2))
    if names.take(1) != bytes((HOST_NAME,)):
        raise NoHello
    name = names.vector(2)
    if names.left or not name.isascii():
        raise NoHello
    return name.decode()


class _Bytes:
    """Read from front to back. NoHello where there is too little."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def take(self, size: int) -> bytes:
        if len(self.left) < size:
            raise NoHello
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    def vector(self, size_bytes: int) -> bytes:
        return self.take(int.from_bytes(self.take(size_bytes), "big"))
