"""The way out of a sandbox, by every driver that has one: what is allowed is reached, and not one byte comes to what is
not."""

from __future__ import annotations

import json
import os
import shlex
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener
from msgspec import Struct
from msgspec.structs import replace

from protocol.addresses import is_public
from sandbox.bubblewrap import Bubblewrap
from sandbox.client import ExecClient
from sandbox.config import DOCKER_HOST, egress, limits
from sandbox.contract import Driver, SandboxSpec
from sandbox.docker import connect
from sandbox.egress.environment import PORT
from sandbox.egress.outside import Outside
from sandbox.egress.policy import Refusal
from tests.contract.test_sandbox import LIMITED, own_address, skip_unless_available, ways_out

pytestmark = pytest.mark.anyio
PROBE = Path(__file__).with_name("egress_probe.py")
OPEN = "127.0.0.2"
"""Stands for the public internet: the one address of this machine that the tests' proxy connects to."""


class Names:
    """A name server of the tests' own: each name's answers one after the other, the last one again and again."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Sequence[str]]] = {}
        self.asked: list[str] = []

    async def look_up(self, name: str) -> Sequence[str]:
        self.asked.append(name)
        answers = self.answers.get(name, [[OPEN]])
        return answers.pop(0) if len(answers) > 1 else answers[0]


NAMES = Names()


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="module", params=["bubblewrap", "docker"])
async def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Driver]:
    outside = Outside(NAMES.look_up, lambda address: address == OPEN or is_public(address))
    if request.param == "bubblewrap":
        bubblewrap = Bubblewrap(limits(LIMITED), outside=outside)
        await skip_unless_available(bubblewrap)
        yield bubblewrap
        return
    host = os.environ.get("DOCKER_HOST") or DOCKER_HOST
    docker = connect(LIMITED, host, tmp_path_factory.mktemp("data"), "test", outside)
    try:
        await skip_unless_available(docker)
        yield docker
    finally:
        await docker.close()


class Place:
    """Something on this machine that listens, and what came to it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.came: list[bytes] = []
        """What each connection said first; an empty one said nothing."""
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi\n"

    async def serve(self, stream: SocketStream) -> None:
        number = len(self.came)
        self.came.append(b"")
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            async with stream:
                self.came[number] = await stream.receive()
                await stream.send(self.answer)


@pytest.fixture
async def open_place() -> AsyncIterator[Place]:
    """What the tests' lists name."""
    async with place(OPEN) as found:
        yield found


@pytest.fixture
async def closed_place() -> AsyncIterator[Place]:
    """Everything else of this machine, at one port: its loopback of both kinds and the address that others see."""
    async with place(*{"127.0.0.1", "::1", own_address()}) as found:
        yield found
        assert found.came == [], "something was reached that is not allowed"


@asynccontextmanager
async def place(*addresses: str, wrap: ssl.SSLContext | None = None) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        found = Place(0)
        for address in addresses:
            listener = await anyio.create_tcp_listener(local_host=address, local_port=found.port)
            stack.push_async_callback(listener.aclose)
            found.port = listener.extra(SocketAttribute.local_port)
            serving = TLSListener(listener, wrap, standard_compatible=False) if wrap else listener
            group.start_soon(serving.serve, found.serve)
        yield found
        group.cancel_scope.cancel()


class Inside(Struct):
    """A sandbox with a way out, and what its user was told."""

    sandbox: ExecClient
    told: list[Refusal]

    async def output(self, command: str) -> str:
        return (await self.sandbox.exec(command, timeout_seconds=60)).output


@asynccontextmanager
async def inside(driver: Driver, folder: Path, words: str, **settings: float) -> AsyncIterator[Inside]:
    workspace = folder / "workspace"
    workspace.mkdir(parents=True)
    told: list[Refusal] = []
    way = egress(replace(LIMITED, sandbox_egress=words, **settings))
    sandbox = await driver.start(
        SandboxSpec(task="task_1", attempt=1, workspace=workspace, egress=way, on_refused=told.append)
    )
    assert isinstance(sandbox, ExecClient)
    try:
        yield Inside(sandbox, told)
    finally:
        await sandbox.stop()


