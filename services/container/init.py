"""`python -m services.container.init FOLDER`: the secrets of an installation, each made once, in `secrets-<service>`.

Each of these is a volume that its service alone mounts, so that nobody else can read what is in it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from protocol.routes import Service
from services.nats_server import configuration, make_password, password_file
from services.secrets_file import write_secret

STORE = Path("/data/nats")
"""Where the container of nats-server has its volume."""
MONITOR_PORT = 8222


def make(folder: Path) -> None:
    """The passwords, and the server's configuration with this release's permissions."""
    passwords = {}
    for service in Service:
        path = password_path(folder, service)
        make_password(path)
        passwords[service] = path.read_text().strip()
    # On every address of its container; the network it stands in is internal.
    text = configuration(passwords, STORE, host="0.0.0.0", monitor_port=MONITOR_PORT)
    write_secret(folder / "secrets-nats" / "nats.conf", text)


def password_path(folder: Path, service: Service) -> Path:
    """Whoever operates the installation also reads its traces."""
    holder = Service.OPERATOR if service is Service.READER else service
    return folder / f"secrets-{holder}" / password_file(Path(), service).name


def refuse_key(environment: Mapping[str, str]) -> None:
    """SystemExit where the key stands in `.env`, which every service is given."""
    if environment.get("ANTHROPIC_API_KEY"):
        sys.exit(
            "ANTHROPIC_API_KEY is in .env, where every service could read it: put the key into a file of its own, and "
            "name that file in .env with ANTHROPIC_API_KEY_FILE=./anthropic.key"
        )


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m services.container.init", description=__doc__)
    options.add_argument("folder", type=Path)
    refuse_key(os.environ)
    make(options.parse_args().folder)


if __name__ == "__main__":
    main()
