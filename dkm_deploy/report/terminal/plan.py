"""A plan as a table, and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from dkm_deploy._support.atomic_files import atomic_path
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.planning.decision import Plan
from dkm_deploy.report import text
from dkm_deploy.report.terminal.table import print_line, print_table, safe, table, word


def show_plan(plan: Plan, console: Console) -> None:
    """Print what each weight becomes, and the bytes and the loss of the whole."""
    rows = table("Weight", "Shape", word("Becomes"), "Bytes", "Loss")
    for made in plan.decisions:
        figures = text.count_text(round(made.size_bytes)), text.figure(made.loss)
        rows.add_row(safe(made.name), text.shape(made.shape), describe_spec(made.spec), *figures)
    print_table(rows, console)
    for target, size in plan.size_bytes.items():
        share = text.percent(size / plan.budget_bytes, 1)
        print_line(safe(f"{target}: {size:,} bytes, {share} of the budget"), console)
    line = (
        f"expected loss {text.figure(plan.loss)}; no choice of these candidates has one below "
        f"{text.figure(max(plan.least_loss, 0))}"
    )
    print_line(Text(line), console)


def describe_spec(spec: PaletteSpec | None) -> str:
    """A palette in few words: ``4 bits``, ``8 bits / 4``, ``4 bits, 16 channels a LUT``."""
    if spec is None:
        return "dense"
    vector = "" if spec.cluster_dim == 1 else f" / {spec.cluster_dim}"
    group = "" if spec.group_size is None else f", {spec.group_size} channels a LUT"
    return f"{text.plural(spec.bits, 'bit')}{vector}{group}"


def write_plan(plan: Plan, path: Path, *, force: bool = False) -> None:
    """Write all figures of a plan as JSON. Raises OutputExistsError."""
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(json.dumps(asdict(plan), indent=1) + "\n", "utf-8")