async def test_a_host_that_is_allowed_is_reached_by_tunnel_and_by_plain_http(
    driver: Driver, tmp_path: Path, open_place: Place
) -> None:
    host = f"open.example.com:{open_place.port}"
    async with inside(driver, tmp_path, host) as box:
        assert await box.output(f"curl -sS http://{host}/plain?x=1") == "hi\n"
        assert await box.output(f"curl -sS --proxytunnel http://{host}/tunnel") == "hi\n"
        assert await box.output(f"curl -sS -X POST -d @- http://{host}/post <<<body") == "hi\n"
        assert (await box.sandbox.shell(f"curl -sS http://{host}/shell")).output == "hi\n"
    lines = [request.partition(b"\r\n")[0] for request in open_place.came]
    assert lines == [
        b"GET /plain?x=1 HTTP/1.1",
        b"GET /tunnel HTTP/1.1",
        b"POST /post HTTP/1.1",
        b"GET /shell HTTP/1.1",
    ]
    assert b"Proxy-" not in b"".join(open_place.came).title()
    assert box.told == []


async def test_what_is_allowed_is_spoken_to_over_tls_by_its_own_certificate(driver: Driver, tmp_path: Path) -> None:
    authority = trustme.CA()
    wrap = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("open.example.com").configure_cert(wrap)
    async with place(OPEN, wrap=wrap) as found, inside(driver, tmp_path, f"open.example.com:{found.port}") as box:
        await box.sandbox.write("ca.pem", authority.cert_pem.bytes())
        url = f"https://open.example.com:{found.port}/"
        assert await box.output(f"curl -sS --cacert ca.pem {url}") == "hi\n"
        python = f"import urllib.request as u; print(u.urlopen('{url}').read())"
        assert await box.output(f'SSL_CERT_FILE=ca.pem python3 -c "{python}"') == "b'hi\\n'\n"


async def test_not_one_byte_comes_to_what_is_not_allowed(
    driver: Driver, tmp_path: Path, open_place: Place, closed_place: Place
) -> None:
    NAMES.answers |= {
        "metadata.example.com": [["169.254.169.254"]],
        "private.example.com": [["127.0.0.1"]],
        "mapped.example.com": [["::ffff:127.0.0.1"]],
        "six.example.com": [["::1"]],
        "half.example.com": [[OPEN, "127.0.0.1"]],
        "own.example.com": [[own_address()]],
    }
    names = ["open.example.com", *NAMES.answers]
    words = ",".join(f"{name}:{port}" for name in names for port in (open_place.port, closed_place.port, 80))
    addresses = [(address, closed_place.port) for address in ("127.0.0.1", "::1", own_address(), OPEN)]
    addresses += [("192.0.2.1", 53), ("169.254.169.254", 80), ("2001:db8::1", 443), ("127.0.0.53", 53)]
    given = {"port": PORT, "heads": heads(open_place.port, closed_place.port), "addresses": addresses}
    async with inside(driver, tmp_path, words) as box:
        await box.sandbox.write("probe.py", PROBE.read_bytes())
        asked = len(NAMES.asked)
        said: Mapping[str, str] = json.loads(await box.output(f"python3 probe.py {shlex.quote(json.dumps(given))}"))
        passed = {what: line for what, line in said.items() if not is_refusal(line)}
        assert passed == {}
        assert set(NAMES.asked[asked:]) <= set(names), "only what is on the list is ever looked up"
        assert len(box.told) > 20
        assert all(refusal.reason.isprintable() for refusal in box.told)
    assert open_place.came == []


def is_refusal(line: str) -> bool:
    return line.startswith(("HTTP/1.1 403 ", "HTTP/1.1 400 ", "refused: "))


