from __future__ import annotations

from typing import Any

from dkm_deploy.report import summary

Values = dict[str, Any]


def test_the_headline_says_what_happened(demo: Values, failed: Values, unchecked: Values) -> None:
    assert summary.headline(demo) == "Passed"
    assert summary.headline(failed) == "3 checks failed, 1 check skipped"
    assert summary.headline(unchecked) == "Nothing was checked"


def test_a_check_that_did_not_run_is_not_hidden_by_a_pass(demo: Values) -> None:
    demo["models"][-1]["checks"][1]["status"] = "skipped"
    assert summary.headline(demo) == "Passed, 1 check skipped"
    assert summary.state(demo) == "passed"
    assert summary.verdict(demo["models"][-1]) == "incomplete"


def test_where_no_check_ran_nothing_has_passed(demo: Values) -> None:
    for model in demo["models"]:
        for check in model["checks"]:
            check["status"] = "skipped"
    demo["passed"] = False
    assert summary.headline(demo) == "Nothing was checked"
    assert summary.state(demo) == "skipped"


def test_what_is_required_and_did_not_run_is_no_pass(demo: Values) -> None:
    demo["models"][-1]["checks"][1]["status"] = "skipped"
    demo |= {"passed": False, "required": True}
    assert summary.headline(demo) == "Not passed: 1 required check skipped"
    assert summary.state(demo) == "skipped"
    demo["models"][-1]["checks"][0]["status"] = "skipped"
    demo["required"] = ["parity"]
    assert summary.headline(demo) == "Not passed: 1 required check skipped"


def test_nothing_passed_is_told_before_what_was_required(demo: Values) -> None:
    for model in demo["models"]:
        for check in model["checks"]:
            check["status"] = "skipped"
    demo |= {"passed": False, "required": True}
    assert summary.headline(demo) == "Nothing was checked"


def test_checks_that_prove_nothing_alone_are_no_check(demo: Values) -> None:
    demo |= {"passed": False}  # as where only "dense" and "interface" passed
    assert summary.headline(demo) == "Nothing was checked"


def test_a_check_that_could_not_run_for_what_is_wrong_is_lacking(demo: Values) -> None:
    for blocks in (True, False):
        check = {"name": "parity", "status": "skipped", "reason": "it failed", "blocks": blocks}
        assert summary.lacks_check(demo, check) == blocks
    assert not summary.lacks_check(demo, {"name": "parity", "status": "passed", "blocks": True})


def test_the_verdict_on_a_model_is_its_worst_check(failed: Values) -> None:
    verdicts = [summary.verdict(model) for model in failed["models"]]
    assert verdicts == [None, "failed", "incomplete"]


def test_the_largest_difference_is_over_all_outputs(demo: Values, failed: Values) -> None:
    onnx = demo["models"][-2]
    onnx["errors"]["boxes"] = onnx["errors"]["logits"] | {"max_abs": 0.5}
    assert summary.largest_difference(onnx) == 0.5
    assert summary.largest_difference(failed["models"][1]) is None  # one output is infinite
    assert summary.largest_difference(failed["models"][2]) is None  # nothing ran


def test_sizes_stand_beside_what_they_are_measured_against(demo, failed):
    onnx = demo["models"][4]
    assert summary.sizes(onnx) == (
        "25,208 bytes, 13.2x under the original, 6.6x under its fp16; 24,001 after deflate; "
        "weights alone 21,496 (the file is 17.3% over); 2.05 bits per palettized weight"
    )
    assert "original" not in summary.sizes(failed["models"][1])


def test_answers_come_with_how_sure_they_are(demo, failed):
    assert summary.answers(demo["models"][4]) == (
        "99.17% of top-1 answers as the original's (3 flips); 98.61% of its top 5; "
        "metric loss 0.556, 95 % interval -1.20 to 2.30 (Newcombe 1998, method 10)"
    )
    assert summary.answers(failed["models"][1]) == ""
    demo["models"][4]["metric_loss"] |= {"low": None, "method": "no interval: few inputs"}
    assert summary.answers(demo["models"][4]).endswith("loss 0.556, no interval: few inputs")


def test_sizes_where_there_are_none(demo: Values) -> None:
    onnx = demo["models"][4]
    assert summary.sizes(onnx | {"size_bytes": None}) == ""
    told = summary.sizes(onnx | {"ideal_bytes": 0, "bits_per_weight": None})
    assert told.endswith("; weights alone 0 (the file is all of it over)")
