"""Rows for people, for `cut` and `awk`, and for spreadsheets."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from services.cli.text import clean, one_line

if TYPE_CHECKING:
    from rich.console import Console

CELL_LIMIT_CHARS = 400


def cell(value: Any) -> str:
    """A value as text; a structure as JSON."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.12g}"
        case str():
            return value
        case _:
            return json.dumps(value) if isinstance(value, list | dict) else str(value)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """On a terminal aligned, or a block a row where it is too narrow; in a pipe with tabs, the names first."""
    names = [one_line(name) for name in columns]
    limit = CELL_LIMIT_CHARS if sys.stdout.isatty() else 0
    texts = [[one_line(cell(value), limit) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in (names, *texts):
            print("\t".join(row))
        return
    from rich.console import Console

    console = Console(highlight=False)
    widths = [max(len(text) for text in column) for column in zip(names, *texts, strict=True)]
    if sum(widths) + 2 * len(widths) > console.width and len(names) > 1:
        _print_blocks(console, names, texts)
    else:
        _print_aligned(console, names, rows, texts)


def _print_blocks(console: Console, names: list[str], texts: list[list[str]]) -> None:
    from rich.text import Text

    head = max(len(name) for name in names)
    for number, row in enumerate(texts, 1):
        if len(texts) > 1:
            console.print(Text(f"row {number}", style="dim"))
        for name, text in zip(names, row, strict=True):
            console.print(Text(f"{name:<{head}}  ", style="dim").append(text, style="not dim"))


def _print_aligned(console: Console, names: list[str], rows: Sequence[Sequence[Any]], texts: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(names):
        numeric = all(isinstance(row[number], int | float) and not isinstance(row[number], bool) for row in rows)
        table.add_column(Text(name), justify="right" if rows and numeric else "left", overflow="fold")
    for row in texts:
        table.add_row(*(Text(text) for text in row))
    console.print(table)


def print_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """RFC 4180, but for lines that end as lines do here. On a terminal cleaned."""
    show = (lambda value: clean(cell(value))) if sys.stdout.isatty() else cell
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([show(value) for value in row] for row in rows)
