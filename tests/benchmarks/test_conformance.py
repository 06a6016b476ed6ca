"""The runner of coremltools' own tests: which are chosen, whose fault a failure is, the table."""

from __future__ import annotations

import subprocess
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.conformance.__main__ import _forget, _note_crash
from benchmarks.conformance.causes import KINDS, UNKNOWN, Cause, cause_of, read_causes
from benchmarks.conformance.core_ml import EvaluatorProxy, EvaluatorState, image_of, pixels_of
from benchmarks.conformance.parts import PARTS, chosen, package, part_of
from benchmarks.conformance.results import Result, append, read
from benchmarks.conformance.sample import sampled
from benchmarks.conformance.table import causes_table, parts_table, unmatched_lines
from tests.formats.mlpackage.packages import mb, save

_TEST = "converters/mil/mil/ops/tests/iOS17/test_conv.py::TestConv::test_type#0"
_NAMES = {f"test#{n}": "fp32" if n % 4 == 0 else "fp16" for n in range(40)}
_CAUSE = Cause("by design", "no sense", "Core ML's errors")
_OTHER = Cause("coremltools or harness", "never", "nothing")


def _result(test=_TEST, outcome="passed", reason="", predictions=1):
    return Result(test, "a=1", outcome, reason, predictions)


def test_every_part_is_in_the_wheel_of_coremltools():
    paths = [path for each in PARTS.values() for path in each]
    assert [path for path in paths if not (package() / path).exists()] == []


def test_a_path_chooses_the_parts_in_it_or_a_file_or_function_of_one():
    assert len(chosen(None)) > 20
    assert len(chosen("converters/mil/mil/ops/tests")) == 5
    assert chosen("converters/mil/mil/ops/tests/iOS17/") == ["converters/mil/mil/ops/tests/iOS17"]
    file = "converters/mil/mil/ops/tests/iOS17/test_conv.py::TestConv"
    assert chosen(file) == [file]


def test_a_test_belongs_to_the_part_that_has_its_file():
    assert part_of(_TEST) == "MIL operations, iOS 17"
    assert part_of("test/blob/test_weights.py::test_a#0") == "others"


def test_a_sample_holds_the_smaller_samples_of_its_seed():
    small, large = sampled(_NAMES, 3, seed=0), sampled(_NAMES, 12, seed=0)
    assert len(small) == 3
    assert small < large
    assert small != sampled(_NAMES, 3, seed=1)
    assert sampled(_NAMES, 0, seed=0) == sampled(_NAMES, 99, seed=0) == set(_NAMES)


def test_half_of_a_sample_is_in_float32_as_far_as_there_are_any():
    kinds = sorted(_NAMES[name] for name in sampled(_NAMES, 10, seed=0))
    assert kinds == ["fp16"] * 5 + ["fp32"] * 5
    assert [_NAMES[name] for name in sampled(_NAMES, 30, seed=0)].count("fp32") == 10


def test_the_last_result_of_a_test_counts(tmp_path):
    path = tmp_path / "out" / "conformance.jsonl"
    assert read(path) == {}
    append(path, [_result(outcome="started"), _result(outcome="failed", reason="why")])
    assert read(path) == {_TEST: _result(outcome="failed", reason="why")}


def test_the_test_that_was_running_has_crashed_its_process(tmp_path):
    path = tmp_path / "results.jsonl"
    other = _TEST.replace("test_type", "test_other")
    append(path, [_result(other), _result(outcome="started")])
    done = subprocess.CompletedProcess([], -11, stdout="no tests")
    _note_crash("converters/mil/mil/ops/tests/iOS17", path, done)
    assert read(path)[_TEST].outcome == "crashed"
    assert "ended with -11" in read(path)[_TEST].reason
    assert read(path)[other] == _result(other)
    with pytest.raises(SystemExit, match="no tests"):
        _note_crash("converters/mil/mil/ops/tests/iOS17", path, done)


