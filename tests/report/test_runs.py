"""Reports side by side: the front, the plot, the table, and reports that do not compare."""

from __future__ import annotations

import re
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from dkm_deploy.errors import DkmError
from dkm_deploy.report.html.comparison import comparison_page
from dkm_deploy.report.runs import compare_runs
from dkm_deploy.report.terminal.comparison import show_runs
from tests.report.conftest import EVIL, RECIPE, run_of
from tests.report.html.test_page import Page


def test_points_of_all_reports_are_in_order(demo, save):
    paths = [
        save(run_of(demo, (1000, 90.0)), "two.json"),
        save(run_of(demo, (2000, 95.0), (500, 80.0)), "four/report.json"),
    ]
    found = compare_runs([paths[0], paths[1].parent])
    assert found.measure == "top-1 accuracy, %"
    assert [(p.run, p.file, p.size_bytes, p.score) for p in found.points] == [
        ("two", "m0.onnx", 1000, 90.0),
        ("four", "m0.onnx", 2000, 95.0),
        ("four", "m1.onnx", 500, 80.0),
    ]
    assert found.original == 97.5
    assert found.points[0].recipe == RECIPE
    assert found.points[0].layout == "2 bits: 1, 2 bits in groups: 1, 4 bits for 2 weights: 1"
    assert found.notes == ()


def test_the_front_is_what_nothing_else_beats(demo, save):
    files = [(1000, 90.0), (1000, 91.0), (2000, 91.0), (3000, 95.0), (500, 50.0), (400, None)]
    found = compare_runs([save(run_of(demo, *files))])
    assert [p.size_bytes for p in found.points if p.front] == [1000, 3000, 500]
    assert [p.front for p in found.points] == [False, True, False, True, True, False]


def test_equal_files_are_both_on_the_front(demo, save):
    found = compare_runs([save(run_of(demo, (1000, 90.0), (1000, 90.0)))])
    assert [p.front for p in found.points] == [True, True]


def test_a_file_that_failed_a_check_is_not_on_the_front(demo, save):
    report = run_of(demo, (1000, 99.0), (2000, 95.0))
    report["models"][4]["checks"][0]["status"] = "failed"
    found = compare_runs([save(report)])
    assert [(p.verdict, p.front) for p in found.points] == [("failed", False), ("passed", True)]


def test_without_a_metric_agreement_is_compared(demo, save):
    report = run_of(demo, (1000, None)) | {"metric_name": None}
    found = compare_runs([save(report)])
    assert found.measure == "agreement with the original, %"
    assert (found.points[0].score, found.original) == (pytest.approx(99.166), 100)


def test_runs_on_other_inputs_are_noted(demo, save):
    paths = [save(run_of(demo, (1, 1.0)), "a.json")]
    paths.append(save(run_of(demo, (1, 1.0), samples=10), "b.json"))
    (note,) = compare_runs(paths).notes
    assert "a: 360, b: 10" in note
    assert note in Page(comparison_page(compare_runs(paths))).text


def test_latency_is_shown_where_it_was_measured(demo, save):
    report = run_of(demo, (1000, 90.0), (2000, 95.0))
    report["models"][4]["cost"] = {"file": {"median_s": 0.0123}}
    report["models"][5]["cost"] = None
    found = compare_runs([save(report)])
    assert [p.latency_s for p in found.points] == [0.0123, None]
    rows = Page(comparison_page(found)).tables["Files"]
    assert [row[rows[0].index("Latency, ms")] for row in rows[1:]] == ["12.3", "-"]


def test_the_page_draws_every_point_once(demo, save):
    files = [(1000, 90.0), (1500, None), (20_000, 95.0)]
    source = comparison_page(compare_runs([save(run_of(demo, *files))]))
    parsed = Page(source)
    circles = [found for tag, found in parsed.tags if tag == "circle"]
    assert [found["class"] for found in circles] == ["best", "best"]
    assert float(circles[0]["cx"]) < float(circles[1]["cx"])
    assert float(circles[0]["cy"]) > float(circles[1]["cy"])
    (front,) = [found["d"] for tag, found in parsed.tags if found.get("class") == "front"]
    assert front == f"M{circles[0]['cx']} {circles[0]['cy']}H{circles[1]['cx']}V{circles[1]['cy']}"
    assert sum(found.get("class") == "original" for _, found in parsed.tags) == 1
    assert "2 bits in groups: 1" in parsed.text
    assert "match = 'fc.*'\nskip = true" in parsed.text


@pytest.mark.parametrize("files", [[(1000, 90.0)], [(1000, 0.0)], [(10**9, 1e-6), (1, -1e6)]])
def test_a_plot_of_any_range_has_ticks(demo, save, files):
    report = run_of(demo, *files)
    for model in report["models"][4:]:
        model["metric_loss"] = None
    source = comparison_page(compare_runs([save(report)]))
    ticks = re.findall(r'<text x="[\d.]+" y="[\d.]+" text-anchor="(\w+)">', source)
    assert ticks.count("end") >= 2
    assert ticks.count("middle") >= 2
    assert not re.search("nan|inf", " ".join(re.findall(r'd="([^"]*)"', source)))


