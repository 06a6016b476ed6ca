"""What is taken from each report: the names of runs, figures, palettes and the original's score."""

from __future__ import annotations

import json
import locale
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dkm_deploy.errors import DkmError
from dkm_deploy.report.html.comparison import comparison_page
from dkm_deploy.report.runs import compare_runs
from tests.report.conftest import run_of
from tests.report.html.test_page import Page

Values = dict[str, Any]
Save = Callable[..., Path]


@pytest.fixture
def plain_locale() -> Iterator[None]:
    """A locale whose text is ASCII, where Python leaves that to the locale."""
    before = locale.setlocale(locale.LC_CTYPE)
    locale.setlocale(locale.LC_CTYPE, "C")
    yield
    locale.setlocale(locale.LC_CTYPE, before)


def test_a_run_is_called_by_its_file_or_its_whole_folder(demo: Values, save: Save) -> None:
    report = run_of(demo, (1_000, 90.0))
    paths = [save(report, "two.bits.json"), save(report, "four.bits/report.json").parent]
    assert [p.run for p in compare_runs(paths).points] == ["two.bits", "four.bits"]


def test_runs_of_the_same_name_are_called_by_their_paths(demo: Values, save: Save) -> None:
    paths = [save(run_of(demo, (1_000, 90.0)), f"{folder}/run.json") for folder in "ab"]
    assert [p.run for p in compare_runs(paths).points] == list(map(str, paths))


def test_figures_are_those_of_the_report(demo: Values, save: Save) -> None:
    report = run_of(demo, (1_000, 90.0), (2_000, 91.0))
    report["models"][4] |= {"size_ratio": 12.5, "bits_per_weight": 2.25}
    report["models"][5] |= {"size_ratio": None, "bits_per_weight": None}
    points = compare_runs([save(report)]).points
    assert [(p.size_ratio, p.bits_per_weight) for p in points] == [(12.5, 2.25), (None, None)]


def test_palettes_are_told_by_kind(demo: Values, save: Save) -> None:
    report = run_of(demo, (1_000, 90.0))
    report["layers"] = [
        {"bits": 1, "cluster_dim": 1, "groups": 1},
        {"bits": 2, "cluster_dim": 1, "groups": 2},
    ]
    assert compare_runs([save(report)]).points[0].layout == "1 bit: 1, 2 bits in groups: 1"
    report["layers"] = []
    assert compare_runs([save(report)]).points[0].layout == "no palettes"


def test_a_file_without_agreement_has_no_score_among_those_that_have(
    demo: Values, save: Save
) -> None:
    report = run_of(demo, (1_000, None), (2_000, None)) | {"metric_name": None}
    report["models"][5]["agreement"] = None
    scores = [p.score for p in compare_runs([save(report)]).points]
    assert scores == [pytest.approx(99.166), None]


def test_a_score_of_nothing_counts_as_nothing(demo: Values, save: Save) -> None:
    files = [(1_000, 0.0), (500, 0.5), (400, 0.0), (2_000, 0.75)]
    front = [p.front for p in compare_runs([save(run_of(demo, *files))]).points]
    assert front == [False, True, True, True]


def test_the_original_is_one_where_its_scores_differ_by_rounding(demo: Values, save: Save) -> None:
    report = run_of(demo, (1_000, 90.0), (2_000, 95.0))
    report["models"][5]["metric_loss"]["value"] += 3e-10
    assert compare_runs([save(report)]).original == 97.5
    report["models"][5]["metric_loss"]["value"] += 3e-9
    assert compare_runs([save(report)]).original is None


def test_latency_is_told_in_milliseconds(demo: Values, save: Save) -> None:
    report = run_of(demo, (1_000, 90.0))
    report["models"][4]["cost"] = {"file": {"median_s": 0.9987}}
    rows = Page(comparison_page(compare_runs([save(report)]))).tables["Files"]
    assert rows[1][rows[0].index("Latency, ms")] == "999"


@pytest.mark.usefixtures("plain_locale")
def test_reports_are_utf8_in_any_locale(demo: Values, tmp_path: Path) -> None:
    report = run_of(demo, (1_000, 90.0)) | {"metric_name": "Précision, %"}
    text = json.dumps(report, ensure_ascii=False)
    (tmp_path / "run.json").write_text(text, "utf-8")
    assert compare_runs([tmp_path / "run.json"]).measure == "Précision, %"


class TestMessages:
    def test_a_report_with_what_is_no_json(self, demo: Values, save: Save) -> None:
        path = save(run_of(demo, (1_000, float("nan"))))
        with pytest.raises(DkmError) as caught:
            compare_runs([path])
        assert str(caught.value).startswith(f"{path}: not a report of dkm-deploy validate --json: ")
        assert "models[4].metric is nan; it must be a number that" in str(caught.value)

    def test_the_largest_figure_that_can_be_drawn(self, demo: Values, save: Save) -> None:
        assert compare_runs([save(run_of(demo, (1_000, 1e100)))]).points[0].score == 1e100
        paths = [save(run_of(demo, (1_000, 1e101)), "a.json")]
        paths.append(save(run_of(demo, (1_000, 1.0)), "b.json"))
        with pytest.raises(DkmError) as caught:
            compare_runs(paths)
        told = "models[4].metric is 1e+101; it must be a number that can be drawn, at most 1e+100"
        assert (
            str(caught.value) == f"{paths[0]}: not a report of dkm-deploy validate --json: {told}"
        )

    def test_a_file_of_no_bytes(self, demo: Values, save: Save) -> None:
        assert compare_runs([save(run_of(demo, (1, 90.0)))]).points[0].size_bytes == 1
        with pytest.raises(DkmError, match="size_bytes is 0; it must be an integer from 1"):
            compare_runs([save(run_of(demo, (0, 90.0)))])