def heads(open_port: int, closed_port: int) -> dict[str, str]:
    """Requests to the proxy that would reach something else, if it were not for its rules."""
    hosts = {
        "not on the list": "closed.example.com",
        "an address": "127.0.0.1",
        "the open address": OPEN,
        "IPv6": "[::1]",
        "IPv4 in IPv6": "[::ffff:127.0.0.1]",
        "a number": "2130706433",
        "hexadecimal": "0x7f000001",
        "octal": "0177.0.0.1",
        "short": "127.1",
        "localhost": "localhost",
        "an address and a dot": "127.0.0.1.",
        "the metadata's address": "169.254.169.254",
        "NUL after what is allowed": "open.example.com\0.closed.example.com",
        "NUL before what is allowed": "closed.example.com\0.open.example.com",
        "an escaped NUL": "open.example.com%00.closed.example.com",
        "a user": "open.example.com@127.0.0.1",
        "a user and a port": f"open.example.com:{open_port}@127.0.0.1",
        "a fragment": "127.0.0.1#open.example.com",
        "a path": "127.0.0.1/open.example.com",
        "a query": "127.0.0.1?open.example.com",
        "a backslash": "127.0.0.1\\open.example.com",
        "a space": "127.0.0.1 open.example.com",
        "a tab": "127.0.0.1\topen.example.com",
        "a colon": "127.0.0.1:open.example.com",
        "a line of its own": "127.0.0.1\r\nHost: open.example.com",
        "a comma": "open.example.com,127.0.0.1",
        "a soft hyphen": "open\xad.example.com",
        "a name for metadata": "metadata.example.com",
        "a private name": "private.example.com",
        "a mapped name": "mapped.example.com",
        "a name of IPv6": "six.example.com",
        "one address of two": "half.example.com",
        "this machine's own name": "own.example.com",
    }
    made = {}
    for what, host in hosts.items():
        made[f"tunnel: {what}"] = f"CONNECT {host}:{closed_port} HTTP/1.1\r\nHost: {host}\r\n\r\n"
        made[f"plain: {what}"] = f"GET http://{host}:{closed_port}/ HTTP/1.1\r\nHost: open.example.com\r\n\r\n"
    own = f"127.0.0.1:{PORT}"
    return {
        **made,
        "a port that is not allowed": "CONNECT open.example.com:22 HTTP/1.1\r\nHost: x\r\n\r\n",
        "no port": "CONNECT open.example.com HTTP/1.1\r\nHost: x\r\n\r\n",
        "a port past the last": f"CONNECT open.example.com:{65536 + open_port} HTTP/1.1\r\nHost: x\r\n\r\n",
        "a negative port": "CONNECT open.example.com:-1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "the proxy itself": f"CONNECT {own} HTTP/1.1\r\n\r\nCONNECT 127.0.0.1:{closed_port} HTTP/1.1\r\n\r\n",
        "no proxy's request": f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{closed_port}\r\n\r\n",
        "https in plain": f"GET https://open.example.com:{open_port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "another scheme": f"GET ftp://open.example.com:{open_port}/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "two hosts": f"GET http://127.0.0.1:{closed_port}/ HTTP/1.1\r\nHost: open.example.com\r\nHost: x\r\n\r\n",
        "no HTTP": "\x05\x01\x00",
        "SOCKS": "\x04\x01\x00\x50\x7f\x00\x00\x01\x00",
    }


async def test_a_name_that_changes_its_address_leads_nowhere_else(
    driver: Driver, tmp_path: Path, open_place: Place, closed_place: Place
) -> None:
    """DNS rebinding: what was looked at is what is connected to, and each connection is looked at."""
    NAMES.answers["rebinding.example.com"] = [[OPEN], ["127.0.0.1"], ["169.254.169.254"]]
    ports = (open_place.port, closed_place.port)
    async with inside(driver, tmp_path, ",".join(f"rebinding.example.com:{port}" for port in ports)) as box:
        url = f"http://rebinding.example.com:{open_place.port}/"
        asked = len(NAMES.asked)
        assert await box.output(f"curl -sS {url}") == "hi\n"
        assert NAMES.asked[asked:] == ["rebinding.example.com"], "one look-up a connection"
        closed = f"http://rebinding.example.com:{closed_place.port}/"
        for again in (closed, closed, url):
            assert "not on the public internet" in await box.output(f"curl -sS {again}")
    assert len(open_place.came) == 1
    assert [refusal.port for refusal in box.told] == [closed_place.port, open_place.port]


async def test_an_allowed_host_that_cannot_be_reached_is_told(driver: Driver, tmp_path: Path) -> None:
    NAMES.answers["nowhere.example.com"] = [[]]
    async with inside(driver, tmp_path, "nowhere.example.com") as box:
        said = await box.output("curl -sS https://nowhere.example.com/")
    assert "502" in said
    told = "nowhere.example.com is allowed and has no address that could be found"
    assert [refusal.reason for refusal in box.told] == [told]


