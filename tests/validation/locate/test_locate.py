"""Faults planted in one place of a real file are found in that place."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

import dkm_deploy as dkm
from dkm_deploy.model.run import run_model
from dkm_deploy.runtimes import runtime_for
from dkm_deploy.runtimes.onnx_runtime.runtime import OnnxRuntime
from dkm_deploy.runtimes.run_file import run_file
from dkm_deploy.validation.locate import locate
from dkm_deploy.validation.locate.layer_calls import LayerValues
from tests.converters.coreai.assets import extra
from tests.damage import overwrite
from tests.models import MIXED, images, small_net


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(small_net(), MIXED)


@pytest.fixture(scope="module")
def files(frozen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    names = ("model.onnx", "model.mlpackage")
    return {n: dkm.convert(frozen, images(1), folder / n).path for n in names}


def _changed(path, out, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, out)
    return out


def _scaled(name, factor=1.5):
    def change(graph):
        tensor = next(t for t in graph.initializer if t.name == name)
        array = (numpy_helper.to_array(tensor) * factor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return change


def _replaced(operator, by):
    def change(graph):
        next(node for node in graph.node if node.op_type == operator).op_type = by

    return change


def _found(path, reference, inputs):
    report = dkm.validate([path], reference=reference, inputs=inputs)
    divergence = report.files[0].divergence
    return (divergence.layer, divergence.at), report


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_scaled("stem.weight.lut"), ("stem", "output")),
        (_scaled("norm.weight", -3), ("norm", "output")),
        (_replaced("Relu", "Sigmoid"), ("depthwise", "input")),
        (_scaled("depthwise.weight"), ("depthwise", "output")),
        (_replaced("ReduceMean", "ReduceSum"), ("head", "input")),
        (_scaled("head.weight.lut"), ("head", "output")),
        (_scaled("head.bias", -3), ("head", "output")),
    ],
)
def test_in_onnx(frozen, files, tmp_path, change, expected):
    bad = _changed(files["model.onnx"], tmp_path / "bad.onnx", change)
    found, report = _found(bad, frozen, images(5))
    assert found == expected
    assert report.files[0].divergence.seen == 4
    assert f" {expected[0]}" in report.failed[-1]
    assert "(4 of 4 layers can be compared)" in report.failed[-1]


@pytest.mark.parametrize("layer", ["depthwise", "head"])
def test_in_core_ml(frozen, files, tmp_path, layer):
    bad = shutil.copytree(files["model.mlpackage"], tmp_path / "bad.mlpackage")
    palette = dkm.palettes(frozen).get(f"{layer}.weight")
    array = (
        frozen.get_parameter(f"{layer}.weight").detach().numpy() if palette is None else palette.lut
    )
    half = array.astype(np.float16)
    overwrite(bad, half.tobytes(), (half * np.float16(1.5)).tobytes())
    found, report = _found(bad, frozen, images(5))
    assert found == (layer, "output")
    assert f"first error in {layer}: relative error " in report.failed[-1]


def test_only_the_input_that_shows_the_fault_is_looked_at(frozen, files, tmp_path):
    def clipped(graph):
        relu = next(node for node in graph.node if node.op_type == "Relu")
        relu.op_type = "Clip"
        relu.input.extend(["low", "high"])
        graph.initializer.extend(
            [numpy_helper.from_array(np.float32(v), n) for n, v in (("low", 0), ("high", 6))]
        )

    bad = _changed(files["model.onnx"], tmp_path / "bad.onnx", clipped)
    inputs = images(40) / 10
    assert dkm.validate([bad], reference=frozen, inputs=inputs)
    inputs[33] *= 1000
    assert _found(bad, frozen, inputs)[0] == ("depthwise", "input")


class Overflows(nn.Module):
    """The second of three layers leaves half precision."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (nn.Linear(16, 16) for _ in range(3))
        with torch.no_grad():
            self.second.weight *= 1e5
            self.third.weight /= 1e5

    def forward(self, x):
        return self.third(functional.relu(self.second(functional.relu(self.first(x)))))


