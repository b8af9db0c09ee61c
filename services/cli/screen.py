"""Where lines go: a terminal with a moving part at its bottom, a pipe with plain lines, or frames as JSON."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from services.cli import units
from services.cli.text import clean, safe_json, tail
from services.cli.view import Kind, Line, Running, View

FRAMES_PER_SECOND = 12
"""How often the moving part is drawn at most."""
PREVIEW_LINES = 6
MARKS = {"ok": "✓", "failed": "✗", "unknown": "?", "succeeded": "✓", "cancelled": "■"}
MARK_STYLES = {
    "ok": "green",
    "failed": "bold red",
    "unknown": "yellow",
    "succeeded": "bold green",
    "cancelled": "yellow",
}
PLAN_MARKS = {"done": "✓", "in_progress": "›"}


class Screen(Protocol):
    """Shows one task; `close` may be called twice."""

    def update(self, raw: str, lines: Sequence[Line], view: View) -> None:
        """A frame came: `lines` stay, the rest of the view is of this moment."""
        ...

    def tell(self, line: Line) -> None:
        """Something of this program, not of the server."""
        ...

    def tick(self) -> None:
        """Time passed."""
        ...

    def hold(self, held: bool) -> None:
        """While held nothing moves: a person types."""
        ...

    def close(self) -> None: ...


class JsonScreen:
    """One frame a line, as received."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def update(self, raw: str, lines: Sequence[Line], view: View) -> None:
        self._out.write(safe_json(raw) + "\n")
        self._out.flush()

    def tell(self, line: Line) -> None:
        print(line.text, file=sys.stderr)

    def tick(self) -> None: ...

    def hold(self, held: bool) -> None: ...

    def close(self) -> None: ...


class PlainScreen:
    """One line after the other, without control codes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def update(self, raw: str, lines: Sequence[Line], view: View) -> None:
        for line in lines:
            self.tell(line)

    def tell(self, line: Line) -> None:
        self._out.write(plain(line).rstrip() + "\n")
        self._out.flush()

    def tick(self) -> None: ...

    def hold(self, held: bool) -> None: ...

    def close(self) -> None: ...


def plain(line: Line) -> str:
    match line.kind:
        case Kind.STEP | Kind.OUTCOME:
            return f"{MARKS.get(line.mark, '✗')} {line.text}{f'  ({line.note})' if line.note else ''}"
        case Kind.FIELD:
            return f"  {line.mark + ':':<10} {line.text}"
        case Kind.OUTPUT:
            return f"    {line.text}"
        case Kind.SAID:
            return f"> {line.text}"
        case Kind.QUESTION:
            return f"? {line.text}"
        case Kind.CHOICE:
            return f"  {line.mark}) {line.text}"
        case Kind.NOTICE | Kind.WARNING:
            return f"! {line.text}"
        case Kind.PLAN:
            return f"- {line.text}"
        case Kind.INFO:
            return f"· {line.text}"
        case Kind.SPOKEN | Kind.SUMMARY:
            return f"  {line.text}"


class TerminalScreen:
    """Lines scroll by; below them moves what runs now. Nothing of a server is read as markup: all is `Text`."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._view: View | None = None
        self._live: Live | None = None
        self._held = False
        self._drawn_at = 0.0

    def update(self, raw: str, lines: Sequence[Line], view: View) -> None:
        self._view = view
        for line in lines:
            self.tell(line)
        if view.outcome is not None:
            self.close()
        elif view.caught_up and not self._held:
            self._draw(now=bool(lines))

    def tell(self, line: Line) -> None:
        self._console.print(styled(line, self._console.width))

    def tick(self) -> None:
        if self._view is not None and self._view.caught_up and self._view.outcome is None and not self._held:
            self._draw(now=False)

    def hold(self, held: bool) -> None:
        self._held = held
        if held:
            self.close()

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _draw(self, *, now: bool) -> None:
        assert self._view is not None
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        time_passed = self._clock() - self._drawn_at
        if now or time_passed >= 1 / FRAMES_PER_SECOND:
            self._drawn_at = self._clock()
            self._live.update(region(self._view, self._console.width, datetime.now(UTC)), refresh=True)


