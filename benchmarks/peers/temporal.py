"""Temporal's dev server with its database in a file: a workflow of one activity that does nothing is our turn."""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers import FOLDER, HERE, Speed, program, run, server
from services.up import free_port

NAME = "Temporal's dev server"

TURN = "workflow of one activity"


def measure(folder: Path, workflows: int, at_once: int, singles: int) -> Speed:
    """Raises Missing."""
    port = str(free_port())
    command = (program("temporal"), "server", "start-dev", "--headless", "--log-level", "error", "--port", port)
    with server(*command, "--db-filename", str(folder / "temporal.db"), log=folder / "temporal.log"):
        python, script = FOLDER / "bin" / "python", HERE / "temporal_turns.py"
        return run(python, script, f"127.0.0.1:{port}", str(workflows), str(at_once), str(singles))
