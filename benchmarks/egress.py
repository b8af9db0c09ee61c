"""What the proxy of a sandbox costs: one connection and its answer, and 100 MB, beside the same without a proxy."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
import msgspec
from msgspec import Struct

from benchmarks import Row, compared, report
from sandbox.bubblewrap import Bubblewrap
from sandbox.config import DOCKER_HOST, Config, egress, limits
from sandbox.contract import Driver, SandboxSpec, SandboxUnavailable
from sandbox.docker import connect
from sandbox.egress.environment import PORT
from sandbox.egress.outside import Outside

ROUNDS = 100
DOWNLOADS = 5
DOWNLOAD_BYTES = 100 * 1024 * 1024
CLIENT = Path(__file__).with_name("egress_client.py")
SERVER = """
import socket, threading
def serve(one):
    with one:
        size = int(one.recv(100).split()[1][1:])
        one.sendall(bytes(size))
with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
"""Sends as many bytes as the path names."""


class Taken(Struct):
    """What the client prints."""

    answer_milliseconds: float
    download_seconds: float


async def measure() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="errand-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline())
            try:
                return await by_each_driver(folder, port)
            finally:
                server.kill()


async def by_each_driver(folder: Path, port: int) -> list[Row]:
    outside = Outside(local, lambda address: True)
    bubblewrap = Bubblewrap(limits(Config()), outside=outside)
    rows = await compare(bubblewrap, folder / "bubblewrap", port)
    docker = connect(Config(), DOCKER_HOST, folder / "sandbox", "bench", outside)
    try:
        await docker.capabilities()
        rows += await compare(docker, folder / "docker", port)
    except SandboxUnavailable as error:
        print(f"The Docker rows are left out: {error}", file=sys.stderr)
    finally:
        await docker.close()
    return rows


async def local(name: str) -> list[str]:
    return ["127.0.0.1"]


async def compare(driver: Driver, workspace: Path, port: int) -> list[Row]:
    direct = await run_outside(port)
    ours = await run_inside(driver, workspace, port)
    megabytes = DOWNLOAD_BYTES / 1_000_000
    return [
        compared(
            f"{driver.name}: a connection and its answer, p50",
            ours.answer_milliseconds,
            direct.answer_milliseconds,
            "ms",
            demanded="-",
            ok=True,
            peer_name="no proxy",
        ),
        compared(
            f"{driver.name}: {megabytes:.0f} MB, median",
            megabytes / ours.download_seconds,
            megabytes / direct.download_seconds,
            "MB/s",
            demanded="-",
            ok=True,
            peer_name="no proxy",
        ),
    ]


def arguments(port: int, proxy: int) -> list[str]:
    return [str(number) for number in (port, proxy, ROUNDS, DOWNLOADS, DOWNLOAD_BYTES)]


async def run_outside(port: int) -> Taken:
    done = await anyio.run_process([sys.executable, str(CLIENT), *arguments(port, 0)])
    return msgspec.json.decode(done.stdout, type=Taken)


async def run_inside(driver: Driver, workspace: Path, port: int) -> Taken:
    workspace.mkdir()
    way = egress(Config(sandbox_egress=f"server.example.com:{port}"))
    sandbox = await driver.start(SandboxSpec(task="bench", attempt=1, workspace=workspace, egress=way))
    try:
        await sandbox.write("client.py", CLIENT.read_bytes())
        done = await sandbox.exec(f"python3 client.py {' '.join(arguments(port, PORT))}")
        return msgspec.json.decode(done.output, type=Taken)
    finally:
        await sandbox.stop()


if __name__ == "__main__":
    report("egress", anyio.run(measure, backend_options={"use_uvloop": True}))