def test_where_no_file_has_a_score_there_is_a_table(demo, save):
    found = compare_runs([save(run_of(demo, (1000, None)))])
    assert "<circle" not in comparison_page(found)
    assert len(Page(comparison_page(found)).tables["Files"]) == 2


def test_strings_are_text_only_and_nothing_is_loaded(demo, save):
    report = run_of(demo, (1000, 90.0)) | {"recipe": EVIL, "metric_name": EVIL}
    report["models"][4]["name"] = EVIL
    source = comparison_page(compare_runs([save(report)]))
    parsed = Page(source)
    assert parsed.open == []
    assert not {tag for tag, _ in parsed.tags} & {"script", "link", "img", "iframe"}
    assert '<script>alert("1")</script>' in parsed.text
    assert not re.search(r"https?:|url\(|\x1b", source)


def test_the_terminal_shows_the_same(demo, save):
    found = compare_runs([save(run_of(demo, (1000, 90.0), (2000, 80.0)))])
    console = Console(file=StringIO(), width=300, color_system=None)
    show_runs(found, console)
    lines = console.file.getvalue().splitlines()
    first = next(line for line in lines if line.startswith("run: m0.onnx"))
    assert "1,000" in first
    assert "\N{BLACK STAR}" in first
    assert sum("\N{BLACK STAR}" in line for line in lines) == 1


ODD = (None, "x", "", -1, 0, 1e300, 10**400, True, [], {}, [3], {"a": 1})


def _damage(report, generator):
    """Put something else in the place of a value at any depth."""
    value = report
    while isinstance(value, dict | list) and value:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        held, key = value, keys[generator.integers(len(keys))]
        value = held[key]
        if generator.random() < 0.15:
            break
    held[key] = ODD[generator.integers(len(ODD))]


class TestBadInput:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("3", "not a report of dkm-deploy validate --json: it is 3; it must be a mapping"),
            ("{}", "not a report of .*: format is missing; it must be 'dkm-deploy report'"),
            ('{"format": "dkm-deploy report", "version": 3}', "version is 3; it must be 2"),
            ('{"format": "dkm-deploy report", "version": 2}', "metric_name is missing"),
        ],
    )
    def test_a_file_that_is_no_report(self, tmp_path, text, message):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(DkmError, match=message) as caught:
            compare_runs([tmp_path / "r.json"])
        assert "r.json" in str(caught.value)

    def test_random_damage_is_told_in_one_line(self, demo, save):
        generator, told = np.random.default_rng(0), 0
        for _ in range(300):
            report = run_of(demo, (1000, 90.0), (2000, 95.0))
            report["models"][4]["cost"] = {"file": {"median_s": 0.0123}}
            _damage(report, generator)
            try:
                comparison_page(compare_runs([save(report)]))
            except DkmError:
                told += 1
        assert told > 30

    @pytest.mark.parametrize("cost", ["", 0, [], {}])
    def test_a_cost_that_is_none(self, demo, save, cost):
        report = run_of(demo, (1000, 90.0))
        report["models"][4]["cost"] = cost
        with pytest.raises(DkmError, match=r"json: .*: models\[4\].cost"):
            compare_runs([save(report)])

    def test_scores_that_are_large_or_beyond_all_bounds(self, demo, save):
        assert comparison_page(compare_runs([save(run_of(demo, (1000, 5.6e14)))]))
        with pytest.raises(DkmError, match=r"metric is 1e\+308; it must be a number that can be"):
            compare_runs([save(run_of(demo, (1000, 1e308)))])

    def test_a_missing_report(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"none\.json: no such report"):
            compare_runs([tmp_path / "none.json"])
        with pytest.raises(FileNotFoundError, match=r"report\.json: no such report; a golden"):
            compare_runs([tmp_path])

    def test_the_same_report_twice(self, demo, save):
        path = save(run_of(demo, (1, 1.0)))
        with pytest.raises(DkmError, match=r"^the same report is given twice$"):
            compare_runs([path, path])

    def test_reports_that_share_nothing(self, demo, save):
        other = run_of(demo, (1, 1.0)) | {"metric_name": "word error rate"}
        other["models"][4]["agreement"] = None
        paths = [save(run_of(demo, (1, 1.0)), "a.json"), save(other, "b.json")]
        told = "^the reports have no common metric, and not all have top-1 agreement$"
        with pytest.raises(DkmError, match=told):
            compare_runs(paths)

    def test_reports_about_no_file(self, unchecked, save):
        report = unchecked | {"metric_name": "accuracy"}
        told = "^the reports hold no file; give files to dkm-deploy validate$"
        with pytest.raises(DkmError, match=told):
            compare_runs([save(report)])