def test_only_tests_with_the_named_outcomes_are_forgotten(tmp_path):
    path = tmp_path / "results.jsonl"
    other = _TEST.replace("test_type", "test_other")
    append(path, [_result(outcome="failed"), _result(other, outcome="timeout")])
    _forget(Namespace(out=path, retry=["failed"]))
    assert {name: result.outcome for name, result in read(path).items()} == {
        _TEST: "started",
        other: "timeout",
    }


def test_a_failure_without_a_pattern_is_this_projects():
    causes = (_CAUSE,)
    assert cause_of(_result(), causes) is None
    assert cause_of(_result(outcome="failed", reason="no sense"), causes) is _CAUSE
    assert cause_of(_result(outcome="crashed", reason="why"), causes) is UNKNOWN


def test_causes_are_read_from_the_file_and_each_has_a_kind_and_a_sentence():
    causes = read_causes()
    assert causes
    assert all(cause.kind in KINDS and cause.pattern and cause.what for cause in causes)
    assert len({cause.pattern for cause in causes}) == len(causes)


def test_the_table_counts_by_part_and_fault():
    results = [
        _result(),
        _result(_TEST.replace("#0", "#1"), "failed", "no sense"),
        _result(_TEST.replace("_type", "_b"), "timeout", predictions=0),
        _result(_TEST.replace("_type", "_c"), "skipped"),
        _result(_TEST.replace("iOS17", "iOS18"), "started"),
    ]
    lines = list(parts_table(results, (_CAUSE,)))
    assert lines[2] == "| MIL operations, iOS 17 | 2 | 3 | 2 | 1 | 1 | 0 | 1 | 1 |"
    assert lines[-1] == "| all | 2 | 3 | 2 | 1 | 1 | 0 | 1 | 1 |"
    assert list(causes_table(results, (_CAUSE,)))[2:] == [
        "| this project | not looked into | 1: test_b |",
        "| by design | Core ML's errors | 1: test_type |",
    ]


def test_patterns_that_nothing_matches_and_files_that_do_not_import_are_told():
    results = [
        _result(outcome="failed", reason="no sense"),
        Result("test/a.py", "", "uncollected", "No module named 'b'"),
    ]
    pattern, file = unmatched_lines(results, (_CAUSE, _OTHER))
    assert "'never'" in pattern
    assert file.strip() == "test/a.py did not run: No module named 'b'"


def test_arrays_get_the_described_types_and_single_numbers_the_shape_1(tmp_path):
    path = save(
        tmp_path / "sum.mlpackage",
        lambda x: mb.reduce_sum(x=x, axes=[0], keep_dims=False, name="y"),
        (3,),
    )
    proxy = EvaluatorProxy(str(path), "CPU_ONLY", "", {}, None)
    made = proxy.predict({"x": np.array([1, 2, 3], np.float64)})["y"]
    assert (made.shape, made.item()) == ((1,), 6.0)
    with pytest.raises(RuntimeError, match=r"^Unable to compute .*: input 'x' has shape \(4,\)"):
        proxy.predict({"x": np.ones(4)})


@pytest.mark.parametrize("space", ["RGB", "BGR", "GRAYSCALE"])
def test_images_are_pixels_in_the_models_order(space):
    shape = (2, 3) if space == "GRAYSCALE" else (2, 3, 3)
    image = Image.fromarray(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape))
    pixels = pixels_of(image, space)
    assert pixels.shape == (1, 1 if space == "GRAYSCALE" else 3, 2, 3)
    assert pixels[0, 0, 0, 0] == (2 if space == "BGR" else 0)
    assert image_of(pixels, space) == image


def test_states_are_read_and_written_by_name_and_shape():
    state = EvaluatorState({"cache": np.zeros(2, np.float16)})
    state.write_state("cache", np.ones(2))
    assert state.read_state("cache").tolist() == [1.0, 1.0]
    assert state.arrays["cache"].dtype == np.float16
    with pytest.raises(RuntimeError, match="no state 'other'"):
        state.read_state("other")
    with pytest.raises(RuntimeError, match="shape"):
        state.write_state("cache", np.ones(3))
