from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from dkm_deploy.report.html.page import page

Values = dict[str, Any]

VOID = {"meta", "img"}


class Page(HTMLParser):
    """The page as rows of table cells, elements and text; raises on a tag closed out of order."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._rows: list[list[str]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if found.get("role") == "region":
            self._rows = self.tables[str(found["aria-label"])] = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self._rows[-1][-1] += data.strip()


@pytest.fixture(params=["demo", "failed", "unchecked"])
def source(request: pytest.FixtureRequest) -> str:
    return page(request.getfixturevalue(request.param))


def test_the_page_is_well_formed_with_one_heading_of_the_first_level(source: str) -> None:
    parsed = Page(source)
    assert source.startswith("<!doctype html>")
    assert parsed.open == []
    levels = [int(tag[1]) for tag, _ in parsed.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_page_loads_nothing_and_runs_nothing(source: str) -> None:
    parsed = Page(source)
    tags = {tag for tag, _ in parsed.tags}
    attributes = {name for _, found in parsed.tags for name in found}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert not attributes & {"src", "href", "style", "action"}
    assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import", source)


def test_no_value_of_python_shows(source: str) -> None:
    assert not re.search(r"\b(None|nan|True|False|null)\b", Page(source).text)


def test_every_table_has_as_many_cells_as_its_head(source: str) -> None:
    tables = Page(source).tables
    assert tables
    for rows in tables.values():
        assert {len(row) for row in rows} == {len(rows[0])}


def test_strings_of_the_data_are_text_only(failed: Values) -> None:
    parsed = Page(page(failed))
    safe = '<script>alert("1")</script>[red]\\x1b[2J &amp;.onnx'
    # Name in verdict (4 times), models, heading, path, check reasons (2), output, layer, dense (2),
    # limit, provenance (2): each of them read back by the parser as it was written.
    assert parsed.text.count(safe) == 4 + 1 + 2 + 2 + 1 + 1 + 2 + 1 + 2 + 1
    assert "\x1b" not in page(failed)


def test_the_models_are_shown_with_their_figures(demo: Values) -> None:
    head, *rows = Page(page(demo)).tables["Models"]
    assert head[:3] == ["Model", "top-1 accuracy, %", "Agreement"]
    assert [row[0] for row in rows] == [model["name"] for model in demo["models"]]
    assert rows[4] == [
        "model.onnx",
        "97.22",
        "99.17%",
        "5.72e-06",
        "25,208",
        "13.2x",
        "2.05",
        "ONNX Runtime 1.31.1 (CPU)",
        "\N{CHECK MARK} passed",
    ]


def test_the_verdict_comes_first_with_every_reason(failed: Values) -> None:
    top, _ = Page(page(failed)).text.split("Models", 1)
    assert "3 checks failed, 1 check skipped" in top
    assert "size: 1,238,667 bytes, limit 1,000,000" in top
    assert "model.aimodel: parity: model.aimodel: no runtime here runs '.aimodel' files" in top


def test_the_bar_and_its_legend_add_up_to_the_file(demo: Values) -> None:
    demo["models"] = [demo["models"][5]]
    parsed = Page(page(demo))
    parts = [found for tag, found in parsed.tags if tag == "rect" and "x" in found]
    widths = [float(str(found["width"]).rstrip("%")) for found in parts]
    starts = [float(str(found["x"]).rstrip("%")) for found in parts]
    assert sum(widths) == pytest.approx(100, abs=1e-3)
    ends = [start + width for start, width in zip(starts, widths, strict=True)]
    assert starts[1:] == pytest.approx(ends[:-1], abs=1e-3)
    sizes = [int(row[1].replace(",", "")) for row in parsed.tables["Bytes by kind"][1:]]
    assert sum(sizes[:-1]) == sizes[-1] == demo["models"][0]["size_bytes"]
    assert widths == pytest.approx([100 * size / sizes[-1] for size in sizes[:-1]], abs=1e-3)


def test_errors_of_each_output_are_shown_in_full(demo: Values, failed: Values) -> None:
    row = Page(page(demo)).tables["Outputs of model.onnx"][1]
    assert row == [
        "logits", "5.72e-06", "8.10e-07", "4.30e-06", "2.22e-07", "9.10e-07", "133.1", "141.2",
        "1.000000", "0",
    ]  # fmt: skip
    broken = next(
        rows for name, rows in Page(page(failed)).tables.items() if name.startswith("Outputs")
    )
    assert broken[1][1:] == ["-", "1.00", "2.00", "-", "-", "-", "-", "-", "7"]


def test_an_exact_output_has_no_noise_rather_than_an_unknown_one(demo: Values) -> None:
    demo["models"][4]["errors"] = {"logits": demo["models"][3]["errors"]["logits"]}
    row = Page(page(demo)).tables["Outputs of model.onnx"][1]
    assert row[4:8] == ["0", "0", "exact", "exact"]


def test_layers_and_what_stays_dense(demo: Values) -> None:
    tables = Page(page(demo)).tables
    assert tables["Weights"][3] == [
        "classifier.weight", "10 x 6400", "4", "2", "1", "13 of 16", "3.31", "2.03",
    ]  # fmt: skip
    assert tables["Left dense"][1:] == [
        [
            "rank 1: biases and norms stay dense",
            "3",
            "features.0.bias, features.3.bias, classifier.bias",
        ],
        ["shape (10, 16): left dense by the recipe", "1", "embedding.weight"],
    ]


def test_a_kind_or_limit_that_the_page_does_not_know_is_still_shown(demo: Values) -> None:
    demo["models"][4]["bytes_by_kind"]["<novel>"] = 5
    demo["limits"]["max_novelty"] = 2
    parsed = Page(page(demo))
    assert "<novel>" in parsed.text
    assert ["max_novelty", "2"] in parsed.tables["Limits"]


def test_limits_of_single_outputs_are_shown(demo: Values) -> None:
    demo["limits"]["outputs"] = {"logits": {"min_cosine": 0.99, "max_abs_error": None}}
    rows = Page(page(demo)).tables["Limits"]
    assert rows[-1] == ["logits: smallest cosine", "0.99"]


def test_flips_are_shown_as_pictures_where_there_are_any(demo: Values) -> None:
    demo["pictures"] = {"17": "aGVsbG8=", "99": '"><script>alert(1)</script>'}
    parsed = Page(page(demo))
    head, *rows = parsed.tables["Flips of model.onnx"]
    assert head[-1] == "Picture"
    assert [row[-1] for row in rows] == ["", "-", ""]
    images = [found for tag, found in parsed.tags if tag == "img"]
    assert len(images) == 4  # two in each of the two files
    assert (images[0]["src"], images[0]["alt"]) == ("data:image/png;base64,aGVsbG8=", "input 17")
    assert all(str(found["src"]).startswith("data:image/png;base64,") for found in images)
    assert "script" not in {tag for tag, _ in parsed.tags}


def test_flips_are_listed_by_input(demo: Values) -> None:
    assert Page(page(demo)).tables["Flips of model.onnx"] == [
        ["Input", "Original", "This file", "Label"],
        ["17", "8", "3", "8"],
        ["40", "1", "7", "7"],
        ["99", "0", "6", "-"],
    ]
    demo["models"][4]["flips"] *= 10
    demo["models"][4]["flip_count"] = 1234
    parsed = Page(page(demo))
    assert len(parsed.tables["Flips of model.onnx"]) == 1 + 20
    assert "1,214 further flips" in parsed.text
