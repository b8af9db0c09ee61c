"""The host's side against a sandbox that lies, and text from bytes."""

from __future__ import annotations

import contextlib

import anyio
import anyio.lowlevel
import pytest

from sandbox.bubblewrap import what_to_allow
from sandbox.client import ExecClient
from sandbox.contract import SandboxDied, SandboxError
from sandbox.exec_server import PREVIEW_WINDOW_BYTES, VERSION, pack
from sandbox.text import TextDecoder, join_kept

EXIT = {
    "op": "exit",
    "id": 1,
    "code": 0,
    "ended_by": "",
    "dropped": 0,
    "head": 0,
    "skipped": 0,
    "cwd": "",
    "shell": "",
}


class FakeLink:
    """A stream whose other end is the test."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.killed = False

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    async def drain(self) -> None:
        await anyio.lowlevel.checkpoint()

    def kill(self) -> None:
        self.killed = True

    def leave(self) -> None:
        pass

    async def stop(self, timeout_seconds: float) -> None:
        self.killed = True


@pytest.mark.anyio
@pytest.mark.parametrize(
    "lie",
    [
        b"\xff" * 8,
        pack({"op": "exit"}),
        pack({"op": "shutdown", "id": 1}),
        pack({**EXIT, "id": 99}),
        pack({**EXIT, "id": "1"}),
        pack({**EXIT, "code": 256}),
        pack({**EXIT, "code": None}),
        pack({**EXIT, "ended_by": "deadline"}),
        pack({**EXIT, "ended_by": "<b>"}),
        pack({**EXIT, "head": 1}),
        pack({**EXIT, "dropped": -1}),
        pack(EXIT, b"x" * 101),
        pack({"op": "output", "id": 1, "skipped": 0}),
        pack({"op": "output", "id": 1, "skipped": 0}, b"x" * (PREVIEW_WINDOW_BYTES + 1)),
        pack({"op": "data", "id": 1}, b"x"),
        pack(EXIT) + pack(EXIT),
        pack({"op": "ready", "id": 0, "version": VERSION}),
    ],
)
async def test_a_frame_that_lies_is_the_sandboxs_death(lie: bytes) -> None:
    client, link = await ready_client()

    async def show(text: str) -> None:
        pass

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell, client, link, lie)
        # A second frame of a call that has ended is a lie that this call may not have seen.
        with contextlib.suppress(SandboxDied):
            await client.exec("true", output_limit_bytes=100, on_output=show)
    assert link.killed
    with pytest.raises(SandboxDied, match="protocol"):
        await client.exec("true")


@pytest.mark.anyio
async def test_a_command_that_fails_while_its_output_is_shown_is_an_error_of_the_sandbox() -> None:
    client, link = await ready_client()

    async def show(text: str) -> None:
        client.received(pack({"op": "error", "id": 1, "reason": "failed", "message": "no more"}))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tell, client, link, pack({"op": "output", "id": 1, "skipped": 0}, b"x"))
        with pytest.raises(SandboxError, match="no more"):
            await client.exec("true", on_output=show)


@pytest.mark.anyio
async def test_a_sandbox_that_is_taken_over_names_no_call_that_there_was_not() -> None:
    client, link = ExecClient({}, is_taken_over=True), FakeLink()
    client.attach(link)
    taken = {"op": "taken", "id": 0, "version": VERSION, "attempt": 1, "last": 1, "call": 2, "name": "step 1"}
    client.received(pack(taken))
    with pytest.raises(SandboxDied, match="protocol"):
        await client.ready()


async def ready_client() -> tuple[ExecClient, FakeLink]:
    client, link = ExecClient({}), FakeLink()
    client.attach(link)
    client.received(pack({"op": "ready", "id": 0, "version": VERSION}))
    await client.ready()
    return client, link


async def tell(client: ExecClient, link: FakeLink, data: bytes) -> None:
    while not link.sent:
        await anyio.lowlevel.checkpoint()
    client.received(data)


@pytest.mark.parametrize(
    ("head", "tail", "dropped", "expected"),
    [
        (b"ab", b"cd", 0, ("abcd", 0)),
        (b"a\xe2\x82", b"\xac", 0, ("a€", 0)),
        (b"ab", b"cd", 5, ("ab\n[… 5 bytes left out …]\ncd", 5)),
        (b"a\xe2\x82", b"\x82\xacd", 5, ("a\n[… 9 bytes left out …]\nd", 9)),
        (b"", b"", 5, ("\n[… 5 bytes left out …]\n", 5)),
        (b"\xff\0", b"", 0, ("\ufffd\u2400", 0)),
    ],
)
def test_kept_output_as_text(head: bytes, tail: bytes, dropped: int, expected: tuple[str, int]) -> None:
    assert join_kept(head, tail, dropped) == expected


def test_every_cut_of_a_stream_decodes_to_the_same_text() -> None:
    data = "a€𝄞\0z".encode() + b"\xff\xed\xa0\x80\xf0\x9d"
    whole = TextDecoder().decode(data, final=True)
    for cut in range(len(data)):
        decoder = TextDecoder()
        assert decoder.decode(data[:cut]) + decoder.decode(data[cut:], final=True) == whole


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({"kernel.unprivileged_userns_clone": "0"}, "kernel.unprivileged_userns_clone=1"),
        ({"user.max_user_namespaces": "0"}, "user.max_user_namespaces=10000"),
        ({"kernel.apparmor_restrict_unprivileged_userns": "1"}, "kernel.apparmor_restrict_unprivileged_userns=0"),
        ({"user.max_user_namespaces": "96365"}, "container"),
    ],
)
def test_what_forbids_the_sandbox_is_named_with_its_remedy(switches: dict[str, str], expected: str) -> None:
    assert expected in what_to_allow(switches, "Operation not permitted")
