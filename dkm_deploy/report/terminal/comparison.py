"""The terminal view of several reports side by side."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from dkm_deploy.report.runs import FRONT, RunComparison, figures_of
from dkm_deploy.report.terminal.table import print_line, print_table, safe, status_text, word
from dkm_deploy.report.terminal.table import table as terminal_table


def show_runs(found: RunComparison, console: Console) -> None:
    """Print a row for each file; the star marks those on the front."""
    figures = ["Bytes", "Ratio", "Bits/\nweight", found.measure.replace(" ", "\n"), "Latency,\nms"]
    rows = terminal_table("File", *figures, word("Front"), word("Verdict"))
    for point in found.points:
        star = FRONT if point.front else ""
        name = safe(f"{point.run}: {point.file} ({point.layout})")
        rows.add_row(name, *figures_of(point), star, status_text(point.verdict))
    print_table(rows, console)
    for note in found.notes:
        print_line(Text(note, style="yellow"), console)
