"""Which Python runs the exec server inside a sandbox that shows the host's own programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from msgspec import Struct

SYSTEM_PYTHON = Path("/usr/bin/python3")
CHECK = "import ctypes, resource, select, sys; sys.exit(sys.version_info < (3, 9))"
COMPILE = (
    "import importlib.util, marshal, sys; code = compile(open(sys.argv[1], 'rb').read(), 'exec_server.py', 'exec'); "
    "sys.stdout.buffer.write(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code))"
)
CHECK_SECONDS = 10.0


class InsidePython(Struct, frozen=True):
    """`program` is started inside; `prefix` is the folder that must be mounted for it, None when /usr has it."""

    program: Path
    prefix: Path | None

    def compiled(self, source: Path) -> bytes:
        """As a .pyc of this Python, which then starts in half the time. CalledProcessError when it cannot."""
        argv = [self.program, "-I", "-S", "-c", COMPILE, source]
        return subprocess.run(argv, capture_output=True, timeout=CHECK_SECONDS, check=True).stdout


def find_python() -> InsidePython:
    """The system's Python when it can run the exec server, else the one that runs us."""
    if is_usable(SYSTEM_PYTHON):
        return InsidePython(SYSTEM_PYTHON, None)
    prefix = Path(sys.base_prefix)
    program = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return InsidePython(program, None if prefix.is_relative_to("/usr") else prefix)


def is_usable(program: Path) -> bool:
    try:
        check = subprocess.run(
            [program, "-I", "-S", "-c", CHECK], capture_output=True, timeout=CHECK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return check.returncode == 0
