"""Inputs of the benchmark of files from PyPI; the files themselves need a network."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from benchmarks.pypi_files.files import FILES, PACKAGES, File, random_inputs
from tests.converters.onnx.models import model, save, value


def test_inputs_have_the_sizes_and_values_that_are_asked_for(tmp_path):
    inputs = [
        value("x", ["n", 3, "width"]),
        value("ids", ["length"], TensorProto.INT64),
        value("rate", [], TensorProto.INT64),
    ]
    nodes = [helper.make_node("Identity", [name], [name + "_"]) for name in ("x", "ids", "rate")]
    outputs = [value("x_"), value("ids_", None, TensorProto.INT64)]
    outputs.append(value("rate_", None, TensorProto.INT64))
    path = save(tmp_path / "m.onnx", model(nodes, inputs=inputs, outputs=outputs))
    file = File("package==1", "m.onnx", (1, 20, 7), {"rate": 16000})
    made = random_inputs(file, path)
    assert tuple(made["x"].shape) == (1, 3, 20)
    assert made["ids"].shape == (7,)
    assert set(np.unique(made["ids"])) <= {0, 1}
    assert made["rate"] == np.array(16000)
    again = random_inputs(file, path)
    assert all(np.array_equal(made[name], again[name]) for name in made)


def test_every_package_has_a_version():
    assert len(PACKAGES) >= 10
    assert all("==" in file.package for file in FILES)
