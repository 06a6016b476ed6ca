"""Large 4-bit matrices: one product becomes two, which read the same bytes."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.palette import difference

SHAPES = {"Gemm": (3, 1024), "MatMul": (2, 3, 1024)}


def converted(model, x, path, bits=4, **options):
    frozen = dkm.palettize(model.eval(), dkm.Recipe.uniform(bits))
    dkm.convert(frozen, x, path, names="full", **options)
    return frozen, Counter(node.op_type for node in onnx.load(path).graph.node)


def output_of(path, x):
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(
    ("bias", "options"),
    [(True, {}), (False, {"storage_dtype": "float16"})],
    ids=["float32", "float16, no bias"],
)
def test_two_products_give_what_one_gave(tmp_path, kind, bias, options):
    torch.manual_seed(0)
    x = torch.randn(SHAPES[kind])
    path = tmp_path / "m.onnx"
    frozen, ops = converted(nn.Linear(1024, 1026, bias=bias), x, path, **options)
    assert (ops["Gemm"] + ops["MatMul"], ops["Concat"]) == (2, 1)
    assert difference(dkm.palettes(frozen)["weight"], dkm.read_palettes(path)["weight"]) is None
    if not options:
        with torch.no_grad():
            expected = frozen(x).numpy()
        np.testing.assert_allclose(output_of(path, x), expected, rtol=1e-5, atol=2e-6)
    indices = next(t for t in onnx.load(path).graph.initializer if t.name == "weight.indices")
    assert len(indices.raw_data) == 1024 * 1026 // 2


def test_no_step_but_the_codes_and_the_matrix_is_large(tmp_path):
    """What ONNX Runtime keeps until all is decoded: int32 for two weights, and the weights."""
    path = tmp_path / "m.onnx"
    converted(nn.Linear(1024, 2048), torch.zeros(1, 1024), path)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    session = onnxruntime.InferenceSession(_showing_all(model))
    results = session.run(None, {session.get_inputs()[0].name: np.zeros((1, 1024), np.float32)})
    weights = 1024 * 2048
    assert sum(value.nbytes for value in results) < 1.3 * 6 * weights


def _showing_all(model):
    for name in [name for node in model.graph.node for name in node.output][:-1]:
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model.SerializeToString()


class Twice(nn.Module):
    """One matrix for two products."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1024, 1024)

    def forward(self, x):
        return self.fc(self.fc(x))


@pytest.mark.parametrize(
    ("model", "bits", "options"),
    [
        (nn.Linear(1024, 512), 4, {}),
        (nn.Linear(1024, 1025), 4, {}),
        (nn.Linear(1024, 1024), 3, {}),
        (nn.Linear(1024, 1024), 4, {"runtime": "1.23"}),
        (Twice(), 4, {}),
    ],
    ids=["small", "odd", "of 3 bits", "in a type of its own", "used twice"],
)
def test_others_stay_whole(tmp_path, model, bits, options):
    x, path = torch.randn(2, 1024), tmp_path / "m.onnx"
    frozen, ops = converted(model, x, path, bits, **options)
    assert ops["Gemm"] == (2 if isinstance(model, Twice) else 1)
    with torch.no_grad():
        np.testing.assert_allclose(output_of(path, x), frozen(x).numpy(), rtol=1e-4, atol=2e-5)


def test_a_half_that_reads_other_bytes_is_no_palette(tmp_path):
    """The reader follows the graph: halves that are exchanged are another weight."""
    path = tmp_path / "m.onnx"
    frozen, _ = converted(nn.Linear(1024, 1024), torch.zeros(1, 1024), path)
    model = onnx.load(path)
    parts = {n.output[0]: n for n in model.graph.node if ".part." in n.output[0]}
    first, second = parts["weight.part.0"], parts["weight.part.1"]
    first.output[0], second.output[0] = second.output[0], first.output[0]
    onnx.save(model, path)
    found = dkm.read_palettes(path)["weight"]
    whole = dkm.palettes(frozen)["weight"]
    assert difference(whole, found) is not None
    np.testing.assert_array_equal(np.roll(found.indices, 512, 0), whole.indices)
