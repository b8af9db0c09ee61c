"""`make bench`: every part, one after the other."""

from __future__ import annotations

import os
import sys

from benchmarks import history, live, report, sandbox, way, workspace

PARTS = {"way": way, "sandbox": sandbox, "workspace": workspace, "live": live, "history": history}


def main() -> int:
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}")
    for name, part in PARTS.items():
        report(name, part.rows())
    return 0


if __name__ == "__main__":
    sys.exit(main())
