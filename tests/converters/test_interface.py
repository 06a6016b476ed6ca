"""Outputs that are one value, an input, a weight or oddly named, in a file of each kind."""

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.output_names import output_names
from tests.converters.coreai.assets import EXTRA

X = torch.linspace(-2, 3, 24).reshape(2, 12)


class Odd(nn.Module):
    """Takes an input called ``output``, and gives it back under its own name."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(12, 12)
        self.last = nn.Linear(12, 8)
        self.register_buffer("table", torch.arange(4.0))

    def forward(self, output):
        hidden = self.first(output)
        y = self.last(hidden)
        return {
            "y": y,
            "same": y,
            "view": y.detach().view(2, 8),
            "output": output,
            "output_1": output * 1,
            "a b": hidden,
            "a_b": hidden + 1,
            "1st": y.argmax(),
            "class": y > 0,
            "table": self.table,
            "nested": (self.table, {"sum": y.sum(), "none": None}),
            "last_bias": self.last.bias,
            "rounded": ((output // 1) * 2).argmax(0, keepdim=True),
        }


@pytest.fixture(scope="module")
def odd():
    frozen = dkm.palettize(Odd().eval(), dkm.Recipe.uniform(4))
    values = [t for t in torch.utils._pytree.tree_leaves(frozen(X)) if torch.is_tensor(t)]
    return frozen, [value.detach().numpy() for value in values]


ONNX = (
    *("y", "same", "view", "output_2", "output_1", "a b", "a_b", "1st", "class", "table"),
    *("nested_0", "nested_1_sum", "last_bias", "rounded"),
)
COREML = (
    *("y", "same", "view", "output_2", "output_1", "a_b", "a_b_1", "var_1st", "class", "table"),
    *("nested_0", "nested_1_sum", "last_bias", "rounded"),
)


def same(found, expected):
    """Whether outputs are there in order, with the shapes and values of PyTorch's."""
    return len(found) == len(expected) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-5, atol=1e-5)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("suffix", [".onnx", ".ort"])
def test_onnx(tmp_path, odd, suffix):
    from dkm_deploy.runtimes.onnx_runtime.runtime import runtime

    frozen, expected = odd
    session = runtime.load(dkm.convert(frozen, X, tmp_path / f"m{suffix}").path)
    assert list(session.input_shapes) == ["output"]
    found = session.run({"output": X.numpy()})
    assert tuple(found) == ONNX
    assert same(list(found.values()), expected)


def test_core_ml(tmp_path, odd):
    frozen, expected = odd
    path = tmp_path / "m.mlpackage"
    dkm.convert(frozen, X, path, compute_precision="float32")
    evaluator = dkm.MLProgramEvaluator(path)
    assert list(evaluator.input_shapes) == ["output"]
    found = evaluator.run({"output": X.numpy()})
    assert tuple(found) == COREML
    assert same(list(found.values()), expected)


def test_core_ai(tmp_path, odd):
    pytest.importorskip("coreai_torch", reason=EXTRA, exc_type=ImportError)
    from dkm_deploy.runtimes.core_ai.runtime import runtime

    frozen, expected = odd
    session = runtime.load(dkm.convert(frozen, X, tmp_path / "m.aimodel").path)
    found = session.run({"output": X.numpy()})
    names = output_names(frozen(X))  # inputs and outputs have names apart from each other's
    assert found.keys() == set(names)
    assert same([found[name] for name in names], expected)


class Taken(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 12)

    def forward(self, x):
        return {"first.weight": self.first(x)}


def test_an_output_called_like_a_palette_is_refused_in_onnx(tmp_path):
    frozen = dkm.palettize(Taken().eval(), dkm.Recipe.uniform(4))
    with pytest.raises(dkm.DkmError, match=r"^first.weight: an input or a step .* rename one$"):
        dkm.convert(frozen, X, tmp_path / "m.onnx")
