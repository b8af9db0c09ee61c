"""`errand demo` on the real parts: it shows a whole task, and leaves no process behind, also when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
GONE_SECONDS = 10.0
"""A sandbox dies with its runner, but not in the same instant."""


@contextmanager
def demo(folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    inherited = {name: value for name, value in os.environ.items() if name != "ANTHROPIC_API_KEY"}
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", "demo"],
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), "REPO": "", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def left_behind(folder: Path) -> list[str]:
    """Processes whose command line, environment or working directory names the folder."""
    deadline = time.monotonic() + GONE_SECONDS
    while (found := _processes(folder)) and time.monotonic() < deadline:
        os.sched_yield()
    return found


def _processes(folder: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if f"{folder}/.errand-demo".encode() in told:
                found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def test_the_demo_shows_a_whole_task_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    shown = iter(output.splitlines())
    for part in (  # in this order
        "the task works on a small sample",
        "the model is scripted, not Claude",
        "Every service takes work",
        "· taken by runner",
        "✓ write ERRAND.md",
        "✓ succeeded",
        "+++ b/ERRAND.md",
        "$ git ls-remote",
        "refs/heads/errand/",
        "SQL: steps by tool",
        "bash",
        "SQL: the cost",
        "succeeded",
        "Everything that was started has stopped",
        "Your own: `errand up`",
    ):
        assert any(part in line for line in shown), f"{part!r} is missing in:\n{output}"
    assert "\x1b" not in output
    assert left_behind(tmp_path) == []
    assert {path.name for path in tmp_path.iterdir()} == {".errand-demo"}


def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    with demo(tmp_path, PROMPT="[scenario: slow] seconds=60") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "I wait." in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, rest
    assert "Interrupted. Everything that was started has stopped." in rest
    assert left_behind(tmp_path) == []


def test_a_folder_that_is_not_a_demos_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / ".errand-demo" / "precious"
    precious.mkdir(parents=True)
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "is not the folder of a demo" in output
    assert precious.exists()
