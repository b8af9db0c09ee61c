"""Rows for people, for `cut` and `awk`, and for spreadsheets."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from typing import Any

from services.cli.text import clean, one_line

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
    """On a terminal aligned and cut to its width; in a pipe with tabs, the names first."""
    if not sys.stdout.isatty():
        for row in (columns, *rows):
            print("\t".join(one_line(cell(value)) for value in row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for number, name in enumerate(columns):
        numeric = all(isinstance(row[number], int | float) and not isinstance(row[number], bool) for row in rows)
        table.add_column(Text(one_line(name)), justify="right" if rows and numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell(value), CELL_LIMIT_CHARS)) for value in row))
    Console(highlight=False).print(table)


def print_csv(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """RFC 4180, but for lines that end as lines do here. On a terminal cleaned."""
    show = (lambda value: clean(cell(value))) if sys.stdout.isatty() else cell
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([show(value) for value in row] for row in rows)
