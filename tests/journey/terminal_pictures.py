"""Pictures of the terminal for README and docs, of a real house: `make pictures` writes `docs/pictures/*.svg`."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from itertools import groupby
from pathlib import Path

import pyte
from pyte.screens import Char
from rich import terminal_theme
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.journey.house import errand_up
from tests.journey.test_kills import make_repository

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
COLUMNS, ROWS = 100, 60
# No font from a server of somebody else's: whoever shows the picture has one.
FORMAT = re.sub(r"@font-face {{.*?}}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
COLOURS = {"brown": "yellow", "brightblack": "bright_black"}
"""What pyte calls otherwise than rich."""


def shown(command: list[str], environment: dict[str, str], names: dict[str, str]) -> pyte.Screen:
    """What a terminal of 100 columns shows in the end, with `names` of this machine by others, none longer."""
    end, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(command, env=environment, stdin=other, stdout=other, stderr=other, close_fds=True)
    os.close(other)
    screen = pyte.Screen(COLUMNS, ROWS)
    said = b"".join(iter(lambda: _read(end), b"")).decode()
    os.close(end)
    process.wait()
    for here, elsewhere in names.items():
        said = said.replace(here, elsewhere)
    pyte.Stream(screen).feed(said)
    return screen


def _read(end: int) -> bytes:
    try:
        return os.read(end, 65536)
    except OSError:  # EIO: the program has closed its end
        return b""


def lines(screen: pyte.Screen) -> list[Text]:
    """Without the empty ones at the end."""
    found = [_line(screen, row) for row in range(ROWS)]
    while found and not found[-1].plain.strip():
        found.pop()
    return found


def _line(screen: pyte.Screen, row: int) -> Text:
    cells = (screen.buffer[row][column] for column in range(COLUMNS))
    return Text.assemble(*(("".join(cell.data for cell in run), look) for look, run in groupby(cells, style)))


def style(cell: Char) -> Style:
    colour = COLOURS.get(cell.fg, cell.fg)
    if re.fullmatch("[0-9a-f]{6}", colour):
        colour = f"#{colour}"
    return Style(
        color=colour if colour != "default" else None, bold=cell.bold, italic=cell.italics, reverse=cell.reverse
    )


def picture(name: str, typed: str, screen: pyte.Screen) -> None:
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), color_system="truecolor")  # noqa: SIM115
    console.print(Text.assemble(("$ ", "bold green"), typed), soft_wrap=True)
    for line in lines(screen):
        line.rstrip()
        console.print(line, soft_wrap=True, highlight=False)
    svg = console.export_svg(title="", theme=terminal_theme.DIMMED_MONOKAI, code_format=FORMAT, unique_id=name)
    (FOLDER / f"{name}.svg").write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        repository = make_repository(Path(folder) / "greeter")
        with errand_up(Path(folder) / "data") as house:
            environment = {**os.environ, "ERRAND_DATA": str(house.data), "TERM": "xterm-256color"}
            errand = [sys.executable, "-m", "services.cli"]
            names = {folder: "~", str(ROOT): "~/errand"}

            def take(name: str, typed: str, *arguments: str) -> None:
                picture(name, f"errand {typed}", shown([*errand, *arguments], environment, names))

            prompt = "Say hello in GREETING.md"
            take(
                "submit",
                f'submit "{prompt}" --repo {repository.name} --watch',
                *("submit", prompt, "--repo", str(repository), "--watch"),
            )
            for scenario, title in (("slow", "Rename the greeting"), ("ask", "Choose the colours")):
                arguments = (f"[scenario: {scenario}]", "--title", title, "--repo", str(repository))
                subprocess.run([*errand, "submit", *arguments], env=environment, check=True, capture_output=True)
            take("ls", "ls", "ls")
            take("doctor", "doctor", "doctor")


if __name__ == "__main__":
    main()
