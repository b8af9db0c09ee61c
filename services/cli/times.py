"""Times as people write them: a length, and a moment in the zone of the machine they sit at."""

from __future__ import annotations

import os
import re
from datetime import datetime
from pathlib import Path

import click

UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
LONGEST_SECONDS = 366 * UNITS["d"]
"""The server takes at most a year."""
PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)


class Duration(click.ParamType):
    """`90s`, `15m`, `2h`, `1h30m`, `3d`: seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        parts = PART.findall(str(value))
        seconds = sum(float(number) * UNITS[unit.lower()] for number, unit in parts)
        if PART.sub("", str(value)).strip() or seconds <= 0:
            self.fail(f"{value!r} is no length of time: 90s, 15m, 2h, 1h30m or 3d.", param, ctx)
        if seconds > LONGEST_SECONDS:
            self.fail(f"{value!r} is more than a year.", param, ctx)
        return seconds


class Moment(click.ParamType):
    """`2026-12-01 09:00` where this machine is, or ISO 8601 with its own zone."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(str(value)).astimezone()
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time: 2026-12-01 09:00, or 2026-12-01T09:00:00+01:00.", param, ctx)


def local_zone() -> str:
    """The IANA name of this machine's time zone; empty where it does not say."""
    said = os.environ.get("TZ", "").removeprefix(":")
    found = said or str(Path("/etc/localtime").resolve())
    name = found.partition("zoneinfo/")[2] or said
    return "UTC" if name in ("Etc/UTC", "Universal", "Zulu") else name
