"""A Docker Engine of a test's own, to be ended and started again."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from sandbox.image import own_name
from tests.missing import missing

START_SECONDS = 60.0


class OwnEngine:
    """A second dockerd: its socket, data and process id are its own, and its network namespace: told to have no bridge,
    it would take the machine's docker0 away from the first."""

    def __init__(self, folder: Path) -> None:
        self.host = f"unix://{folder}/engine.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, live_restore: bool = False) -> None:
        """With `live_restore` containers go on while it is down; without, it ends them, or what it finds of them."""
        command = [
            "unshare",
            "--net",
            "dockerd",
            f"--host={self.host}",
            f"--data-root={self._folder}/data",
            f"--exec-root={self._folder}/exec",
            f"--pidfile={self._folder}/pid",
            f"--live-restore={str(live_restore).lower()}",
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
        ]
        with (self._folder / "log").open("ab") as log, self._notices() as notices:
            told = {**os.environ, "NOTIFY_SOCKET": notices.getsockname()}
            self._process = subprocess.Popen(command, env=told, stdout=log, stderr=log, start_new_session=True)
            try:
                assert b"READY=1" in notices.recv(1024), self.log()
            except TimeoutError:
                pytest.fail(f"{self.host} does not answer: {self.log()}")

    @contextmanager
    def _notices(self) -> Iterator[socket.socket]:
        """Where it says that it is ready, as to systemd."""
        path = self._folder / "notices"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
            notices.settimeout(START_SECONDS)
            notices.bind(str(path))
            try:
                yield notices
            finally:
                path.unlink()

    def stop(self) -> None:
        """As an update of its package does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """As the kernel does that has no memory left. Containerd dies with it, the containers know of nothing."""
        if self._process is not None:
            containerd = psutil.Process(int((self._folder / "exec" / "containerd" / "containerd.pid").read_text()))
            self._process.kill()
            self._process.wait(START_SECONDS)
            self._process = None
            # The next one would take it for alive until this machine's init has reaped it.
            assert psutil.wait_procs([containerd], timeout=START_SECONDS)[1] == []

    def discard(self) -> None:
        """Its images are a gigabyte. An engine that was killed leaves its folder mounted on itself."""
        data = self._folder / "data"
        subprocess.run(["umount", data], capture_output=True, check=False)
        shutil.rmtree(data)

    def cli(self) -> list[str]:
        return ["docker", "--host", self.host]

    def said(self, *words: str) -> list[str]:
        return subprocess.run([*self.cli(), *words], capture_output=True, text=True, check=True).stdout.split()

    def containers(self, *filters: str) -> list[str]:
        return self.said("ps", "--all", "--quiet", *(word for one in filters for word in ("--filter", one)))

    def volumes(self) -> list[str]:
        return self.said("volume", "ls", "--quiet")

    def remove_containers(self) -> None:
        self.said("rm", "--force", *self.containers())

    def log(self) -> str:
        """Its end."""
        return (self._folder / "log").read_text()[-2000:]


@contextmanager
def own_engine(folder: Path) -> Iterator[OwnEngine]:
    """It runs, and has the sandbox's image of the machine's engine. Skips where that cannot be."""
    has_image = shutil.which("docker") and subprocess.run(
        ["docker", "image", "inspect", own_name()], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not shutil.which("dockerd") or os.geteuid() != 0 or not has_image:
        missing("needs root, dockerd and the sandbox's image: apt-get install docker.io && make sandbox-image")
    engine = OwnEngine(folder)
    engine.start()
    try:
        with subprocess.Popen(["docker", "save", own_name()], stdout=subprocess.PIPE) as saved:
            subprocess.run([*engine.cli(), "load", "--quiet"], stdin=saved.stdout, check=True, capture_output=True)
        yield engine
    finally:
        engine.stop()
        engine.discard()
