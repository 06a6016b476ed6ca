"""The reference evaluator: whole models, declared precision, values by name, wrong use."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dkm_deploy._support.silence import quiet
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.mlpackage.ml_program import functions
from dkm_deploy.formats.mlpackage.package import open_package
from dkm_deploy.runtimes.mlprogram import runtime
from dkm_deploy.runtimes.mlprogram.evaluator import MLProgramEvaluator
from dkm_deploy.runtimes.mlprogram.kernels import KERNELS
from tests.formats.mlpackage.packages import ct, mb, n, rand, save, types


class Cnn(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
            nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(8, 8, 3, padding=1, stride=2, groups=8),
            nn.Hardswish(),
            nn.ConvTranspose2d(8, 4, 2, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        )


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, tokens):
        return self.layer(self.embedding(tokens)).mean(1)


def convert(path, model, x, target, precision, **options):
    """Convert a model the ordinary way, and give back the torch model's own answer too."""
    model = model.eval()
    with quiet(), torch.no_grad():
        program = torch.export.export(
            model, (x,), dynamic_shapes=options.pop("dynamic", None)
        ).run_decompositions({})
        package = ct.convert(
            program,
            minimum_deployment_target=ct.target[target],
            compute_precision=ct.precision[precision],
            outputs=[ct.TensorType(name="y")],
            skip_model_load=True,
            **options,
        )
        package.save(str(path))
        return n(model(x))


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_cnn_in_fp32_equals_torch(tmp_path, target):
    torch.manual_seed(1)
    x = rand(2, 3, 16, 12)
    expected = convert(tmp_path / "m.mlpackage", Cnn(), x, target, "FLOAT32")
    session = runtime.load(tmp_path / "m.mlpackage")
    assert session.input_shapes == {"input": (2, 3, 16, 12)}
    np.testing.assert_allclose(session.run({"input": n(x)})["y"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target", ["iOS16", "iOS18"])
def test_transformer_equals_torch(tmp_path, target):
    torch.manual_seed(2)
    x = torch.randint(0, 50, (2, 7), dtype=torch.int32)
    path = tmp_path / "m.mlpackage"
    expected = convert(path, Attention(), x, target, "FLOAT32")
    ops = {operation.type for operation in functions(open_package(path))["main"].body.operations}
    assert {"gather", "layer_norm", "gelu"} <= ops
    assert ("scaled_dot_product_attention" in ops) == (target == "iOS18")
    actual = runtime.load(path).run({"tokens": n(x)})["y"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-6)


def test_fp16_differs_from_fp32_as_much_as_fp16_does(tmp_path):
    torch.manual_seed(1)
    x = rand(2, 3, 16, 12)
    path = tmp_path / "m.mlpackage"
    expected = convert(path, Cnn(), x, "iOS18", "FLOAT16")
    actual = runtime.load(path).run({"input": n(x)})["y"]
    assert actual.dtype == np.float16
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 5e-3
    exact = MLProgramEvaluator(path, numerics="fp32").run({"input": n(x)})["y"]
    assert exact.dtype == np.float32
    assert np.abs(exact - expected).max() < np.abs(actual - expected).max()


def test_a_dimension_may_change(tmp_path):
    path, model = tmp_path / "m.mlpackage", nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    x = rand(2, 4)
    convert(
        path, model, x, "iOS18", "FLOAT32", dynamic={"input": {0: torch.export.Dim("b", max=9)}},
        inputs=[ct.TensorType(name="input", shape=(ct.RangeDim(1, 9), 4))],
    )  # fmt: skip
    session = runtime.load(path)
    assert session.input_shapes == {"input": (None, 4)}
    for batch in (1, 5):
        x = rand(batch, 4)
        actual = session.run({"input": n(x)})["y"]
        np.testing.assert_allclose(actual, n(model(x).detach()), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """x -> y = 1.001 * x, z = y * y, w = z / 1000, all of them fp16."""

    def body(x):
        y = mb.mul(x=x, y=np.float16(1.001), name="y")
        z = mb.mul(x=y, y=y, name="z")
        return mb.real_div(x=z, y=np.float16(1000), name="w")

    path = tmp_path_factory.mktemp("half") / "m.mlpackage"
    return save(path, body, (50,), dtype=types.fp16)


X = np.linspace(0.1, 300, 50).astype(np.float16)


def in_steps(x, rounded):
    """The same in numpy: computed in float32, and rounded after each step if ``rounded``."""

    def step(value):
        with np.errstate(over="ignore"):
            return value.astype(np.float16).astype(np.float32) if rounded else value

    y = step(x.astype(np.float32) * np.float32(np.float16(1.001)))
    z = step(y * y)
    return {"y": y, "z": z, "w": step(z / np.float32(1000))}


def test_every_fp16_value_is_rounded_and_overflows(half):
    values = runtime.load(half).run({"x": X}, keep=["y", "z"])
    for name, expected in in_steps(X, rounded=True).items():
        assert values[name].dtype == np.float16
        np.testing.assert_array_equal(values[name], expected)
    assert np.isinf(values["w"][-1])
    once = in_steps(X, rounded=False)["w"].astype(np.float16)
    assert (values["w"] != once).sum() > 10  # rounding at the end only would show


def test_fp32_throughout_neither_rounds_nor_overflows(half):
    values = MLProgramEvaluator(half, numerics="fp32").run({"x": X}, keep=["y", "z"])
    for name, expected in in_steps(X, rounded=False).items():
        assert values[name].dtype == np.float32
        np.testing.assert_allclose(values[name], expected, rtol=1e-6)


def test_inputs_of_an_fp16_program_are_rounded(half):
    session = runtime.load(half)
    x = np.linspace(0.1, 1 / 3, 50, dtype=np.float32)
    np.testing.assert_array_equal(
        session.run({"x": x}, keep=["y"])["y"], session.run({"x": x.astype(np.float16)}, ["y"])["y"]
    )


def test_keep_gives_inputs_constants_and_values(half):
    session = runtime.load(half)
    values = session.run({"x": X}, keep=["x", "y", "y_y_0"])
    assert list(values) == ["w", "x", "y", "y_y_0"]
    np.testing.assert_array_equal(values["x"], X)
    assert values["y_y_0"] == np.float16(1.001)
    assert list(session.run({"x": X})) == ["w"]
    with pytest.raises(DkmError, match=r"m\.mlpackage: the program has no value 'nope'"):
        session.run({"x": X}, keep=["nope"])


def test_inputs_are_checked(tmp_path, half):
    session = runtime.load(half)
    with pytest.raises(DkmError, match=r"has shape \(3,\); the file takes \(50,\)"):
        session.run({"x": X[:3]})
    with pytest.raises(DkmError, match="inputs are y; the file takes x"):
        session.run({"y": X})
    whole = save(tmp_path / "i.mlpackage", lambda x: mb.add(x=x, y=1), (2,), dtype=types.int32)
    with pytest.raises(DkmError, match="input 'x' is float32; the program takes int32"):
        runtime.load(whole).run({"x": np.zeros(2, np.float32)})


def test_every_operation_has_a_test():
    """In a test of runtimes each is built; two of them come about in conversion only."""
    tests = "".join(file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py"))
    in_conversion = {"write_state", "classify"}
    assert len(KERNELS) > 140
    assert [k for k in KERNELS if f"mb.{k}(" not in tests and k not in in_conversion] == []


def test_an_unknown_operation_is_named(tmp_path):
    def body(x):
        one = np.ones(2, np.float32)
        how = {"quantization_type": "linear", "quant_scale": one, "quant_bias": one}
        return mb.conv_quantized(x=x, weight=np.ones((2, 3, 1), np.uint8), **how)

    path = save(tmp_path / "m.mlpackage", body, (1, 3, 4))
    with pytest.raises(
        DkmError, match=r"m\.mlpackage: operation conv_quantized \('.*'\) is not supported"
    ):
        runtime.load(path)


def test_a_failing_operation_is_named(tmp_path):
    indices = np.array([0, 5], np.int32)
    path = save(tmp_path / "m.mlpackage", lambda x: mb.gather(x=x, indices=indices, name="g"), (3,))
    with pytest.raises(DkmError, match=r"m\.mlpackage: operation gather \('g'\) failed"):
        runtime.load(path).run({"x": np.zeros(3, np.float32)})


def test_the_runtime_says_what_it_is():
    assert "reference evaluator" in runtime.name
    assert not runtime.native
    assert runtime.unavailable() is None
