"""The terminal view: a report, and what is inside one file."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dkm_deploy.errors import printable
from dkm_deploy.formats.ledger import Ledger
from dkm_deploy.palette import Palette
from dkm_deploy.report import cost_figures, summary, text
from dkm_deploy.report.terminal.table import (
    STYLES,
    natural_width,
    print_line,
    print_table,
    safe,
    status_text,
    table,
    word,
)

_LARGEST = 10


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the models, the checks of each file and the verdict.

    Args:
        report: ``Report.to_dict()``, or the same read from a report's JSON.
        console: where to print.
    """
    models, apart = _models(report, runtime=True), False
    if console.is_terminal and natural_width(models, console) > console.width:
        models, apart = _models(report, runtime=False), True  # each file's title names it instead
    print_table(models, console)
    for model in report["models"]:
        if model["path"] is not None or model["checks"]:
            _print_checks(model, console, runtime=apart)
    line = Text(summary.headline(report), style=STYLES[summary.state(report)])
    print_line(line.append(f": {summary.scope(report)}", style="not bold default"), console)


def show_palettes(palettes: Mapping[str, Palette], console: Console) -> None:
    """Print a row for each palette: its layout, and how many LUT entries are in use."""
    if not palettes:
        console.print("No palettes: every weight is dense.")
        return
    rows = table(
        "Palette", "Shape", "Bits", "Cluster\ndim", "Groups", "Entries\nused", "LUT\ndtype"
    )
    for name, palette in palettes.items():
        rows.add_row(safe(name), *_layout(palette))
    print_table(rows, console)


def show_ledger(ledger: Ledger, palettes: Mapping[str, Palette], console: Console) -> None:
    """Print the bytes of a file by kind, then its largest entries; both add up to the file.

    Args:
        ledger: of the file.
        palettes: of the same file, for the bits that each of their weights takes on disk.
        console: where to print.
    """
    title = safe(ledger.path, style="bold")
    print_line(title.append(f": {ledger.total_bytes:,} bytes", style="not bold"), console)
    print_table(_kinds(ledger), console)
    print_table(_entries(ledger), console)
    weights = sum(palette.size for palette in palettes.values())
    if weights:
        kinds = ledger.by_kind()
        bits = 8 * (kinds["indices"] + kinds["lut"]) / weights
        line = f"{weights:,} palettized weights, {bits:.2f} bits each with their LUTs"
        print_line(Text(line), console)


def _models(report: Mapping[str, Any], *, runtime: bool) -> Table:
    metric = printable(report["metric_name"] or "Metric")
    figures = ["Agree-\nment", "Max\ndiff.", "Bytes", "Ratio", "Bits/\nweight"]
    ran_on = [word("Runtime")] if runtime else []
    rows = table("Model", metric.replace(" ", "\n"), *figures, *ran_on, word("Verdict"))
    for model in report["models"]:
        ran = [safe(model["runtime"] or text.DASH)] if runtime else []
        rows.add_row(
            safe(model["name"]), *_figures(model), *ran, status_text(summary.verdict(model))
        )
    return rows


def _figures(model: Mapping[str, Any]) -> list[str]:
    return [
        text.score_text(model["metric"]),
        text.percent(model["agreement"]),
        text.figure(summary.largest_difference(model)),
        text.count_text(model["size_bytes"]),
        text.ratio(model["size_ratio"]),
        text.fixed_text(model["bits_per_weight"], 2),
    ]


def _print_checks(model: Mapping[str, Any], console: Console, *, runtime: bool) -> None:
    title = safe(model["name"], style="bold")
    if runtime and model["runtime"]:
        title.append(f", run by {printable(model['runtime'])}", style="not bold")
    rows = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(overflow="fold"))
    rows.padding = (0, 2, 0, 0)
    for check in model["checks"]:
        rows.add_row(status_text(check["status"]), safe(check["name"]), safe(check["reason"]))
    print_line(title, console)
    told = summary.sizes(model), summary.answers(model), cost_figures.sentence(model["cost"])
    for sentence in filter(None, told):
        print_line(safe(sentence), console)
    print_table(rows, console)


def _layout(palette: Palette) -> list[str]:
    used = len(np.unique(palette.indices))
    return [
        text.shape(palette.shape),
        str(palette.bits),
        str(palette.cluster_dim),
        text.count_text(prod(palette.groups)),
        f"{used} of {1 << palette.bits}",
        str(palette.lut.dtype) + ("" if palette.scale is None else ", scaled"),
    ]


def _kinds(ledger: Ledger) -> Table:
    rows = table("Kind", "Bytes", "Share")
    for kind, size in ledger.by_kind().items():
        rows.add_row(kind, *_share(size, ledger))
    return _with_total(rows, ledger)


def _entries(ledger: Ledger) -> Table:
    rows = table("Entry", "Bytes", "Share", word("Kind"))
    largest = sorted(ledger.entries, key=lambda entry: -entry.size_bytes)
    for entry in largest[:_LARGEST]:
        rows.add_row(safe(entry.name), *_share(entry.size_bytes, ledger), entry.kind)
    rest = largest[_LARGEST:]
    if rest:
        size = sum(entry.size_bytes for entry in rest)
        rows.add_row(f"{len(rest):,} smaller", *_share(size, ledger))
    return _with_total(rows, ledger)


def _with_total(rows: Table, ledger: Ledger) -> Table:
    rows.add_section()
    rows.add_row("total", *_share(ledger.total_bytes, ledger), style="bold")
    return rows


def _share(size: int, ledger: Ledger) -> list[str]:
    return [text.count_text(size), text.percent(size / max(ledger.total_bytes, 1), 1)]
