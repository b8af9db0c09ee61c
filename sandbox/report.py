"""What there is to say of a runner's sandboxes, for `errand doctor`."""

from __future__ import annotations

from collections.abc import Iterator

from protocol.query import Check
from sandbox.drivers import Drivers
from sandbox.egress.suffixes import doubts


def checks(drivers: Drivers, waits: str = "") -> Iterator[Check]:
    """Of the driver that was found. `waits` is what a better one waits for. Reads a list of all suffixes where hosts
    may be reached (0.1 s)."""
    if drivers.driver is None or drivers.able is None:
        yield Check("sandbox", "warn" if waits else "fail", f"none: {drivers.why}. {waits}".strip())
        return
    if not drivers.able.isolated:
        yield Check("sandbox", "warn", f"UNSANDBOXED: commands run on this machine as you. {_notes(drivers)}")
        return
    missing = [name for name in ("memory", "disk", "process") if not getattr(drivers.able, f"{name}_limit")]
    works = f"{drivers.driver.name} works ({drivers.why})"
    works += f", without a limit of {', '.join(missing)}." if missing else "."
    # The disk's needs loop devices, which are root's: said, and not always to be mended.
    is_well = not waits and drivers.able.memory_limit and drivers.able.process_limit
    yield Check("sandbox", "ok" if is_well else "warn", " ".join(filter(None, (works, waits, _notes(drivers)))))
    for name, text in drivers.able.facts.items():
        yield Check(f"sandbox {name}", "ok", text)
    yield from _network(drivers)
    for warning in drivers.able.warnings:
        yield Check("sandbox engine", "warn", warning)


def _notes(drivers: Drivers) -> str:
    return " ".join(drivers.able.notes) if drivers.able else ""


def _network(drivers: Drivers) -> Iterator[Check]:
    if drivers.egress.words:
        yield Check("sandbox network", "ok", f"tasks reach {', '.join(drivers.egress.words)}")
        for doubt in doubts(drivers.egress.allowed):
            yield Check("sandbox network", "warn", doubt)
    elif drivers.wants_egress:
        text = "tasks reach nothing: this driver cannot hold them to ERRAND_SANDBOX_EGRESS"
        yield Check("sandbox network", "warn", text)
    else:
        yield Check("sandbox network", "ok", "tasks reach nothing (ERRAND_SANDBOX_EGRESS is empty)")