async def test_a_redirect_is_a_request_of_its_own(
    driver: Driver, tmp_path: Path, open_place: Place, closed_place: Place
) -> None:
    async with inside(driver, tmp_path, f"open.example.com:{open_place.port}") as box:
        for there in (f"http://127.0.0.1:{closed_place.port}/", f"http://closed.example.com:{closed_place.port}/"):
            head = f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"
            open_place.answer = head.encode()
            said = await box.output(f"curl -sSL --noproxy '' http://open.example.com:{open_place.port}/")
            assert "the hosts that tasks may reach" in said or "addresses are never allowed" in said
    assert len(open_place.came) == 2


async def test_what_stands_behind_an_allowed_request_comes_to_nobody_else(
    driver: Driver, tmp_path: Path, open_place: Place, closed_place: Place
) -> None:
    """A second request in the same bytes, and a CONNECT inside of a tunnel: the allowed host may hear it, nobody
    else."""
    host, closed = f"open.example.com:{open_place.port}", f"127.0.0.1:{closed_place.port}"
    smuggled = f"CONNECT {closed} HTTP/1.1\r\n\r\nGET http://{closed}/ HTTP/1.1\r\n\r\n"
    requests = {
        "plain": f"GET http://{host}/ HTTP/1.1\r\nHost: {closed}\r\n\r\n{smuggled}",
        "body": f"POST http://{host}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody{smuggled}",
        "both lengths": f"POST http://{host}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked"
        f"\r\n\r\n0\r\n\r\n{smuggled}",
        "tunnel": f"CONNECT {host} HTTP/1.1\r\nHost: x\r\n\r\n{smuggled}",
    }
    async with inside(driver, tmp_path, host) as box:
        await box.sandbox.write("probe.py", PROBE.read_bytes())
        given = json.dumps({"port": PORT, "heads": requests, "addresses": []})
        said = json.loads(await box.output(f"python3 probe.py {shlex.quote(given)}"))
    assert all(said[what].startswith("HTTP/1.1 200 ") for what in ("plain", "body", "tunnel")), said
    *http, tunnelled = open_place.came
    assert b"CONNECT" not in b"".join(http)
    assert all(f"host: {host}".encode() in one for one in http)
    assert tunnelled == smuggled.encode()


async def test_a_tunnel_carries_much_both_ways_and_its_half_closes(driver: Driver, tmp_path: Path) -> None:
    async def echo(stream: SocketStream) -> None:
        async with stream:
            async for piece in stream:
                await stream.send(piece)

    listener = await anyio.create_tcp_listener(local_host=OPEN)
    port = listener.extra(SocketAttribute.local_port)
    program = f"""
import hashlib, os, socket, threading
proxy = socket.create_connection(("127.0.0.1", {PORT}))
proxy.sendall(b"CONNECT open.example.com:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
assert proxy.recv(1000).startswith(b"HTTP/1.1 200")
data = os.urandom(1 << 20) * 8
def send():
    proxy.sendall(data)
    proxy.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
back = b"".join(iter(lambda: proxy.recv(1 << 20), b""))
print(back == data)
"""
    async with anyio.create_task_group() as group:
        group.start_soon(listener.serve, echo)
        async with inside(driver, tmp_path, f"open.example.com:{port}") as box:
            await box.sandbox.write("echo.py", program.encode())
            assert await box.output("python3 echo.py") == "True\n"
        group.cancel_scope.cancel()
    await listener.aclose()


async def test_a_sandbox_without_a_way_out_has_no_proxy(driver: Driver, tmp_path: Path) -> None:
    async with inside(driver, tmp_path, "") as box:
        assert await box.output("env | grep -i proxy; ls /run/errand") in ("exec_server.pyc\n", "group\npasswd\n")
        assert "refused" in await box.output(f"bash -c '</dev/tcp/127.0.0.1/{PORT}' 2>&1")


async def test_the_way_out_opens_no_other(driver: Driver, tmp_path: Path) -> None:
    async with inside(driver, tmp_path, "packages.example.org") as box:
        assert await ways_out(box.sandbox, driver) == "probed\n"
        assert await box.output("touch /run/errand/egress/x 2>/dev/null || echo denied") == "denied\n"


