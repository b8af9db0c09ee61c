"""Cron expressions in a time zone. Pure; a time that a change of clocks skips comes right after the change, one that it
repeats comes once (as Debian's cron has it), unless its hour is a `*`."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

FIELDS = "minute, hour, day of the month, month, day of the week"
CRON_LIMIT_CHARS = 100


def check(cron: str, time_zone: str) -> None:
    """Raises ValueError with what is wrong and what it may be."""
    _zone(time_zone)
    if len(cron) > CRON_LIMIT_CHARS or len(cron.split()) != 5:
        raise ValueError(f"A cron expression has five fields: {FIELDS}. `0 9 * * 1-5` is 9:00 on weekdays.")
    try:
        next(CronSim(cron, datetime.now(UTC)))
    except CronSimError as error:
        said = str(error).lower()
        raise ValueError(f"The cron expression has a {said}: its fields are {FIELDS}.") from None
    except StopIteration:
        raise ValueError("This cron expression never comes about.") from None


def next_after(cron: str, time_zone: str, after: datetime) -> datetime:
    """UTC, later than `after`."""
    return next(CronSim(cron, after.astimezone(_zone(time_zone)))).astimezone(UTC)


def last_until(cron: str, time_zone: str, first: datetime, until: datetime, count: int) -> list[datetime]:
    """The last `count` occurrences from `first` to `until`, both included; UTC, in their order."""
    return sorted(islice(_backwards(cron, time_zone, first, until), count))


def _backwards(cron: str, time_zone: str, first: datetime, until: datetime) -> Iterator[datetime]:
    # It looks at what is before a minute: from one minute later it sees the one of `until` too.
    for local in CronSim(cron, (until + timedelta(minutes=1)).astimezone(_zone(time_zone)), reverse=True):
        found = local.astimezone(UTC)
        if found < first:
            return
        if found <= until:
            yield found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        near = difflib.get_close_matches(name, available_timezones(), 3)
        raise ValueError(f"There is no time zone {name!r}: {' or '.join(near) or 'Europe/Berlin, say'}.") from None
