"""Each ratio at its limit and beside it; nothing is measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

import dkm_deploy as dkm
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.checks.cost import cost_checks
from dkm_deploy.validation.measures.cost import Cost, Costs, middle, ratios

COST = Cost(1.0, 1.0, 1.0, 1.0, None, None)
COSTS = Costs(COST, COST, {"median_s": 1.5, "load_s": 1.2}, "the dense file", 1, 1, 1)


@pytest.mark.parametrize(("limit", "status"), [(1.5, "passed"), (1.49, "failed")])
def test_a_ratio_up_to_its_limit_passes(limit, status):
    (found,) = cost_checks(COSTS, "", dkm.Limits(max_latency_ratio=limit))
    assert (found.name, found.status) == ("cost", status)
    told = f"median latency 1.50 times that of the dense file, limit {limit:g}"
    assert found.reason == told


def test_each_limit_is_about_its_own_figure():
    limits = dkm.Limits(max_latency_ratio=1.4, max_load_ratio=1.4, max_peak_ratio=1.4)
    found = cost_checks(COSTS, "", limits)
    assert [check.status for check in found] == ["failed", "passed", "skipped"]
    assert found[1].reason == "load time 1.20 times that of the dense file, limit 1.4"
    assert found[2].reason == "peak memory: none was seen of the dense file"
    assert {check.name for check in found} == {"cost"}
    more = replace(COSTS, ratios={"peak_bytes": 1.25})
    (peak,) = cost_checks(more, "", dkm.Limits(max_peak_ratio=1.3))
    assert peak.reason == "peak memory 1.25 times that of the dense file, limit 1.3"
    alone = cost_checks(replace(COSTS, dense=None, beside="no file"), "", limits)
    assert [check.reason for check in alone] == [
        f"{what}: nothing to compare with: no file"
        for what in ("median latency", "load time", "peak memory")
    ]
    assert {(check.name, check.status) for check in alone} == {("cost", "skipped")}


def test_what_was_not_measured_is_skipped():
    limits = dkm.Limits(max_load_ratio=2)
    assert cost_checks(None, "", dkm.Limits()) == []
    (unasked,) = cost_checks(None, "", limits)
    assert (unasked.name, unasked.status) == ("cost", "skipped")
    assert unasked.reason == (
        "load time: the cost was not measured: --cost (cost=dkm.CostOptions()) does it"
    )
    assert cost_checks(None, "it hung", limits) == [Check("cost", "skipped", "load time: it hung")]
    assert cost_checks(None, "it hung", dkm.Limits()) == [Check("cost", "skipped", "it hung")]


def _round(**figures):
    return dict.fromkeys(("load_s", "first_s", "median_s", "p95_s"), 1.0) | {
        "peak_bytes": None,
        "steady_bytes": None,
        **figures,
    }


def test_figures_are_medians_of_rounds_and_ratios_of_their_own():
    """One slow round changes neither."""
    file = [_round(load_s=value) for value in (2.0, 8.0, 30.0)]
    dense = [_round(load_s=value) for value in (1.0, 4.0, 15.0)]
    assert (middle(file).load_s, middle(dense).load_s) == (8, 4)
    assert ratios(file, dense)["load_s"] == 2
    uneven = [_round(load_s=value) for value in (1.0, 2.0, 30.0)]
    assert ratios(file, uneven)["load_s"] == 2
    none = [_round(load_s=value) for value in (1.0, 0.0, 30.0)]
    assert "load_s" not in ratios(file, none)
    assert "peak_bytes" not in ratios(file, dense)
    assert middle(file).peak_bytes is None
    with pytest.raises(ValueError, match="zip"):
        ratios(file, dense[:2])
    negative = [_round(steady_bytes=5.0)], [_round(steady_bytes=-1.0)]  # memory was given back
    assert "steady_bytes" not in ratios(*negative)
    small = [_round(peak_bytes=1.0)], [_round(peak_bytes=0.5)]
    assert ratios(*small)["peak_bytes"] == 2
    part = middle([_round(peak_bytes=5.0), _round(), _round(peak_bytes=7.0)])
    assert part.peak_bytes == 6
