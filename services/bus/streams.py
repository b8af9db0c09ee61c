"""The streams and buckets of the house."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from protocol.base import MESSAGE_LIMIT_BYTES
from protocol.routes import Stream

BLOBS = "blobs"
SNAPSHOTS = "snapshots"
"""The scheduler's alone."""
ARCHIVE = "archive"
"""The logs of tasks that ended long ago (services/archive.py). The scheduler alone writes it."""
LEASES = "lease"
LEASE_SECONDS = 5.0


class Renewal(Struct, frozen=True):
    """On `$KV.lease.attempt.<task>`: this runner still moves."""

    attempt: int
    runner: str = ""


def _stream(name: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "storage": "file", "retention": "limits", "num_replicas": 1, "allow_direct": True, **settings}


STREAMS: tuple[dict[str, Any], ...] = (
    _stream(
        Stream.TASKS,
        subjects=["cmd.>", "evt.>", "timer.>"],
        republish={"src": "evt.>", "dest": "live.>"},
        allow_atomic=True,
        allow_msg_schedules=True,
        allow_msg_ttl=True,
        allow_rollup_hdrs=True,
        max_msg_size=MESSAGE_LIMIT_BYTES + 64 * 1024,
        duplicate_window=int(120e9),
    ),
    _stream(
        Stream.OUTPUT,
        subjects=["out.>"],
        max_age=int(600e9),
        max_bytes=256 * 1024 * 1024,
        discard="old",
        persist_mode="async",
    ),
    _stream(Stream.DEAD, subjects=["dead.>"], max_age=int(90 * 86400e9), max_bytes=64 * 1024 * 1024, discard="old"),
    _stream(
        f"KV_{LEASES}",
        storage="memory",
        subjects=[f"$KV.{LEASES}.>"],
        max_age=int(LEASE_SECONDS * 1e9),
        max_msgs_per_subject=1,
        discard="new",
        allow_rollup_hdrs=True,
    ),
    *(
        _stream(
            f"OBJ_{bucket}",
            subjects=[f"$O.{bucket}.C.>", f"$O.{bucket}.M.>"],
            discard="new",
            allow_rollup_hdrs=True,
            compression="s2" if bucket == SNAPSHOTS else "none",
        )
        for bucket in (BLOBS, SNAPSHOTS, ARCHIVE)
    ),
)
