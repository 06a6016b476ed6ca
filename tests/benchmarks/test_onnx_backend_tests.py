"""A few of ONNX's backend tests on palettes; the benchmark has all."""

from __future__ import annotations

import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from benchmarks.onnx_backend_tests import run
from benchmarks.onnx_backend_tests.cases import case_of
from benchmarks.onnx_backend_tests.run import Result, run_case

LOSSLESS = (
    "test_Conv2d_depthwise",
    "test_Conv1d_groups",
    "test_ConvTranspose2d",
    "test_Linear_no_bias",
)


@pytest.fixture(scope="module")
def tests():
    return {test.name: test for test in load_model_tests(kind="pytorch-converted")}


@pytest.mark.parametrize("name", LOSSLESS)
def test_outputs_have_the_bits_that_they_had(tests, tmp_path, name):
    assert run_case(case_of(tests[name]), tmp_path) == Result("same bits")


def test_any_operator_takes_decoded_tensors(tests, tmp_path):
    case = case_of(tests["test_Softmax"])
    assert run_case(case, tmp_path).status == "dense"
    assert run_case(case, tmp_path, every=True).status == "same bits"


def test_other_outputs_are_a_failure(tests, tmp_path, monkeypatch):
    def of_other_weights(source, palettes, twin):
        model = onnx.load(source)
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(array + 1, tensor.name))
        onnx.save(model, twin)

    monkeypatch.setattr(run, "write_twin", of_other_weights)
    result = run.run_case(case_of(tests["test_Linear_no_bias"]), tmp_path)
    assert (result.status, result.reason) == ("failed", "other outputs")