HOSTILE = """
import socket, sys, time
PORT, OPEN = int(sys.argv[1]), sys.argv[2]
def dial():
    proxy = socket.create_connection(("127.0.0.1", PORT), timeout=30)
    return proxy
def say(*pieces):
    with dial() as proxy:
        try:
            for piece in pieces:
                proxy.sendall(piece)
            return proxy.recv(64).split(b"\\r\\n")[0].decode()
        except OSError as error:
            return "closed"
print(say(b"CONNECT " + b"a" * 100_000_000))
print(say(b"GET http://" + OPEN.encode() + b"/ HTTP/1.1\\r\\n", *[b"X-%d: y\\r\\n" % n for n in range(10_000)]))
print(say(b"\\r\\n" * 1_000_000))
many = [dial() for _ in range(300)]
for one in many:
    one.send(b"GET http")
with dial() as half:
    half.send(b"CONNECT " + OPEN.encode() + b" HTTP/1.1\\r\\n")
    half.shutdown(socket.SHUT_WR)
for number, one in enumerate(many):
    (one.close if number % 2 else lambda: None)()
print("done")
"""


async def test_a_hostile_client_costs_the_runner_little_and_others_nothing(
    driver: Driver, tmp_path: Path, open_place: Place
) -> None:
    """A giant line, ten thousand headers, empty lines, connections that say nothing and half of them gone."""
    host = f"open.example.com:{open_place.port}"
    async with inside(driver, tmp_path, host) as box, inside(driver, tmp_path / "b", host) as other:
        before = memory_bytes()
        await box.sandbox.write("hostile.py", HOSTILE.encode())
        said = await box.output(f"python3 hostile.py {PORT} {host}")
        assert said.splitlines()[-1] == "done", said
        assert memory_bytes() - before < 20 * 1024 * 1024
        assert await other.output(f"curl -sS -m 5 http://{host}/") == "hi\n"
        assert box.sandbox.gate is not None
    assert box.sandbox.gate.connections == 0


async def test_who_does_not_read_what_an_allowed_host_sends_fills_no_memory(driver: Driver, tmp_path: Path) -> None:
    """Each of the connections that it may have, all of them flooded from outside."""
    flooded = 0

    async def flood(stream: SocketStream) -> None:
        nonlocal flooded
        flooded += 1
        with suppress(anyio.BrokenResourceError):
            async with stream:
                while True:
                    await stream.send(bytes(1 << 16))

    listener = await anyio.create_tcp_listener(local_host=OPEN)
    host = f"open.example.com:{listener.extra(SocketAttribute.local_port)}"
    count = LIMITED.sandbox_egress_connections
    program = f"""
import socket, time
many = [socket.create_connection(("127.0.0.1", {PORT})) for _ in range({count})]
for one in many:
    one.sendall(b"CONNECT {host} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
for one in many:
    one.recv(1)
time.sleep(1)
print("full")
"""
    before = memory_bytes()
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, flood)
        async with inside(driver, tmp_path, host) as box:
            await box.sandbox.write("deaf.py", program.encode())
            assert await box.output("python3 deaf.py") == "full\n"
            assert memory_bytes() - before < count * 512 * 1024
        group.cancel_scope.cancel()
    assert flooded == count


SLOW = f"""
import socket, time
with socket.create_connection(("127.0.0.1", {PORT})) as proxy:
    proxy.settimeout(0.05)
    began = time.monotonic()
    while time.monotonic() - began < 20:
        try:
            proxy.send(b"X")
            if not proxy.recv(1):
                break
        except TimeoutError:
            pass
        except OSError:
            break
    print(time.monotonic() - began < 10)
"""


async def test_a_request_that_never_ends_and_a_tunnel_that_says_nothing_are_closed(
    driver: Driver, tmp_path: Path, open_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandbox.egress.proxy.HEAD_SECONDS", 0.5)
    host = f"open.example.com:{open_place.port}"
    async with inside(driver, tmp_path, host, sandbox_egress_idle_seconds=1.0) as box:
        await box.sandbox.write("slow.py", SLOW.encode())
        assert await box.output("python3 slow.py") == "True\n"
        silent = (
            f"exec 3<>/dev/tcp/127.0.0.1/{PORT}; printf 'CONNECT {host} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; cat <&3"
        )
        assert "200 Connection established" in await box.output(f'bash -c "{silent}"')
    assert open_place.came == [b""]


def memory_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024
