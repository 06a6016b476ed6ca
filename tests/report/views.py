"""Every view of a report, of runs, a plan and a file, made from fixed records.

``python -m tests.report.views`` writes what they are now to ``expected/``: read the difference
before you commit it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
from rich.console import Console

from dkm_deploy.formats.ledger import Ledger, LedgerEntry
from dkm_deploy.palette import Palette
from dkm_deploy.palette_spec import PaletteSpec
from dkm_deploy.planning.decision import Decision, Plan
from dkm_deploy.post_training.palettize_file import PalettizedFile
from dkm_deploy.recipe import Recipe
from dkm_deploy.report.html.comparison import comparison_page
from dkm_deploy.report.html.page import page
from dkm_deploy.report.html.pareto import pareto
from dkm_deploy.report.junit import junit
from dkm_deploy.report.runs import Point, RunComparison
from dkm_deploy.report.terminal.comparison import show_runs
from dkm_deploy.report.terminal.palettized_file import show_rewritten
from dkm_deploy.report.terminal.plan import show_plan
from dkm_deploy.report.terminal.report import show, show_ledger, show_palettes
from dkm_deploy.rule import Rule
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.locate.locate import Divergence
from dkm_deploy.validation.measures.cost import Cost, Costs
from dkm_deploy.validation.measures.palette_statistics import Histogram
from dkm_deploy.validation.measures.top1_agreement import Flip
from dkm_deploy.validation.report import Report
from tests.report.conftest import as_read, demo_report, failed_report

EXPECTED = Path(__file__).parent / "expected"

_COST = Cost(0.0123, 0.0045, 0.002, 0.0031, 5_600_000.0, None)
_COSTS = Costs(
    file=_COST,
    dense=Cost(0.01, 0.004, 0.002, 0.003, 5_000_000.0, 4_000_000.0),
    ratios={"load_s": 1.234, "median_s": 1.0, "peak_bytes": 1.12},
    beside="the original, converted to .onnx",
    batch=1,
    threads=2,
    rounds=5,
)
_PLANS = (PaletteSpec(4), PaletteSpec(1), PaletteSpec(8, cluster_dim=4, group_size=16), None)


def rich_report() -> Report:
    """All that a report can hold: costs, flips with pictures, histograms, where it goes wrong."""
    report = demo_report()
    *models, onnx, coreml = report.models
    flips = tuple(Flip(i, i % 10, (i + 1) % 10, None if i % 7 else 3) for i in range(25))
    onnx = replace(onnx, cost=_COSTS, flips=flips, flip_count=26)
    coreml = replace(
        coreml,
        cost=replace(_COSTS, dense=None, ratios={}, beside="a golden bundle", threads=1, rounds=1),
        divergence=Divergence("features.3", "output", "conv_1", 0.5, 0.01, 2, 3, "conv", ("a",)),
        checks=(Check("parity", "failed", "logits: too far"), Check("metric", "skipped", "none")),
        flip_count=0,
        flips=(),
    )
    name = report.layers[0].name
    layers = (replace(report.layers[0], uses=(5, 0, 3, 280)), *report.layers[1:])
    histogram = Histogram(-0.5, 0.75, (3, 0, 4, 281), (0, 4, 4, 280), (-0.5, 0.0, 0.25, 0.75))
    return replace(
        report,
        models=(*models, onnx, coreml),
        layers=layers,
        histograms={name: histogram, layers[1].name: replace(histogram, original=(), centroids=())},
        pictures={"0": "AAAA", "3": "BBBB"},
        recipe="[default]\nbits = 2\n",
        required=("parity",),
    )


def _comparison() -> RunComparison:
    def point(run: str, size: int, score: float | None, **other: object) -> Point:
        fields = {
            "run": run,
            "file": "model.onnx",
            "size_bytes": size,
            "size_ratio": 331_816 / size,
            "bits_per_weight": 2.05,
            "score": score,
            "latency_s": None,
            "verdict": "passed",
            "recipe": "[default]\nbits = 2\n",
            "layout": "2 bits: 3",
            "front": False,
        }
        return Point(**(fields | other))  # type: ignore[arg-type]  # the fields of a Point

    return RunComparison(
        points=(
            point("two", 25_208, 97.2, front=True, latency_s=0.0012),
            point("four", 48_000, 97.5, front=True, recipe=""),
            point("six", 71_000, 96.0, verdict="failed"),
            point("none", 90_000, None, verdict="incomplete"),
        ),
        measure="top-1 accuracy, %",
        original=97.8,
        notes=("six: other inputs than two: 10 in place of 360",),
    )


def _plan() -> Plan:
    names = ("conv.weight", "fc.weight", "head.weight", "tiny.weight")
    return Plan(
        recipe=Recipe(None, [Rule(name, spec=_PLANS[0]) for name in names[:1]]),
        budget_bytes=10_000,
        predicted_bytes=9_400,
        size_bytes={"onnx": 9_399, "coreml": 9_950},
        loss=0.0125,
        least_loss=0.012,
        decisions=tuple(
            Decision(name, (64, 32), spec, 1234.4 * place, 10.0**-place)
            for place, (name, spec) in enumerate(zip(names, _PLANS, strict=True))
        ),
        pareto=((5_000.0, 0.5), (9_400.0, 0.0125), (20_000.0, 0.001), (30_000.0, 0.0)),
    )


def _palettes() -> dict[str, Palette]:
    indices = np.arange(4_096, dtype=np.uint8).reshape(64, 64) % 3
    plain = Palette(indices, np.zeros((8, 1, 4, 1), np.float16))
    scale = np.ones((64, 1), np.float32)
    scaled = Palette(indices, np.zeros((1, 1, 4, 2), np.float32), 1, scale=scale)
    return {"fc.weight": plain, "layer.[red]weight": scaled}


def _ledger() -> Ledger:
    sizes = (9_216, 512, 34_567, 128, 700, 333, 64, 32, 31, 30, 29)
    entries = [LedgerEntry("graph", f"node {place}", size) for place, size in enumerate(sizes)]
    entries += [LedgerEntry("indices", "fc.weight", 1_024), LedgerEntry("lut", "fc.weight", 64)]
    return Ledger(Path("out/model.onnx"), tuple(entries))


def _rewritten() -> PalettizedFile:
    return PalettizedFile(
        path=Path("small.onnx"),
        palettes=_palettes(),
        dense={"bias[0]": "rank 1: biases and norms stay dense"},
        unchecked=("the file could not be run",),
        bytes_before=40_000,
        bytes_after=9_999,
        uncorrected={"fc.weight": "no batch moved it"},
    )


def _printed(*prints: Callable[[Console], None], width: int = 100) -> str:
    """What is printed on a terminal, colours and all, so that styles are compared too."""
    target = StringIO()
    console = Console(file=target, width=width, force_terminal=True, color_system="standard")
    for each in prints:
        each(console)
    return target.getvalue().replace("\x1b", "\\e")


def _page(source: str) -> str:
    """A page, a tag a line, without the style sheet, which is a file of its own."""
    source = re.sub(r"<style>.*?</style>", "<style></style>", source, flags=re.DOTALL)
    return source.replace("><", ">\n<") + "\n"


def _terminal(report: Report, width: int) -> str:
    return _printed(lambda console: show(as_read(report), console), width=width)


VIEWS: dict[str, Callable[[], str]] = {
    "demo.html": lambda: _page(page(as_read(demo_report()))),
    "failed.html": lambda: _page(page(as_read(failed_report()))),
    "rich.html": lambda: _page(page(as_read(rich_report()))),
    "comparison.html": lambda: _page(comparison_page(_comparison())),
    "pareto.svg": lambda: _page(pareto(_plan())),
    "demo.txt": lambda: _terminal(demo_report(), 120),
    "failed.txt": lambda: _terminal(failed_report(), 80),
    "rich.txt": lambda: _terminal(rich_report(), 100),
    "comparison.txt": lambda: _printed(lambda console: show_runs(_comparison(), console)),
    "plan.txt": lambda: _printed(lambda console: show_plan(_plan(), console)),
    "file.txt": lambda: _printed(
        lambda console: show_rewritten(_rewritten(), console),
        lambda console: show_ledger(_ledger(), _palettes(), console),
        lambda console: show_palettes({}, console),
    ),
    "failed.xml": lambda: junit(as_read(failed_report())).replace("><", ">\n<") + "\n",
    "rich.xml": lambda: junit(as_read(rich_report())).replace("><", ">\n<") + "\n",
}


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    for name, view in VIEWS.items():
        (EXPECTED / name).write_text(view(), "utf-8")
