"""Commands straight on this machine, as the user who runs Errand: only for who asks for it by name."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import msgspec

from sandbox import exec_server
from sandbox.checkpoints import GITCONFIG
from sandbox.client import ExecClient
from sandbox.contract import BorrowWorkspace, Capabilities, SandboxError, SandboxSpec, Setup, SetupWatch
from sandbox.environment import everyday
from sandbox.process import start_exec_server
from sandbox.removal import discard_tree

NOTES = (
    "No sandbox: a task can read, change and send whatever the user who runs Errand can.",
    "What a task runs ends with its runner: a later one cannot take it over.",
)


class Unsandboxed:
    """The same exec server without namespaces. `/workspace` in a `cwd`, `read` or `write` means the real folder; inside
    a command's text it means nothing, but commands start there and find it as WORKSPACE. `/tmp` is the machine's."""

    name = "unsandboxed"
    copies_workspaces = False

    async def capabilities(self) -> Capabilities:
        return Capabilities(isolated=False, memory_limit=False, disk_limit=False, process_limit=False, notes=NOTES)

    async def reattach(self, spec: SandboxSpec, previous: int) -> ExecClient | None:
        return None

    async def sweep(self) -> int:
        return 0

    async def start(self, spec: SandboxSpec) -> ExecClient:
        """SandboxError when the workspace is no folder."""
        if not spec.workspace.is_absolute() or not spec.workspace.is_dir():
            raise SandboxError(f"{spec.workspace} is not an absolute path of a folder")
        home = Path(tempfile.mkdtemp(prefix="errand-home-"))
        (home / ".gitconfig").write_text(GITCONFIG)
        client = ExecClient(spec.environment, cleanup=lambda: discard_tree(home))
        config = msgspec.json.encode({"workspace": str(spec.workspace.resolve()), "limits": {"CORE": 0}}).decode()
        argv = [sys.executable, "-I", "-S", exec_server.__file__, config]
        await start_exec_server(client, argv, environment(spec, home))
        return client

    async def prepare(self, setup: Setup, borrow: BorrowWorkspace, watch: SetupWatch) -> str:
        """Nothing: what a set-up installs would be the machine's own."""
        await watch.notice("The repository's set-up is not run without a sandbox: this machine is used as it is.")
        return ""


def environment(spec: SandboxSpec, home: Path) -> dict[str, str]:
    """Small and clean, but for PATH: the user's own tools are why somebody sets this."""
    return {
        **everyday(str(home)),
        "PATH": os.environ.get("PATH", os.defpath),
        "WORKSPACE": str(spec.workspace.resolve()),
        "ERRAND_TASK": spec.task,
        "ERRAND_ATTEMPT": str(spec.attempt),
    }
