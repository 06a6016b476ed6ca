"""Each check at its limit and beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dkm_deploy as dkm
from dkm_deploy.formats.ledger import Ledger, LedgerEntry
from dkm_deploy.validation.check import Check
from dkm_deploy.validation.checks.output_checks import answer_checks, palettes_check, size_checks
from dkm_deploy.validation.measures.confidence_interval import Loss
from dkm_deploy.validation.measures.top1_agreement import Answers
from dkm_deploy.validation.task import FirstOutput


def _palette(value=1.0):
    lut = np.array([[[0.0], [value]]], np.float32)
    return dkm.Palette(np.array([0, 1, 1], np.uint8), lut)


def _ledger(*entries):
    return Ledger(Path("m.onnx"), entries)


class TestPalettes:
    def test_one_too_many_in_the_file_fails(self):
        stored = {"a": _palette(), "b": _palette()}
        found = palettes_check({"a": _palette()}, stored, _ledger())
        assert (found.status, found.reason) == ("failed", "b is not a palette of the model")

    def test_every_one_counts(self):
        stored = {"a": _palette(), "b": _palette(2), "c": _palette()}
        frozen = {name: _palette() for name in "abd"}
        found = palettes_check(frozen, stored, _ledger())
        assert found.status == "failed"
        assert found.reason.startswith("b: ")
        assert found.reason.endswith(" (and 2 more)")
        same = {name: _palette() for name in "ab"}
        assert palettes_check(same, same, _ledger()).reason.startswith("2 of 2 equal")

    def test_what_is_dense_in_the_file_is_told_by_its_name(self):
        entries = [LedgerEntry("dense", "a_weight_2", 12), LedgerEntry("lut", "a_weight", 4)]
        found = palettes_check({"a.weight": _palette()}, {}, _ledger(*entries))
        assert found.reason == "a.weight is not a palette in the file but dense, 12 bytes"
        other = palettes_check({"b.weight": _palette()}, {}, _ledger(*entries))
        assert other.reason == "b.weight is not a palette in the file"

    @pytest.mark.parametrize(
        ("weight", "entry", "dense"),
        [
            ("a.weight", "p_a_weight", True),
            ("a.weight", "a.weight", True),
            ("a-b.weight", "a_b_weight", True),
            ("a.weight", "a_weights", False),
            ("a.weight", "b_a_weight", False),
        ],
    )
    def test_names_are_compared_as_exporters_spell_them(self, weight, entry, dense):
        found = palettes_check({weight: _palette()}, {}, _ledger(LedgerEntry("dense", entry, 1200)))
        told = f"{weight} is not a palette in the file"
        assert found.reason == told + (" but dense, 1,200 bytes" if dense else "")

    def test_the_first_by_name_is_told_of_several(self):
        found = palettes_check({"z": _palette(), "b": _palette()}, {}, _ledger())
        reason = "b is not a palette in the file (and 1 more)"
        assert found == Check("palettes", "failed", reason)

    def test_the_types_of_the_tables_are_told(self):
        one, half = _palette(), _palette().astype(np.float16)
        found = palettes_check(
            {"a": one, "b": one, "c": one}, {"a": one, "b": half, "c": one}, _ledger()
        )
        assert found == Check(
            "palettes", "passed", "3 of 3 equal bit for bit, LUTs as float16, float32"
        )

    def test_without_palettes_nothing_can_be_compared(self):
        found = palettes_check({}, {"a": _palette()}, _ledger())
        reason = "the reference has no palettes to compare with"
        assert found == Check("palettes", "skipped", reason)


def _told(value, agreement=None, low=None, high=None):
    loss = Loss(value, low, high, "method")
    return FirstOutput(90 - value, loss, Answers(agreement=agreement))


class TestAnswers:
    @pytest.mark.parametrize(
        ("loss", "status"), [(1.0, "passed"), (1.001, "failed"), (-5, "passed"), (0, "passed")]
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
        told = ": too few inputs to be sure on which side of the limit" if unsure else ""
        assert found.reason.endswith(f"; 95 % interval {low} to {high} (method){told}")

    @pytest.mark.parametrize(
        ("agreement", "status"), [(0.9, "passed"), (0.899, "failed"), (1, "passed")]
    )
    def test_agreement_from_its_limit_on_passes(self, agreement, status):
        (found,) = answer_checks(_told(0, agreement), dkm.Limits(min_agreement=0.9), "")
        assert found.status == status
        assert (
            f"{100 * agreement:.2f} % of top-1 answers as the original, limit 90 %" in found.reason
        )

    def test_the_interval_is_told(self):
        (found,) = answer_checks(_told(1, low=-0.25, high=1.5), dkm.Limits(max_metric_loss=1), "")
        assert (found.name, found.status) == ("metric", "passed")
        assert found.reason == (
            "89 against 90: loss 1, limit 1; 95 % interval -0.25 to 1.5 (method): too few inputs "
            "to be sure on which side of the limit"
        )

    @pytest.mark.parametrize(("low", "high"), [(None, None), (None, 1.0), (0.0, None)])
    def test_without_an_interval_its_reason_is_told(self, low, high):
        told = replace(_told(1, low=low, high=high), answers=Answers(unanswered=3))
        (found,) = answer_checks(told, dkm.Limits(max_metric_loss=1), "")
        assert found.reason == (
            "89 against 90: loss 1, limit 1; method; inputs that the original answers with NaN or "
            "infinity: 3"
        )

    @pytest.mark.parametrize("metric", [float("nan"), float("inf"), float("-inf")])
    def test_a_metric_that_is_no_number_fails(self, metric):
        told = FirstOutput(metric, Loss(-1.0, None, None, "method"), Answers())
        (found,) = answer_checks(told, dkm.Limits(max_metric_loss=1), "")
        assert found.status == "failed"

    @pytest.mark.parametrize(
        ("told", "check"),
        [
            (
                FirstOutput(None, None, Answers(), "it cannot be computed"),
                Check("metric", "failed", "it cannot be computed"),
            ),
            (
                FirstOutput(None, None, Answers()),
                Check("metric", "skipped", "it needs an original, labels and the file's outputs"),
            ),
            (
                FirstOutput(90.0, None, Answers()),
                Check("metric", "skipped", "it needs an original, labels and the file's outputs"),
            ),
            (
                FirstOutput(0.0, Loss(0.0, None, None, ""), Answers()),
                Check(
                    *("metric", "skipped"),
                    "0, and 0 of the original: it shows nothing; check the labels",
                    blocks=True,
                ),
            ),
        ],
    )
    def test_a_metric_that_tells_nothing(self, told, check):
        assert answer_checks(told, dkm.Limits(max_metric_loss=1), "") == [check]
        assert answer_checks(told, dkm.Limits(), "") == []

    def test_a_metric_of_zero_is_one_where_the_original_had_another(self):
        told = FirstOutput(0.0, Loss(2.0, None, None, ""), Answers())
        (found,) = answer_checks(told, dkm.Limits(max_metric_loss=1), "")
        assert found.status == "failed"

    @pytest.mark.parametrize(("limit", "blocks"), [(1, True), (None, False)])
    def test_a_metric_that_decides_nothing_blocks_where_it_has_a_limit(self, limit, blocks):
        found = answer_checks(_told(1), dkm.Limits(max_metric_loss=limit), "it guesses")
        assert found == [Check("metric", "skipped", "it guesses", blocks)]

    def test_agreement_tells_of_inputs_that_nobody_answers(self):
        told = FirstOutput(None, None, Answers(agreement=0.75, unanswered=2))
        (found,) = answer_checks(told, dkm.Limits(min_agreement=0.5), "")
        assert found.reason == (
            "75.00 % of top-1 answers as the original, limit 50 %; inputs that the original "
            "answers with NaN or infinity: 2"
        )
        assert found.name == "agreement"

    @pytest.mark.parametrize(
        ("reason", "told", "blocks"),
        [
            ("", "it needs an original and the file's outputs", False),
            ("no scores", "no scores", True),
        ],
    )
    def test_without_answers_there_is_no_agreement(self, reason, told, blocks):
        answers = FirstOutput(None, None, Answers(reason=reason))
        found = answer_checks(answers, dkm.Limits(min_agreement=0.5), "")
        assert found == [Check("agreement", "skipped", told, blocks)]


class TestSize:
    @pytest.mark.parametrize(("most", "status"), [(100, "passed"), (99, "failed")])
    def test_bytes_up_to_the_limit_pass(self, most, status):
        (found,) = size_checks(
            _ledger(LedgerEntry("dense", "a", 100)), None, dkm.Limits(max_bytes=most)
        )
        assert found == Check("size", status, f"100 bytes, limit {most}")

    @pytest.mark.parametrize(("ratio", "status"), [(0.5, "passed"), (0.49, "failed")])
    def test_a_ratio_up_to_the_limit_passes(self, ratio, status):
        ledger, limits = _ledger(LedgerEntry("dense", "a", 100)), dkm.Limits(max_size_ratio=ratio)
        (found,) = size_checks(ledger, 200, limits)
        assert found.status == status
        assert found.reason == f"0.5000 of the original's 200 bytes, limit {ratio}"
        none = [Check("size", "skipped", "the size ratio needs an original")]
        assert size_checks(ledger, None, limits) == size_checks(ledger, 0, limits) == none
        assert found.name == "size"

    def test_large_sizes_are_written_with_commas(self):
        ledger = _ledger(LedgerEntry("dense", "a", 1_500_000), LedgerEntry("padding", "b", 2_000))
        limits = dkm.Limits(max_bytes=1_234_567, max_size_ratio=0.5)
        padding = "2,000 bytes are padding, 2,000 in 'b'"
        assert [check.reason for check in size_checks(ledger, 2_000_000, limits)] == [
            f"1,502,000 bytes, limit 1,234,567; {padding}",
            f"0.7510 of the original's 2,000,000 bytes, limit 0.5; {padding}",
        ]
        assert size_checks(ledger, 2_000_000, dkm.Limits()) == []

    def test_a_miss_tells_what_is_padding_and_a_pass_does_not(self):
        entries = [
            LedgerEntry("padding", "a", 10),
            LedgerEntry("padding", "b", 30),
            LedgerEntry("dense", "c", 60),
        ]
        for most, told in ((99, True), (100, False)):
            (found,) = size_checks(_ledger(*entries), None, dkm.Limits(max_bytes=most))
            assert found.reason.endswith("; 40 bytes are padding, 30 in 'b'") == told
        (found,) = size_checks(_ledger(entries[2]), None, dkm.Limits(max_bytes=1))
        assert found.reason == "60 bytes, limit 1"
