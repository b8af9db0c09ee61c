"""`python -m services.container.init FOLDER`: an installation's secrets, each in the volumes of those who need it.

FOLDER has a `secrets-<service>` for each service, which that service alone mounts: nobody else can read what is in it.
Passwords are made, once. What the operator gives as a file is copied: that file is the operator's own, which only root
can read, and no service is root. So this begins as root, reads, and goes on as the services' user.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from protocol.routes import Service
from services.config import unknown
from services.container.user import become
from services.nats_server import configuration, make_password, password_file, users
from services.secrets_file import write_secret

STORE = Path("/data/nats")
"""Where the container of nats-server has its volume."""
MONITOR_PORT = 8222
GIVEN_AT = Path("/run/secrets")
GIVEN = {
    "anthropic_api_key": (Service.RUNNER,),
    "github_client_secret": (Service.GATEWAY, Service.REPOS),
}
"""Who needs which file of the operator's: the secrets of compose.yaml."""


def make(folder: Path, given: Mapping[str, str]) -> None:
    """The passwords, the server's configuration with this release's permissions, and what was given."""
    passwords = {}
    for service in Service:
        path = password_path(folder, service)
        make_password(path)
        passwords[service] = path.read_text().strip()
    # On every address of its container; the network it stands in is internal.
    text = configuration(users(passwords), STORE, host="0.0.0.0", monitor_port=MONITOR_PORT)
    write_secret(volume(folder, "nats") / "nats.conf", text)
    for name, services in GIVEN.items():
        for service in services:
            lay(volume(folder, service) / "given" / name, given[name])


def lay(path: Path, secret: str) -> None:
    """Empty means that none is given any more."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if secret:
        write_secret(path, secret)
    else:
        path.unlink(missing_ok=True)


def volume(folder: Path, service: str) -> Path:
    return folder / f"secrets-{service}"


def password_path(folder: Path, service: Service) -> Path:
    """Whoever operates the installation also reads its traces."""
    holder = Service.OPERATOR if service is Service.READER else service
    return volume(folder, holder) / password_file(Path(), service).name


def refuse(environment: Mapping[str, str], given: Mapping[str, str]) -> None:
    """SystemExit with what to do about a name that is no setting, a key in the wrong place, or a file without one."""
    if wrong := unknown(environment):
        sys.exit("\n".join(wrong))
    file = environment.get("ANTHROPIC_API_KEY_FILE")
    if environment.get("ANTHROPIC_API_KEY"):
        sys.exit(
            "ANTHROPIC_API_KEY is in .env, where every service could read it: put the key into a file of its own, and "
            "name that file in .env with ANTHROPIC_API_KEY_FILE=./anthropic.key"
        )
    if file and not given["anthropic_api_key"]:
        sys.exit(f"ANTHROPIC_API_KEY_FILE={file} has no key in it: put one into it, or leave the setting out.")


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m services.container.init", description=__doc__)
    options.add_argument("folder", type=Path)
    folder = options.parse_args().folder
    given = {name: (GIVEN_AT / name).read_text().strip() for name in GIVEN}
    refuse(os.environ, given)
    become()
    make(folder, given)


if __name__ == "__main__":
    main()