def test_an_overflow_in_half_precision(tmp_path):
    frozen = dkm.palettize(
        Overflows().eval(), dkm.Recipe(rules=[dkm.Rule("first.*", dkm.PaletteSpec(4))])
    )
    inputs = images(4).reshape(-1, 16)
    path = dkm.convert(frozen, inputs[:1], tmp_path / "m.mlpackage").path
    found, report = _found(path, frozen, inputs)
    assert found == ("second", "output")
    assert report.files[0].divergence.relative == np.inf
    assert "NaN or infinite" in report.failed[0]


class Tokens(nn.Module):
    """Three dimensions, for which ONNX has a product and a bias apart; batch norms to fold."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(20, 16)
        self.up = nn.Linear(16, 32)
        self.down = nn.Linear(32, 16)
        self.conv = nn.Conv1d(16, 16, 1)
        self.norm = nn.BatchNorm1d(16)
        self.last = nn.Linear(16, 4)

    def forward(self, ids):
        x = self.down(functional.gelu(self.up(self.embed(ids))))
        x = functional.relu(self.norm(self.conv(x.transpose(1, 2))))
        return functional.softmax(self.last(x.mean(2)), -1)


def _tokens():
    model = Tokens()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randint(20, (8, 6)))
    return model.eval()


@pytest.mark.parametrize(
    ("layer", "suffix", "expected", "unseen"),
    [
        ("embed", ".onnx", ("embed", "output"), ()),  # rows one by one: the table is nowhere
        ("up", ".onnx", ("up", "output"), ()),
        pytest.param("down", ".onnx", ("down", "output"), (), marks=pytest.mark.slow),
        ("conv", ".onnx", ("conv", "output"), ()),
        pytest.param("last", ".onnx", ("last", "output"), (), marks=pytest.mark.slow),
        pytest.param("up", ".mlpackage", ("up", "output"), (), marks=pytest.mark.slow),
        # coremltools gives a convolution that took in the norm a weight with another name.
        ("conv", ".mlpackage", ("last", "input"), ("conv", "norm")),
    ],
)
def test_each_layer_of_a_model_with_dense_weights_and_folded_norms(
    tmp_path, layer, suffix, expected, unseen
):
    rules = [dkm.Rule("conv.*", skip=True), dkm.Rule("last.*", skip=True)]
    recipe = dkm.Recipe(default=dkm.PaletteSpec(6), rules=rules)
    right, wrong = dkm.palettize(_tokens(), recipe), _tokens()
    with torch.no_grad():
        wrong.get_parameter(f"{layer}.weight").mul_(-8)
    ids = torch.randint(20, (4, 6), generator=torch.Generator().manual_seed(0))
    path = dkm.convert(dkm.palettize(wrong, recipe), ids[:1], tmp_path / f"m{suffix}").path
    found, report = _found(path, right, ids)
    assert found == expected
    assert report.files[0].divergence.unseen == unseen
    assert ("; conv, norm cannot)" in report.failed[-1]) == bool(unseen)


def test_after_the_last_layer(tmp_path):
    class Negated(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.stem, self.norm, self.depthwise, self.head = (m for m in model.children())
            self.model = (model,)  # not a submodule, so that the names are the same

        def forward(self, x):
            return -self.model[0](x)

    frozen = dkm.palettize(small_net(), MIXED)
    path = dkm.convert(Negated(frozen).eval(), images(1), tmp_path / "bad.onnx").path
    found, report = _found(path, frozen, images(3))
    assert found == ("head", "after")
    assert "no layer differs by more than 1.00e-05: it is after head" in report.failed[0]


def test_a_file_that_shows_nothing_inside(frozen, tmp_path):
    other = dkm.palettize(small_net(), MIXED)
    with torch.no_grad():
        other.head.bias += 1
    path = dkm.convert(other, images(1), tmp_path / "bad.ort").path
    report = dkm.validate([path], reference=frozen, inputs=images(2))
    assert report.files[0].divergence is None
    told = (
        "not located: no runtime here shows the values inside '.ort' files; validate the .onnx file"
    )
    assert told in "; ".join(report.failed)


def test_a_right_file_is_not_searched(frozen, files):
    report = dkm.validate(list(files.values()), reference=frozen, inputs=images(2))
    assert [model.divergence for model in report.files] == [None, None]


def _chain(place=None):
    """Six layers; the weight of one of them may be another one."""
    torch.manual_seed(0)
    parts = [part for _ in range(6) for part in (nn.Linear(32, 32), nn.Tanh())]
    model = nn.Sequential(*parts).eval()
    if place is not None:
        with torch.no_grad():
            model.get_parameter(f"{place}.weight").mul_(-2)
    return dkm.palettize(model, dkm.Recipe.uniform(3))


def _noted(monkeypatch, name):
    """Bytes of what a function gives to ``locate``, a number for each call."""
    made, sizes = getattr(locate, name), []

    def noted(*given):
        values = made(*given)
        sizes.append(sum(array.nbytes for array in _arrays(values)))
        return values

    monkeypatch.setattr(locate, name, noted)
    return sizes


def _arrays(values):
    for each in values.values():
        yield from (each.input, each.output) if isinstance(each, LayerValues) else (each,)


@pytest.mark.parametrize("suffix", [".onnx", ".mlpackage", ".aimodel"])
def test_no_more_values_are_kept_at_once_than_asked_for(tmp_path, monkeypatch, suffix):
    if suffix == ".aimodel":
        extra()
    right, x = _chain(), torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    path = dkm.convert(_chain(6), x, tmp_path / f"m{suffix}").path
    outputs = run_file(runtime_for(path).load(path), x), run_model(right, x)
    everything = locate.locate(path, right, x, outputs, 0.01)
    kept = [_noted(monkeypatch, name) for name in ("run_file", "layer_values")]
    layer = 2 * 32 * 4
    found = locate.locate(path, right, x, outputs, 0.01, most=2 * layer + 100)
    assert (found.layer, found.at) == ("6", "output")
    assert (found.value, found.seen) == (everything.value, everything.seen)
    for sizes in kept:
        assert len(sizes) == 2  # the fourth layer is in the second run, and there is no third
        assert 0 < max(sizes) <= 2 * layer


def test_onnx_runtime_is_asked_for_no_other_values(files):
    runtime, x = OnnxRuntime(), images(1).numpy()
    own = set(runtime.load(files["model.onnx"]).run({"x": x}))
    probe = runtime.probe(files["model.onnx"], ["stem.weight", "norm.weight", "head.weight"])
    assert len(probe.taps) == 3
    for tap in probe.taps:
        session = probe.at([tap])
        assert {o.name for o in session._session.get_outputs()} <= {*own, tap.input, tap.output}
        assert set(session.run({"x": x})) == {tap.input, tap.output}


def _in_a_branch(path, out, count):
    """The file with the last nodes of its graph in both branches of an If."""
    model = onnx.load(path)
    nodes = list(model.graph.node)
    made = onnx.helper.make_tensor_value_info(nodes[-1].output[0], 1, None)
    graph = onnx.helper.make_graph(nodes[-count:], "branch", [], [made])
    chosen = onnx.helper.make_node(
        "If", ["yes"], [nodes[-1].output[0]], then_branch=graph, else_branch=graph
    )
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:-count], chosen])
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    onnx.save(model, out)
    return out


def test_layers_inside_a_subgraph(tmp_path):
    def net(factor):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)).eval()
        with torch.no_grad():
            model[1].weight.mul_(factor)
        return model

    path = dkm.convert(net(-2), torch.zeros(1, 8), tmp_path / "m.onnx").path
    for count, told in (
        (1, "it is after 0, or in single elements (1 of 2 layers can be compared; 1 cannot)"),
        (2, "not located: no layer of the model is found in the file by the name of its weight"),
    ):
        inside = _in_a_branch(path, tmp_path / "inside.onnx", count)
        report = dkm.validate([inside], reference=net(1), inputs=torch.randn(2, 8))
        assert told in "; ".join(report.failed)
