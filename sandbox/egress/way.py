"""A started sandbox gets its way out. Imported only where one is to have it: no other runner pays for the proxy."""

from __future__ import annotations

from pathlib import Path

from sandbox.client import ExecClient
from sandbox.contract import SandboxError, SandboxSpec
from sandbox.egress.environment import GATE_INSIDE, PORT, proxied
from sandbox.egress.gate import NAME, Gate
from sandbox.egress.outside import Outside
from sandbox.egress.proxy import Proxy
from sandbox.egress.refusals import Refusals


async def open_way(client: ExecClient, spec: SandboxSpec, folder: Path, uid: int, outside: Outside) -> None:
    """`folder` is an own one of the sandbox's, empty but for this moment. SandboxError when it cannot be."""
    gate = Gate(Proxy(spec.egress, outside.of_one(), Refusals(spec.on_refused).add), spec.egress.connections)
    try:
        await gate.open(folder, uid, lambda: client.lend(f"{GATE_INSIDE}/{NAME}", PORT))
    except OSError as error:
        raise SandboxError(f"The sandbox did not open its way to the proxy: {error}") from error
    client.gate = gate
    client.environment = {**proxied(), **client.environment}