def styled(line: Line, width: int) -> Text | Padding:
    """The line as a terminal of `width` columns shows it."""
    match line.kind:
        case Kind.STEP | Kind.OUTCOME:
            return _step(line, width)
        case Kind.OUTPUT:
            return Padding(Text(line.text, style="dim", no_wrap=True, overflow="ellipsis"), (0, 0, 0, 4))
        case Kind.FIELD:
            return _hanging(f"  {line.mark:<10}", "dim", line.text, "bold" if line.mark == "branch" else "")
        case Kind.SAID:
            return _hanging("› ", "bold cyan", line.text, "bold")
        case Kind.SPOKEN:
            return Padding(Text(line.text), (0, 0, 0, 2))
        case Kind.SUMMARY:
            return Padding(Text(line.text), (0, 0, 0, 2))
        case Kind.QUESTION:
            return _hanging("? ", "bold yellow", line.text, "bold yellow")
        case Kind.CHOICE:
            return _hanging(f"  {line.mark} ", "yellow", line.text, "")
        case Kind.NOTICE:
            return _hanging("! ", "bold yellow", line.text, "bold yellow")
        case Kind.WARNING:
            return _hanging("! ", "yellow", line.text, "yellow")
        case Kind.PLAN:
            return _hanging("- ", "cyan", line.text, "cyan")
        case Kind.INFO:
            return _hanging("· ", "dim", line.text, "dim")


def _hanging(head: str, head_style: str, text: str, style: str) -> Text | Padding:
    """`text` wrapped beside its head, as one Text: rich wraps a Padding inside."""
    from rich.table import Table

    grid = Table.grid(padding=0)
    grid.add_column(width=len(head), no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(head, style=head_style), Text(text, style=style, overflow="fold"))
    return Padding(grid, 0)


def _step(line: Line, width: int) -> Text:
    """Mark, what was done cut to the width, and how it went, which is never cut."""
    note = f"  {line.note}" if line.note else ""
    text = Text(no_wrap=True)
    text.append(f"{MARKS.get(line.mark, '✗')} ", style=MARK_STYLES.get(line.mark, "bold red"))
    what = Text(line.text, style="bold" if line.kind is Kind.OUTCOME else "dim" if line.text == "model" else "")
    what.truncate(max(8, width - 2 - len(note)), overflow="ellipsis")
    text.append_text(what)
    text.append(note, style="dim")
    return text


def region(view: View, width: int, now: datetime) -> Group:
    """The moving part: notices, the plan, what runs and the end of its output, and what was spent so far."""
    parts: list[Text | Padding] = [
        Text(cut_to(f"! {notice}", width), style="bold yellow", no_wrap=True) for notice in view.notices
    ]
    if any(item.status != "done" for item in view.plan):
        parts.extend(_plan_item(item.status, item.text) for item in view.plan)
    for running in view.running:
        parts.extend(_running(running, width, now))
    if not view.running:
        parts.append(Text(f"… {clean(view.task.state.value)}", style="dim"))
    spent = f"{units.many(view.steps, 'step')} · {units.used(view.usage)}"
    parts.append(Text(cut_to(f"  {spent} · Ctrl-C stops watching only", width), style="dim", no_wrap=True))
    return Group(*parts)


def _plan_item(status: str, text: str) -> Text:
    style = {"done": "dim", "in_progress": "bold"}.get(status, "")
    return Text(f"  {PLAN_MARKS.get(status, ' ')} {text}", style=style, no_wrap=True, overflow="ellipsis")


def _running(running: Running, width: int, now: datetime) -> list[Text | Padding]:
    took = f"  {max(0.0, (now - running.at).total_seconds()):.0f} s"
    what = Text(running.what, style="bold")
    what.truncate(max(8, width - 2 - len(took)), overflow="ellipsis")
    head = Text("… ", style="cyan", no_wrap=True).append_text(what).append(took, style="dim")
    lines = tail(running.preview, PREVIEW_LINES)
    if running.is_model:
        # What a model says is prose: its end is shown, wrapped.
        lines = [row for line in lines for row in textwrap.wrap(line, max(20, width - 4))][-PREVIEW_LINES:]
    style = "" if running.is_model else "dim"
    return [
        head,
        *(Padding(Text(line, style=style, no_wrap=True, overflow="ellipsis"), (0, 0, 0, 4)) for line in lines),
    ]


def cut_to(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def choose(*, as_json: bool) -> Screen:
    """The screen that fits where stdout goes."""
    if as_json:
        return JsonScreen(sys.stdout)
    return TerminalScreen(Console(highlight=False)) if sys.stdout.isatty() else PlainScreen(sys.stdout)
