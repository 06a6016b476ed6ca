"""The same graph in fewer bytes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.runtimes.onnx_runtime.taps import find_taps
from tests.models import images
from tests.named_files import short_and_full


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return short_and_full(tmp_path_factory.mktemp("pair"), ".onnx", 2)


def test_files_differ_in_names_alone(pair):
    frozen, files = pair
    graphs = {names: onnx.load(file.path).graph for names, file in files.items()}
    kinds = [[node.op_type for node in graph.node] for graph in graphs.values()]
    assert kinds[0] == kinds[1]
    outputs = [_run(file.path, images(2).numpy()) for file in files.values()]
    assert outputs[0].tobytes() == outputs[1].tobytes()
    palettes = [dkm.read_palettes(file) for file in files.values()]
    assert palettes[0] == palettes[1] == dkm.palettes(frozen)
    parts = [Counter(file.ledger.by_kind()) for file in files.values()]
    assert {kind for kind in parts[0] if parts[0][kind] != parts[1][kind]} == {"graph"}
    assert parts[0]["graph"] < 0.7 * parts[1]["graph"]


def test_what_files_are_read_by_keeps_its_name(pair):
    frozen, files = pair
    held = {t.name for t in onnx.load(files["short"].path).graph.initializer}
    made = {n for node in onnx.load(files["short"].path).graph.node for n in node.output}
    for weight in dkm.palettes(frozen):
        assert f"{weight}.lut" in held
        assert weight in made
    dense = {name for name, _ in frozen.named_parameters() if "parametrizations" not in name}
    assert dense <= held
    assert max(len(name) for name in made - dkm.palettes(frozen).keys() - {"output"}) <= 2


def test_layers_are_found_by_either(pair):
    frozen, files = pair
    weights = dkm.palettes(frozen)
    taps = [find_taps(onnx.load(file.path).graph, weights) for file in files.values()]
    found = [[tap.weight for tap in each] for each in taps]
    assert found[0] == found[1]
    assert set(found[0]) == weights.keys()
    report = dkm.validate(list(files.values()), reference=frozen, inputs=images(2))
    assert report, report.failed


def test_short_names_are_none_of_the_models(tmp_path):
    """An input, a parameter and an output that are called as short names are."""

    class Letters(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(16, 16)), nn.Parameter(torch.randn(16))

        def forward(self, c):
            return {"d": torch.tanh(c @ self.a + self.b) * 2}

    frozen = dkm.palettize(Letters().eval(), 2)
    file = dkm.convert(frozen, torch.randn(3, 16), tmp_path / "m.onnx")
    assert dkm.validate([file], reference=frozen, inputs=torch.randn(3, 16))


def test_attributes_that_say_the_default_are_left_out(tmp_path):
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, 2, 1, 2, 4), nn.Softmax(1), nn.MaxPool2d(2, 1)
    ).eval()
    path = dkm.convert(layers, torch.randn(1, 3, 16, 16), tmp_path / "m.onnx").path
    first, second, softmax, pool = (
        {a.name for a in node.attribute} for node in onnx.load(path).graph.node
    )
    assert first == {"kernel_shape"}
    assert second == {"kernel_shape", "strides", "pads", "dilations", "group"}
    assert softmax == {"axis"}
    assert pool == {"kernel_shape"}


def test_another_kind_of_names_is_refused(tmp_path):
    with pytest.raises(dkm.DkmError, match="names is 'long'; it must be short or full"):
        dkm.convert(nn.Linear(4, 4).eval(), torch.ones(1, 4), tmp_path / "m.onnx", names="long")


def _run(path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {session.get_inputs()[0].name: x})[0]
