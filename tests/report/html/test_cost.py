"""Costs as the views show them."""

from __future__ import annotations

from dkm_deploy.report.cost_figures import sentence
from dkm_deploy.report.html.page import page
from tests.report.html.test_page import Page

COST = {
    "file": {
        "load_s": 0.0123,
        "first_s": 0.0045,
        "median_s": 0.002,
        "p95_s": 0.0031,
        "peak_bytes": 5_600_000.0,
        "steady_bytes": None,
    },
    "dense": {
        "load_s": 0.01,
        "first_s": 0.0045,
        "median_s": 0.002,
        "p95_s": 0.0031,
        "peak_bytes": 5_000_000.0,
        "steady_bytes": None,
    },
    "ratios": {"load_s": 1.234, "first_s": 1.0, "median_s": 1.0, "p95_s": 1.0, "peak_bytes": 1.12},
    "beside": "the original, converted to .onnx",
    "batch": 1,
    "threads": 2,
    "rounds": 5,
}


def with_cost(report):
    """The report with a cost for each file."""
    for model in report["models"]:
        model["cost"] = COST if model["path"] else None
    return report


def test_the_table_has_both_files_and_the_ratio(demo):
    parsed = Page(page(with_cost(demo)))
    assert parsed.tables["Cost of model.onnx"] == [
        ["Figure", "This file", "Dense file", "Ratio"],
        ["Load", "12.3 ms", "10.0 ms", "1.23x"],
        ["First run", "4.50 ms", "4.50 ms", "1.00x"],
        ["Median run", "2.00 ms", "2.00 ms", "1.00x"],
        ["95th percentile run", "3.10 ms", "3.10 ms", "1.00x"],
        ["Peak memory", "5.6 MB", "5.0 MB", "1.12x"],
        ["Steady memory", "-", "-", "-"],
    ]
    assert "2 threads, batch 1, medians of 5 rounds, each in a fresh process; beside" in parsed.text


def test_the_sentence_has_every_figure(demo):
    assert sentence(None) == ""
    told = sentence(COST)
    assert told.startswith("load 12.3 ms (1.23x), first run 4.50 ms (1.00x), median run 2.00 ms")
    assert told.endswith("beside the original, converted to .onnx")


def test_without_a_dense_file_the_reason_is_told(demo):
    cost = COST | {"dense": None, "ratios": {}, "beside": "neither was given"}
    demo["models"][4]["cost"] = cost
    parsed = Page(page(demo))
    assert parsed.tables["Cost of model.onnx"][1] == ["Load", "12.3 ms", "-", "-"]
    assert "no dense file: neither was given" in parsed.text
    assert "(" not in sentence(cost)


def test_what_was_not_measured_is_not_shown(demo):
    assert not [name for name in Page(page(demo)).tables if name.startswith("Cost")]
