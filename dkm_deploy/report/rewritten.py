"""The terminal view of a palettized file: what became a palette, what did not and why."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column
from rich.text import Text

from dkm_deploy.report.table import print_line, print_table, safe, table
from dkm_deploy.report.terminal import show_palettes
from dkm_deploy.rewrite import Rewritten


def show_rewritten(result: Rewritten, console: Console) -> None:
    """Print the palettes, the tensors left dense with their reasons, and the two sizes."""
    show_palettes(result.palettes, console)
    if result.dense:
        rows = table("Left dense", Column("Reason", overflow="fold"))
        for name, reason in result.dense.items():
            rows.add_row(safe(name), safe(reason))
        print_table(rows, console)
    for sentence in result.unchecked:
        print_line(safe(f"not checked: {sentence}", style="yellow"), console)
    print_line(_sizes(result), console)


def _sizes(result: Rewritten) -> Text:
    share = 100 * result.bytes_after / result.bytes_before
    line = f": {result.bytes_after:,} bytes, {share:.1f} % of {result.bytes_before:,}; "
    counts = f"palettized: {len(result.palettes)}, left dense: {len(result.dense)}"
    return safe(result.path, style="bold").append(line + counts, style="not bold")
