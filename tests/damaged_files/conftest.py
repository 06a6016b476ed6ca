"""One sound file of each kind."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import dkm_deploy as dkm
from tests.converters.coreai.assets import extra
from tests.damaged_files.acts import IDS, RECIPE, Net

BUDGET = """
[[files]]
match = "*.onnx"
max_bytes = "3.4MB"
base_bytes = 1_000
max_growth = "1%"

[[files]]
match = "ios/*.mlpackage"
max_bytes = 5_000
"""


@pytest.fixture(scope="package")
def sound(tmp_path_factory):
    """One file of each kind, with palettes of every layout."""
    folder = tmp_path_factory.mktemp("sound")
    torch.manual_seed(0)
    model = Net().eval()
    frozen = dkm.palettize(model, RECIPE)
    for name in ("m.onnx", "m.ort", "m.mlpackage"):
        dkm.convert(frozen, IDS, folder / name)
    dkm.convert(frozen, IDS, folder / "apart.onnx", external_data=True)
    dkm.convert(model, IDS, folder / "dense.onnx")
    sparse = dkm.palettize(nn.Linear(96, 128).apply(prune), dkm.PaletteSpec(4))
    dkm.convert(sparse, torch.randn(1, 96), folder / "sparse.mlpackage")
    dkm.save(frozen, folder / "m.safetensors")
    labels = torch.zeros(2, dtype=torch.int64)
    dkm.write_golden(folder / "golden", reference=frozen, original=model, inputs=IDS, labels=labels)
    schedule = dkm.Schedule(steps=5, end=0.1)
    dkm.Recipe(RECIPE.default, RECIPE.rules, schedule).save(folder / "recipe.toml")
    (folder / "budget.toml").write_text(BUDGET)
    report = dkm.validate(
        [folder / "m.onnx"], reference=frozen, original=model, inputs=IDS, labels=labels
    )
    report.to_json(folder / "report.json")
    shutil.copytree(folder / "golden", folder / "device.golden")
    returned(folder / "device", folder / "golden", frozen(IDS))
    return folder


def prune(layer: nn.Linear) -> None:
    """Leave a tenth of its weight, so that Core ML's sparse form is the smaller one."""
    layer.weight.data.mul_(torch.rand(layer.weight.shape) > 0.9)


def returned(folder: Path, golden: Path, scores: Tensor) -> None:
    """What a device would give for a bundle."""
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "0.bin").write_bytes(scores.detach().numpy().tobytes())
    shape = list(scores.shape)
    output = {"name": "output", "dtype": "float32", "shape": shape, "raw": "raw/0.bin"}
    told = {"format": "dkm-deploy device outputs", "version": 1, "runtime": "a phone"}
    told |= {"golden": hashlib.sha256((golden / "SHA256SUMS").read_bytes()).hexdigest()}
    (folder / "outputs.json").write_text(json.dumps(told | {"outputs": [output]}))


@pytest.fixture(scope="package")
def asset(sound):
    """An asset beside them, where the extra is installed."""
    extra()
    dkm.convert(dkm.load(sound / "m.safetensors", Net()), IDS, sound / "m.aimodel")


@pytest.fixture
def copied(sound, request, tmp_path):
    """A copy, alone in a folder that has others beside it."""

    def of(name):
        if name == "m.aimodel":
            request.getfixturevalue("asset")
        (tmp_path / "in").mkdir()
        shutil.copytree(sound, tmp_path / "beside")
        for source in sound.glob(f"{name}*"):
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, tmp_path / "in" / source.name)
        return tmp_path / "in" / name

    return of
