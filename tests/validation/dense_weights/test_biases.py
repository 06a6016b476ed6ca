"""A bias that a file lacks: free if it is zero, and a fault if it is not."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.conversion.registry import reader_for
from dkm_deploy.formats.dense_tensor import DenseTensor
from dkm_deploy.validation.dense_weights.check import dense_check
from dkm_deploy.validation.dense_weights.match import compare
from dkm_deploy.validation.dense_weights.reference import DenseReference, dense_reference
from tests.converters.coreai.assets import EXTRA

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CORE_AI = pytest.mark.skipif(not find_spec("coreai_torch"), reason=EXTRA)
LAYERS = ("0", "2", "4")  # a palette, a dense kernel, a dense matrix


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(96, 10))
    recipe = dkm.Recipe(dkm.PaletteSpec(4), [dkm.Rule("[24].*", skip=True)])
    return dkm.palettize(nn.Sequential(*layers).eval(), recipe)


@pytest.fixture(
    scope="module", params=[".onnx", ".ort", ".mlpackage", pytest.param(".aimodel", marks=CORE_AI)]
)
def lacking(request, tmp_path_factory):
    """A file of a model without biases."""
    model = _model()
    for layer in LAYERS:
        model.get_submodule(layer).bias = None
    return dkm.convert(model, X, tmp_path_factory.mktemp("bias") / f"m{request.param}").path


def _dense(path, model):
    reader = reader_for(path)
    return dense_check(path, reader, dense_reference(model), reader.read_palettes(path))


def test_biases_of_zeros_may_be_left_out(lacking):
    model = _model()
    for layer in LAYERS:
        nn.init.zeros_(model.get_submodule(layer).bias)

    found = _dense(lacking, model)

    assert found.status == "passed", found.reason
    left = "4.bias (40 bytes), " if lacking.suffix != ".mlpackage" else ""  # which has zeros there
    told = f"zero in the model, and so left out: {left}0.bias (32 bytes), 2.bias (24 bytes)"
    assert told in found.reason


@pytest.mark.parametrize("layer", LAYERS)
def test_a_bias_that_is_not_zero_may_not(lacking, layer):
    model = _model()
    for other in set(LAYERS) - {layer}:
        nn.init.zeros_(model.get_submodule(other).bias)

    found = _dense(lacking, model)

    assert found.status == "failed", found.reason
    assert f"{layer}.bias: not in the file, and not zero" in found.reason


def test_a_report_tells_of_a_palette_without_its_bias(tmp_path):
    model = _model()
    bias, model[0].bias = model[0].bias, None
    file = dkm.convert(model, X, tmp_path / "m.onnx")
    model[0].bias = bias

    report = dkm.validate(file, reference=model, inputs=X)

    assert "0.bias: not in the file, and not zero" in str(report.files[0].checks)


def test_a_bias_of_a_layer_that_is_not_in_the_file_is_listed_alone(lacking):
    model = _model()
    for layer in LAYERS:
        nn.init.zeros_(model.get_submodule(layer).bias)
    model.unused = nn.Linear(5, 7)

    found = _dense(lacking, model)

    assert found.status == "passed", found.reason
    assert "not found in the file: unused.weight (140 bytes), unused.bias" in found.reason


def test_a_strange_tensor_may_be_made_of_a_bias_unless_it_is_zero_or_does_not_fit():
    reference = DenseReference({"a.bias": np.arange(6, dtype=np.float32)}, {})

    def may_hold(values):
        array = np.asarray(values, np.float32)
        return compare([DenseTensor("k", array.nbytes, lambda: array)], reference).may_hold(6)

    assert may_hold(np.random.default_rng(0).normal(size=6))
    assert may_hold(np.random.default_rng(0).normal(size=(4, 6)))
    assert may_hold([7.0, 9.0, -20.0])
    assert not may_hold(np.zeros(6))
    assert not may_hold([7.0, 9.0, -20.0, 3.0])
