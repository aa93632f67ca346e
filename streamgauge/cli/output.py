"""What the commands show: data on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from time import monotonic
from types import TracebackType

import click
import msgspec
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

__all__ = ["PROGRESS_INTERVAL", "LiveLine", "print_json", "print_table", "say", "say_error", "stderr_console"]

_PLAIN_INTERVAL_S = 5.0
PROGRESS_INTERVAL = "STREAMGAUGE_PROGRESS_INTERVAL"
"""Environment variable: seconds between two plain lines of progress, for whoever reads a command's log."""


def stderr_console() -> Console:
    """The console for messages; rich itself honours NO_COLOR and looks whether it is a terminal."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One message line on stderr."""
    click.echo(message, err=True)


def say_error(message: str) -> None:
    """One error line on stderr."""
    stderr_console().print(Text.assemble(("error: ", "bold red"), message))


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    body = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(body.decode() + "\n")


def print_table(title: str | None, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on stdout; numbers are set right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    kept = [list(row) for row in rows]
    for index, name in enumerate(columns):
        cells = [row[index] for row in kept if row[index] is not None]
        numeric = bool(cells) and all(isinstance(cell, int | float) for cell in cells)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        table.add_row(*(_cell(value) for value in row))
    # Into a pipe a table keeps its natural width: what is cut off there is lost.
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.6g}"
    return str(value)


class LiveLine:
    """A line or more of progress on stderr: rewritten in place on a terminal, repeated every few seconds elsewhere."""

    def __init__(self) -> None:
        self._console = stderr_console()
        self._live: Live | None = None
        self._interval_s = float(os.environ.get(PROGRESS_INTERVAL) or _PLAIN_INTERVAL_S)
        self._next_plain = 0.0
        self._last = ""
        self._shown = ""

    def __enter__(self) -> LiveLine:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._last != self._shown:
            say(self._last)

    def update(self, text: str) -> None:
        """Show `text` as how things stand now."""
        self._last = text
        if self._live is not None:
            self._live.update(Text(text))
        elif monotonic() >= self._next_plain:
            self._next_plain = monotonic() + self._interval_s
            self._shown = text
            say(text)
