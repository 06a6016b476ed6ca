"""Sections of the page where there is little or nothing to show, and the words that explain it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dkm_deploy.report.html import page, sections
from dkm_deploy.report.html.bar import size_bar
from dkm_deploy.report.html.cost import costs
from dkm_deploy.report.html.markup import Column, table
from tests.report.html.test_cost import COST
from tests.report.html.test_histogram import PLAIN, paths, with_histograms
from tests.report.html.test_page import Page

Values = dict[str, Any]


def test_a_section_without_rows_says_so() -> None:
    assert sections.layers({"layers": []}) == (
        "<section><h2>Palettized weights</h2>\n<p>No weight is palettized.</p></section>"
    )
    assert sections.dense({"dense": {}}) == (
        "<section><h2>Left dense</h2>\n<p>No parameter is left dense.</p></section>"
    )
    assert size_bar({}) == size_bar({"lut": 0}) == "<p>No bytes are accounted for.</p>"


@pytest.mark.parametrize(
    ("section", "first", "last"),
    [
        (
            "models",
            "<dl><div><dt>Agreement</dt><dd>how often the top answer is the original&#x27;s.</dd>",
            "<dt>A dash</dt><dd>not measured, not finite, or not asked.</dd></div></dl>",
        ),
        (
            "layers",
            "<dl><div><dt>Bits</dt><dd>width of an index; a LUT has 2 to that power entries.</dd>",
            "<dt>Bits per weight</dt><dd>index and LUT bits over the weights.</dd></div></dl>",
        ),
    ],
)
def test_a_table_of_figures_is_followed_by_what_they_mean(
    demo: Values, section: str, first: str, last: str
) -> None:
    shown = getattr(sections, section)(demo)
    assert f"</table></div>\n{first}</div><div><dt>" in shown
    assert shown.endswith(f"{last}</section>")


def test_errors_are_followed_by_what_they_mean_where_there_are_any(demo: Values) -> None:
    meaning = "<dl><div><dt>Differences</dt><dd>absolute, in the output&#x27;s own unit.</dd></div>"
    assert meaning in sections.file(demo["models"][4], {})
    assert "<dl>" not in sections.file(demo["models"][4] | {"errors": {}}, {})


def test_what_a_device_gave_has_no_bytes_of_its_own(demo: Values) -> None:
    assert "Where the bytes are" in sections.file(demo["models"][4], {})
    assert "Where the bytes" not in sections.file(demo["models"][4] | {"size_bytes": None}, {})


def test_a_verdict_has_the_colour_of_its_state(demo: Values, unchecked: Values) -> None:
    assert sections.verdict(demo).startswith('<div class="verdict good">')
    assert sections.verdict(unchecked).startswith('<div class="verdict open">')


def test_a_limit_of_an_output_that_the_page_does_not_know_is_shown(demo: Values) -> None:
    demo["limits"]["outputs"] = {"logits": {"max_novelty": 2, "min_cosine": None}}
    assert Page(sections.limits(demo)).tables["Limits"][-1] == ["logits: max_novelty", "2"]


def test_a_kind_of_bytes_that_the_page_does_not_know_is_other_bytes() -> None:
    parsed = Page(size_bar({"lut": 1, "<novel>": 3}))
    assert [row[0] for row in parsed.tables["Bytes by kind"][1:]] == [
        "LUTs: the values themselves",
        "<novel>",
        "total",
    ]
    kinds = [found["class"] for tag, found in parsed.tags if tag == "rect"]
    assert kinds == ["lut", "other", "lut", "other"]


def test_the_page_has_the_style_sheet_in_it(demo: Values) -> None:
    style = Path(page.__file__).with_name("style.css").read_text("utf-8")
    assert f"<style>\n{style}</style>" in page.page(demo)


def test_large_costs_keep_their_digits(demo: Values) -> None:
    cost = COST | {"file": COST["file"] | {"load_s": 0.9987, "peak_bytes": 2.5e12}}
    rows = Page(costs(demo["models"][4] | {"cost": cost})[0]).tables["Cost of model.onnx"]
    assert [rows[1][1], rows[5][1]] == ["999 ms", "2,500,000.0 MB"]


def test_a_row_has_a_cell_for_every_column() -> None:
    for cells in (["a"], ["a", "1", "2"]):
        with pytest.raises(ValueError, match="zip"):
            table("Cells", [Column("Name"), Column("Figure")], [cells])


def test_a_histogram_of_one_bar_is_as_wide_as_the_drawing(demo: Values) -> None:
    layer = demo["layers"][0]["name"]
    demo["histograms"] = {layer: PLAIN | {"original": [7], "centroids": [], "palettized": [0]}}
    source = sections.layers(demo)
    assert paths(source, "before") == ["M0.0 60V4.0H240.0V60Z"]
    assert paths(source, "after") == [""]


def test_every_centroid_of_a_histogram_has_its_use(demo: Values) -> None:
    report = with_histograms(demo)
    report["layers"][0]["uses"].append(1)
    with pytest.raises(ValueError, match="zip"):
        sections.layers(report)
