"""The views of several reports side by side: a page and a terminal table."""

from __future__ import annotations

from dkm_deploy.report import text
from dkm_deploy.report.html.markup import Column, Markup, element, join, table
from dkm_deploy.report.html.page import document
from dkm_deploy.report.html.plot import plot
from dkm_deploy.report.html.sections import badge
from dkm_deploy.report.runs import FRONT, Point, RunComparison, figures_of

_KEY = (
    "Numbers are rows of the table. The line is the Pareto front: no other file is at least as "
    "small and as good. It leaves out files with a failed check. Dashed: the original."
)


def comparison_page(found: RunComparison) -> str:
    """A self-contained page: the plot, the table and every recipe."""
    header = element("header", element("h1", "Comparison of runs"))
    parts = [element("p", element("strong", note)) for note in found.notes]
    if any(point.score is not None for point in found.points):
        parts += [element("figure", plot(found), element("figcaption", _KEY))]
    parts += [_table(found), element("h2", "Recipes"), *_recipes(found.points)]
    return document("Comparison of runs - dkm-deploy", join([header, element("main", join(parts))]))


def _table(found: RunComparison) -> Markup:
    names = [Column("No."), Column("Run", figures=False), Column("File", figures=False)]
    figures = ["Bytes", "Ratio", "Bits per weight", found.measure, "Latency, ms"]
    columns = [*names, *map(Column, figures), Column("Front", figures=False)]
    columns += [Column("Verdict", figures=False), Column("Palettes", figures=False)]
    rows = [_row(number, point) for number, point in enumerate(found.points, 1)]
    return table("Files", columns, rows)


def _row(number: int, point: Point) -> list[str]:
    star = FRONT if point.front else text.DASH
    figures = figures_of(point)
    ends = [star, badge(point.verdict), point.layout]
    return [str(number), point.run, point.file, *figures, *ends]


def _recipes(points: tuple[Point, ...]) -> list[Markup]:
    """Each recipe once, under the numbers of the files that have it."""
    numbers: dict[str, list[str]] = {}
    for number, point in enumerate(points, 1):
        numbers.setdefault(point.recipe, []).append(f"{number} {point.run}: {point.file}")
    return [
        element(
            "details",
            element("summary", "; ".join(names)),
            element("pre", join(recipe.strip().splitlines() or ["not told by the report"])),
        )
        for recipe, names in numbers.items()
    ]
