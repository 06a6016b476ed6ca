"""Histograms of the palettized weights as the page draws them."""

from __future__ import annotations

import re

from dkm_deploy.report.html.page import page
from tests.report.html.test_page import Page

PLAIN = {
    "low": -1.0,
    "high": 1.0,
    "original": [0, 4, 8, 0],
    "palettized": [2, 0, 10, 0],
    "centroids": [-1.0, 0.0, 0.5, 1.0],
}


def with_histograms(report):
    """The report with a histogram for each layer, of one LUT and of several by turns."""
    for place, layer in enumerate(report["layers"]):
        layer["uses"] = [3, 0, 6, 1] + [0] * (2 ** layer["bits"] - 4)
        one = PLAIN | {"centroids": [-1.0, 0.0, 0.5, 1.0] + [0.0] * (2 ** layer["bits"] - 4)}
        several = PLAIN | {"centroids": [], "original": []}
        report["histograms"][layer["name"]] = several if place % 2 else one
    return report


def paths(source, kind):
    return [found["d"] for tag, found in Page(source).tags if found.get("class") == kind]


def test_bars_and_stems_are_to_scale(demo):
    source = page(with_histograms(demo))
    bars = paths(source, "before")[0]
    assert bars == "M60.0 60V32.0H120.0V60ZM120.0 60V4.0H180.0V60Z"
    assert paths(source, "stems")[0] == "M0.0 60V32.0M180.0 60V4.0M240.0 60V50.7"


def test_several_luts_are_drawn_as_bars_of_weights(demo):
    source = page(with_histograms(demo))
    assert paths(source, "after") == ["M0.0 60V48.8H60.0V60ZM120.0 60V4.0H180.0V60Z"]
    assert paths(source, "before")[1] == ""


def test_each_figure_names_its_layer_and_its_use(demo):
    parsed = Page(page(with_histograms(demo)))
    captions = re.findall(r"(\S+): (\d+ of \d+) entries used, entropy ([\d.]+) of", parsed.text)
    assert captions == [
        ("features.0.weight", "4 of 4", "1.87"),
        ("features.3.weight", "4 of 4", "1.91"),
        ("classifier.weight", "13 of 16", "3.31"),
    ]


def test_without_histograms_there_is_no_figure(demo):
    assert not [tag for tag, _ in Page(page(demo)).tags if tag == "figure"]
