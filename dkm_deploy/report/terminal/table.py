"""Tables for terminals and log files in which no figure is ever cut.

On a terminal, columns of names and reasons fold to fit its width; in a log file every row is
one line, as long as it needs to be.
"""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from dkm_deploy.errors import printable
from dkm_deploy.report.text import DASH
from dkm_deploy.validation.check import Status

STYLES = {
    Status.PASSED: "green",
    Status.FAILED: "bold red",
    Status.SKIPPED: "yellow",
    "incomplete": "yellow",
}

_ANY_WIDTH = 10**6
_NARROWEST = 12


def table(folding: str, *columns: str | Column) -> Table:
    """A table whose first column folds; the other plain ones hold figures."""
    figures = (
        Column(name, justify="right", no_wrap=True) if isinstance(name, str) else name
        for name in columns
    )
    first = Column(folding, overflow="fold")
    gap = (0, 1, 0, 0)  # and a blank of the box's own
    return Table(first, *figures, box=SIMPLE_HEAD, padding=gap, pad_edge=False, show_edge=False)


def word(title: str) -> Column:
    """A column of single words, left-aligned."""
    return Column(title, no_wrap=True)


def safe(value: object, style: str = "") -> Text:
    """Text from outside: neither terminal codes nor rich's markup work in it."""
    return Text(printable(value), style=style)


def status_text(value: str | None) -> Text:
    """A status or verdict in its colour."""
    return Text(value or DASH, style=STYLES.get(value or "", ""))


def natural_width(table: Table, console: Console) -> int:
    """The width at which every row of ``table`` is one line."""
    return Measurement.get(console, console.options.update(width=_ANY_WIDTH), table).maximum


def print_table(table: Table, console: Console) -> None:
    """Print ``table`` and an empty line.

    It is wider than the terminal only where figures would otherwise be cut.
    """
    width = natural_width(table, console)
    if console.is_terminal:
        width = min(width, max(console.width, _least_width(table, console)))
    table.width = width
    console.print(table, crop=False)
    console.print()


def print_line(line: Text, console: Console) -> None:
    """Print a sentence: wrapped on a terminal, one line in a log file."""
    console.print(line, soft_wrap=not console.is_terminal)


def _least_width(table: Table, console: Console) -> int:
    folding = [column for column in table.columns if column.overflow == "fold"]
    spare = sum(max(_longest(column) - _NARROWEST, 0) for column in folding)
    return natural_width(table, console) - spare


def _longest(column: Column) -> int:
    return max((cell.cell_len for cell in column.cells if isinstance(cell, Text)), default=0)
