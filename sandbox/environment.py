"""The environment that commands start with, whatever the driver; PATH is the driver's own."""

from __future__ import annotations

HOME = "/tmp/home"


def everyday(home: str = HOME) -> dict[str, str]:
    return {
        "HOME": home,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        # Compiled Python stays out of the workspace: it would be committed with the work where nothing ignores it.
        "PYTHONPYCACHEPREFIX": f"{home}/.cache/pycache",
    }


def inside() -> dict[str, str]:
    """Where the user is ours too."""
    return {**everyday(), "USER": "errand", "LOGNAME": "errand"}
