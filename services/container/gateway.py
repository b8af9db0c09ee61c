"""`python -m services.container.gateway`: the gateway, told which address a proxy on the host comes from.

To a container that is the engine's bridge, whose address is another one on each host.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

ROUTES = Path("/proc/net/route")
EVERYWHERE = "00000000"


def bridge(routes: str) -> str:
    """The address of the default route in `/proc/net/route` (proc_net: little-endian hexadecimal); empty for none."""
    for line in routes.splitlines()[1:]:
        _, destination, gateway, *_ = line.split()
        if destination == EVERYWHERE != gateway:
            return str(IPv4Address(bytes.fromhex(gateway)[::-1]))
    return ""


def settings(environment: Mapping[str, str], routes: str) -> dict[str, str]:
    """Proxies that the operator names are all there are."""
    return {**environment, "ERRAND_TRUSTED_PROXIES": environment.get("ERRAND_TRUSTED_PROXIES") or bridge(routes)}


def main() -> None:
    os.execve(sys.executable, [sys.executable, "-P", "-m", "gateway"], settings(os.environ, ROUTES.read_text()))


if __name__ == "__main__":
    main()
