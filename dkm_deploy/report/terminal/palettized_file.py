"""The terminal view of a palettized file: what became a palette, what did not and why."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Column
from rich.text import Text

from dkm_deploy.post_training.palettize_file import PalettizedFile
from dkm_deploy.report.terminal.report import show_palettes
from dkm_deploy.report.terminal.table import print_line, print_table, safe, table


def show_rewritten(result: PalettizedFile, console: Console) -> None:
    """Print the palettes, what was left as it was with reasons, and the two sizes."""
    show_palettes(result.palettes, console)
    _show_reasons("Left dense", result.dense, console)
    _show_reasons("Other than the default", result.adjusted, console)
    _show_reasons("LUT not corrected", result.uncorrected, console)
    for note in result.notes:
        print_line(safe(f"note: {note}", style="yellow"), console)
    for sentence in result.unchecked:
        print_line(safe(f"not checked: {sentence}", style="yellow"), console)
    print_line(_sizes(result), console)


def _show_reasons(title: str, reasons: Mapping[str, str], console: Console) -> None:
    if reasons:
        rows = table(title, Column("Reason", overflow="fold"))
        for name, reason in reasons.items():
            rows.add_row(safe(name), safe(reason))
        print_table(rows, console)


def _sizes(result: PalettizedFile) -> Text:
    share = 100 * result.bytes_after / result.bytes_before
    line = f": {result.bytes_after:,} bytes, {share:.1f} % of {result.bytes_before:,}; "
    counts = f"palettized: {len(result.palettes)}, left dense: {len(result.dense)}"
    return safe(result.path, style="bold").append(line + counts, style="not bold")
