"""Which driver a setting means."""

from __future__ import annotations

from sandbox.bubblewrap import Bubblewrap
from sandbox.contract import Driver, SandboxUnavailable
from sandbox.unsandboxed import Unsandboxed

SETTINGS = ("auto", "bubblewrap", "docker", "unsandboxed")


def choose(setting: str) -> Driver:
    """The driver for `setting`. SandboxUnavailable for one that does not exist; whether it works here is what its
    `capabilities` find out. `auto` never means unsandboxed."""
    match setting:
        case "auto" | "bubblewrap":
            return Bubblewrap()
        case "unsandboxed":
            return Unsandboxed()
        case "docker":
            raise SandboxUnavailable("The Docker sandbox is not built yet: set the sandbox to bubblewrap")
        case _:
            raise SandboxUnavailable(f"There is no sandbox {setting!r}: set it to one of {', '.join(SETTINGS)}")
