"""`make bench`: every part, one after the other, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

PARTS = ("way", "sandbox", "egress", "workspace", "live", "history", "queue", "timers", "scale")


def main() -> int:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}", flush=True)
    ended = [subprocess.run([sys.executable, "-m", f"benchmarks.{part}"], check=False).returncode for part in PARTS]
    return max(ended)


if __name__ == "__main__":
    sys.exit(main())
