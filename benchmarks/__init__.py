"""Ours and the peer's, side by side in one run. `make bench` runs all; each part writes `build/bench/<name>.json`."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

FOLDER = Path("build/bench")


class Row(Struct, kw_only=True):
    """One measurement. `ratio` is ours / peer's; peer and ratio are None where no peer was run."""

    what: str
    ours: float
    unit: str
    demanded: str
    """What DESIGN's budget asks, in words."""
    ok: bool
    peer: float | None = None
    ratio: float | None = None
    peer_name: str = ""


def compared(what: str, ours: float, peer: float, unit: str, *, demanded: str, ok: bool, peer_name: str) -> Row:
    ratio = ours / peer if peer else None
    return Row(what=what, ours=ours, peer=peer, ratio=ratio, unit=unit, demanded=demanded, ok=ok, peer_name=peer_name)


def report(name: str, rows: list[Row]) -> None:
    """Print the rows and write them where later runs can be held against them."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))
    print(f"\n{name}")
    for row in rows:
        peer = f"{row.peer:10.4g} {row.unit} ({row.peer_name})" if row.peer is not None else "no peer was run"
        ratio = f"x{row.ratio:.3g}" if row.ratio is not None else ""
        mark = "ok  " if row.ok else "MISS"
        print(f"  {mark} {row.what:52} {row.ours:10.4g} {row.unit:8} {peer:38} {ratio:8} demanded {row.demanded}")


def median(values: list[float]) -> float:
    return percentile(values, 0.5)


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
