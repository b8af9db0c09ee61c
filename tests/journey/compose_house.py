"""The house in containers, as `compose.yaml` has it: built from the checkout, on the real engine, and nothing left."""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import msgspec

from sandbox.config import Config
from services.up import Ready, free_port
from tests.missing import missing

ROOT = Path(__file__).parents[2]
ADDED_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""What this machine's administrator trusts beside the usual: a build may meet it on its way out."""
IMAGE = "errand-test"
ENDED_SECONDS = 20.0
"""For a sandbox to be gone once its lease has ended."""
BASE_IMAGE = "debian:bookworm-slim"
"""`.ci/engine` has made it where no registry is reached, so that it has no digest of a registry's."""


class ComposeHouse:
    """A started project; `errand` on this machine is signed in to it as the owner."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.data = folder / "client"
        self.project = f"errand-test-{secrets.token_hex(4)}"
        port = free_port()
        self.ready = Ready(server=f"http://127.0.0.1:{port}", link="", seconds=0)
        self._installation = ""
        self._settings = folder / ".env"
        lines = {"ERRAND_PORT": str(port), **settings}.items()
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in lines))

    @property
    def token(self) -> str:
        return msgspec.json.decode((self.data / "client.json").read_bytes())["token"]

    def compose(self, *arguments: str) -> str:
        """What `docker compose` prints; fails with all that it said when it does."""
        command, environment = self._command(*arguments)
        return run(command, environment)

    def _command(self, *arguments: str) -> tuple[list[str], dict[str, str]]:
        certificates = "".join(path.read_text() for path in sorted(ADDED_CERTIFICATES.glob("*.crt")))
        settings = {
            "BASE_IMAGE": BASE_IMAGE,
            "CA_CERTIFICATES": certificates,
            "COMPOSE_ENV_FILES": str(self._settings),
            "COMPOSE_PROJECT_NAME": self.project,
            "ERRAND_IMAGE": IMAGE,
        }
        return [str(Path(sys.executable).with_name("docker-compose")), *arguments], {**others(), **settings}

    def errand(self, *arguments: str, stdin: str = "") -> str:
        """The command line of this machine."""
        command = [sys.executable, "-m", "services.cli", *arguments]
        return run(command, {**others(), "ERRAND_DATA": str(self.data)}, stdin)

    def start(self) -> None:
        self.compose("build", "--quiet")
        self.compose("up", "--detach", "--wait")
        self._installation = self.compose("exec", "-T", "repos", "cat", "/data/sandbox/installation").strip()

    def sign_in(self) -> None:
        """As docs/vps.md tells the owner to."""
        welcome = json.loads(self.compose("run", "--rm", "errand", "welcome", "--json").splitlines()[-1])
        self.errand("login", welcome["link"])

    def use(self, token: str) -> None:
        """Be a device that is signed in already."""
        self.data.mkdir()
        (self.data / "client.json").write_text(json.dumps({"server": self.ready.server, "token": token}))

    def backup(self, file: Path) -> None:
        """While everything runs: what nats-server has on disk is frozen for as long as it takes."""
        self.compose("pause", "nats")
        command, environment = self._command("run", "--rm", "-T", "backup")
        with file.open("wb") as out:
            subprocess.run(command, cwd=ROOT, env=environment, stdout=out, stdin=subprocess.DEVNULL, check=True)
        self.compose("unpause", "nats")

    def restore(self, file: Path) -> None:
        command, environment = self._command("run", "--rm", "-T", "restore")
        with file.open("rb") as kept:
            subprocess.run(command, cwd=ROOT, env=environment, stdin=kept, check=True)

    def gateway_address(self) -> str:
        """Of this machine, as the containers that may speak to the world see it."""
        network = json.loads(docker("network", "inspect", f"{self.project}_out"))[0]
        return network["IPAM"]["Config"][0]["Gateway"]

    @contextmanager
    def host(self, name: str, network: str, *command: str) -> Iterator[None]:
        """A server of that name, which the runner alone sees, on a network of this range."""
        named = f"{self.project}-{name}"
        runner = self.compose("ps", "--quiet", "runner").strip()
        docker("network", "create", "--internal", "--subnet", network, named)
        try:
            docker(
                "run",
                "--detach",
                "--name",
                named,
                "--net",
                named,
                "--network-alias",
                name,
                "--entrypoint",
                command[0],
                IMAGE,
                *command[1:],
            )
            docker("network", "connect", named, runner)
            yield
        finally:
            for words in (("network", "disconnect", "--force", named, runner), ("rm", "--force", named)):
                subprocess.run(["docker", *words], check=False, capture_output=True)
            docker("network", "rm", named)

    def kill(self, service: str) -> None:
        """As when it crashes: `docker kill` would be the wish of an operator, which the restart policy respects."""
        container = self.compose("ps", "--quiet", service).strip()
        pid = docker("inspect", "--format", "{{.State.Pid}}", container).strip()
        docker("run", "--rm", "--pid=host", "--user=root", "--entrypoint=sh", IMAGE, "-c", f"kill -9 {pid}")

    def secrets(self, service: str) -> list[str]:
        """What is in the files that this service alone may read."""
        each = 'find /data/secrets -type f -exec base64 -w0 {} ";" -exec echo ";"'
        files = self.compose("exec", "-T", "-u", "errand", service, "sh", "-c", each)
        return [base64.b64decode(line).decode() for line in files.splitlines()]

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "40")

    def left(self) -> list[str]:
        """What the engine still has of this project, its sandboxes too."""
        label = f"label=com.docker.compose.project={self.project}"
        sandboxes = f"label=errand.installation={self._installation}"
        listings = {
            "container": ("ps", "--all", "--filter", label),
            "sandbox": ("ps", "--all", "--filter", sandboxes),
            "volume": ("volume", "ls", "--filter", label),
            "network": ("network", "ls", "--filter", label),
        }
        return [f"{kind} {name}" for kind, listing in listings.items() for name in docker(*listing, "--quiet").split()]


@contextmanager
def compose_up(folder: Path, *, backup: Path | None = None, token: str = "", **settings: str) -> Iterator[ComposeHouse]:
    """Start the project with `settings` in its `.env`, from a backup where there is one (`token` is of a device that it
    knows), and take it down at the end; fails when anything of it is left."""
    need_engine()
    house = ComposeHouse(folder, settings)
    try:
        if backup is None:
            house.start()
            house.sign_in()
        else:
            house.restore(backup)
            house.start()
            house.use(token)
        yield house
    finally:
        house.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
    # A runner that is told to stop leaves a task's sandbox to the next one: it ends with its lease.
    lease = float(settings.get("ERRAND_SANDBOX_LEASE_SECONDS", Config().sandbox_lease_seconds))
    deadline = time.monotonic() + lease + ENDED_SECONDS
    while (left := house.left()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []


def need_engine() -> None:
    """Skip, or fail in CI, where no engine answers."""
    asked = subprocess.run(["docker", "version"], capture_output=True, check=False) if which("docker") else None
    if asked is None or asked.returncode != 0:
        message = "no Docker Engine answers: as root `.ci/engine /tmp/dockerd.pid`, or `apt install docker.io`"
        missing(message)


def others() -> dict[str, str]:
    """The environment without what would steer an Errand."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("ERRAND_", "ANTHROPIC_"))}


def docker(*arguments: str) -> str:
    return run(["docker", *arguments], os.environ)


def run(command: Sequence[str], environment: Mapping[str, str], stdin: str = "") -> str:
    done = subprocess.run(command, cwd=ROOT, env=environment, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return done.stdout
