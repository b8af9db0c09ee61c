"""`python -m services.container.runner`: begins as root, becomes the runner.

Root's part is to find the group that may use the engine's socket, which has another number on each host. The runner
itself is the image's ordinary user with no capability left.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from services.container.user import become

KEY_FILE = Path("/data/secrets/given/anthropic_api_key")
SOCKET = Path("/var/run/docker.sock")
SCRIPTED = {"ERRAND_MODEL_URL": "http://model:8080", "ERRAND_SCRIPTED": "1", "ERRAND_MODEL": "scripted"}
"""The service `model` of compose.yaml."""


def settings(environment: Mapping[str, str], key: str) -> dict[str, str]:
    """The runner's environment. Without a key, and with no other model named, the scripted model answers."""
    if key:
        return {**environment, "ANTHROPIC_API_KEY": key}
    return {**environment} if environment.get("ERRAND_MODEL_URL") else {**environment, **SCRIPTED}


def key() -> str:
    """Empty when none was given."""
    with suppress(FileNotFoundError):
        return KEY_FILE.read_text().strip()
    return ""


def socket_groups() -> list[int]:
    """None where no engine's socket is mounted; `errand doctor` says what is missing then."""
    with suppress(FileNotFoundError):
        return [SOCKET.stat().st_gid]
    return []


def main() -> None:
    become(socket_groups())
    os.execve(sys.executable, [sys.executable, "-P", "-m", "services.runner"], settings(os.environ, key()))


if __name__ == "__main__":
    main()
