"""The zoo: which models there are, what is measured again, and what its tables say."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from benchmarks.zoo.__main__ import completed
from benchmarks.zoo.architecture import Architecture
from benchmarks.zoo.models import architectures, is_missing
from benchmarks.zoo.one_model import first_sample
from benchmarks.zoo.results import Result, append, is_repeated, read
from benchmarks.zoo.table import kind_of, passed_table, reasons_table
from benchmarks.zoo.transformers_models import entries


def _result(model="own/a", target="onnx", outcome="passed", reason="", family="own"):
    return Result(model, family, target, outcome, reason)


def test_there_are_200_models_and_each_has_a_name_of_its_own():
    names = [one.name for one in architectures()]
    assert len(set(names)) == len(names) >= 200


def test_the_first_models_are_of_all_packages_and_a_pattern_chooses():
    first = Counter(one.package for one in architectures()[:50])
    assert first.keys() == {None, "torchvision", "timm", "transformers"}
    assert {one.package for one in architectures("timm/*")} == {"timm"}


def test_models_of_our_own_run_and_inputs_are_cut_to_the_first_sample():
    (one,) = architectures("own/two towers")
    model, inputs = one.make()
    cut = first_sample(inputs)
    assert {name: tensor.shape[0] for name, tensor in cut.items()} == {"user": 1, "item": 1}
    assert torch.allclose(model(**cut)["pairs"], model(**inputs)["pairs"][:1])


def test_only_packages_that_are_named_can_be_missing():
    assert is_missing("no_such_package")
    assert not is_missing(None)
    assert not is_missing("torch")


def test_shared_entries_come_first_at_any_depth():
    sizes = {"a": {"x": 1, "y": 2}, "b": {"y": 3, "inner": {"sizes": ["a"], "y": 4}}}
    expected = {"x": 5, "y": 3, "inner": {"x": 1, "y": 4}}
    assert entries({"sizes": ["a", "b"], "x": 5}, sizes) == expected


def test_the_last_result_of_a_model_and_target_counts(tmp_path):
    path = tmp_path / "out" / "zoo.jsonl"
    assert read(path) == {}
    append(path, [_result(outcome="refused", reason="why"), _result(target="aimodel")])
    append(path, [_result()])
    assert read(path) == {
        ("own/a", "onnx"): _result(),
        ("own/a", "aimodel"): _result(target="aimodel"),
    }


@pytest.mark.parametrize(
    ("retry", "repeated"),
    [
        ([], False),
        (["onnx"], True),
        (["aimodel"], False),
        (["refused"], True),
        (["crashed", "refused"], True),
        (["onnx", "refused"], True),
        (["onnx", "crashed"], False),
        (["aimodel", "refused"], False),
    ],
)
def test_what_is_measured_again(retry, repeated):
    assert is_repeated(_result(outcome="refused"), retry) == repeated


def test_targets_without_a_result_get_the_end_of_the_process():
    one = Architecture("own/a", "own", None, lambda: None)
    found = list(completed(one, ["onnx", "aimodel"], [_result()], ("crashed", "signal 6")))
    assert found == [_result(), _result(target="aimodel", outcome="crashed", reason="signal 6")]


def test_shares_are_of_what_can_be_traced_and_made():
    results = [
        _result(),
        _result("own/b", outcome="failed"),
        _result("own/c", outcome="untraceable"),
        _result("own/d", outcome="skipped"),
        _result("timm/e", family="timm"),
    ]
    assert list(passed_table(results))[2:] == [
        "| own | 1 of 2 (50.0 %) | 0 of 0 | 0 of 0 |",
        "| timm | 1 of 1 (100.0 %) | 0 of 0 | 0 of 0 |",
        "| all | 2 of 3 (66.7 %) | 0 of 0 | 0 of 0 |",
    ]


def test_reasons_are_grouped_by_operation():
    why = "no operation (at aten.elu.default in layer {})"
    results = [_result(f"own/{n}", outcome="refused", reason=why.format(n)) for n in "abcde"]
    results.append(_result("own/f", outcome="failed", reason="parity: 0.3 over 0.1"))
    assert list(reasons_table(results))[2:] == [
        "| ONNX | refused | aten.elu.default | 5: own/a, own/b, own/c, own/d and 1 more |",
        "| ONNX | failed | parity | 1: own/f |",
    ]


def test_what_differs_by_model_is_no_part_of_a_reason():
    assert kind_of("cannot: unsupported aten.elu.default, aten.erf.default") == "aten.elu.default"
    assert kind_of("12 of 3.5e-4 | x") == "N of N / x"
