"""Each check at its limit and beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import dkm_deploy as dkm
from dkm_deploy.ledger import Entry, Ledger
from dkm_deploy.validation.answers import Answers
from dkm_deploy.validation.checks import answer_checks, palettes_check, size_checks
from dkm_deploy.validation.interval import Loss
from dkm_deploy.validation.task import Answered


def _palette(value=1.0):
    lut = np.array([[[0.0], [value]]], np.float32)
    return dkm.Palette(np.array([0, 1, 1], np.uint8), lut)


def _ledger(*entries):
    return Ledger(Path("m.onnx"), entries)


class TestPalettes:
    def test_one_too_many_in_the_file_is_missed(self):
        stored = {"a": _palette(), "b": _palette()}
        found = palettes_check({"a": _palette()}, stored, _ledger())
        assert (found.status, found.reason) == ("missed", "b is not a palette of the model")

    def test_every_one_counts(self):
        stored = {"a": _palette(), "b": _palette(2), "c": _palette()}
        frozen = {name: _palette() for name in "abd"}
        found = palettes_check(frozen, stored, _ledger())
        assert found.status == "missed"
        assert found.reason.startswith("b: ")
        assert found.reason.endswith(" (and 2 more)")
        same = {name: _palette() for name in "ab"}
        assert palettes_check(same, same, _ledger()).reason.startswith("2 of 2 equal")

    def test_what_is_dense_in_the_file_is_told_by_its_name(self):
        entries = [Entry("dense", "a_weight_2", 12), Entry("lut", "a_weight", 4)]
        found = palettes_check({"a.weight": _palette()}, {}, _ledger(*entries))
        assert found.reason == "a.weight is not a palette in the file but dense, 12 bytes"
        other = palettes_check({"b.weight": _palette()}, {}, _ledger(*entries))
        assert other.reason == "b.weight is not a palette in the file"


def _told(value, agreement=None, low=None, high=None):
    loss = Loss(value, low, high, "method")
    return Answered(90 - value, loss, Answers(agreement=agreement))


class TestAnswers:
    @pytest.mark.parametrize(
        ("loss", "status"), [(1.0, "passed"), (1.001, "missed"), (-5, "passed"), (0, "passed")]
    )
    def test_a_loss_up_to_its_limit_passes(self, loss, status):
        (found,) = answer_checks(_told(loss), dkm.Limits(max_metric_loss=1), "")
        assert found.status == status
        assert f"{90 - loss:.4g} against 90: loss {loss:.3g}, limit 1" in found.reason

    @pytest.mark.parametrize(
        ("low", "high", "unsure"),
        [(0.5, 2, True), (1, 2, True), (1.1, 2, False), (0, 1, False), (-2, 0.9, False)],
    )
    def test_an_interval_across_the_limit_is_unsure(self, low, high, unsure):
        told = _told(0.9, low=low, high=high)
        (found,) = answer_checks(told, dkm.Limits(max_metric_loss=1), "")
        assert (
            found.reason.endswith("too few inputs to be sure on which side of the limit") == unsure
        )

    @pytest.mark.parametrize(
        ("agreement", "status"), [(0.9, "passed"), (0.899, "missed"), (1, "passed")]
    )
    def test_agreement_from_its_limit_on_passes(self, agreement, status):
        (found,) = answer_checks(_told(0, agreement), dkm.Limits(min_agreement=0.9), "")
        assert found.status == status
        assert (
            f"{100 * agreement:.2f} % of top-1 answers as the original, limit 90 %" in found.reason
        )


class TestSize:
    @pytest.mark.parametrize(("most", "status"), [(100, "passed"), (99, "missed")])
    def test_bytes_up_to_the_limit_pass(self, most, status):
        (found,) = size_checks(_ledger(Entry("dense", "a", 100)), None, dkm.Limits(max_bytes=most))
        assert (found.status, found.reason) == (status, f"100 bytes, limit {most}")

    @pytest.mark.parametrize(("ratio", "status"), [(0.5, "passed"), (0.49, "missed")])
    def test_a_ratio_up_to_the_limit_passes(self, ratio, status):
        ledger, limits = _ledger(Entry("dense", "a", 100)), dkm.Limits(max_size_ratio=ratio)
        (found,) = size_checks(ledger, 200, limits)
        assert found.status == status
        assert found.reason == f"0.5000 of the original's 200 bytes, limit {ratio}"
        assert [check.status for check in size_checks(ledger, None, limits)] == ["not run"]

    def test_a_miss_tells_what_is_padding_and_a_pass_does_not(self):
        entries = [Entry("padding", "a", 10), Entry("padding", "b", 30), Entry("dense", "c", 60)]
        for most, told in ((99, True), (100, False)):
            (found,) = size_checks(_ledger(*entries), None, dkm.Limits(max_bytes=most))
            assert found.reason.endswith("; 40 bytes are padding, 30 in 'b'") == told
