"""Every width, granularity and target: palettes bit for bit, and the bytes of ``weight.bin``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.conversion.registry import target_named
from dkm_deploy.palette import difference
from tests.models import Beside

LAYOUTS = [
    {},
    {"group_size": 8},
    {"group_size": 8, "axis": 1},
    {"cluster_dim": 2},
    {"cluster_dim": 2, "axis": 1},
    {"cluster_dim": 2, "group_size": 16},
    {"cluster_dim": 2, "group_size": 16, "axis": 1},
    {"per_channel_scale": True},
    {"per_channel_scale": True, "group_size": 8},
]
SPECS = [dkm.PaletteSpec(bits=bits, **layout) for bits in range(1, 9) for layout in LAYOUTS]
SCALARS, ALL = 8, 8 * 9
LARGE_LUTS = 2 * 5  # with a scale, from 4 bits on: a LUT is as large as a row of 16 dense weights
HELD = {"iOS16": SCALARS, "iOS17": SCALARS, "iOS18": ALL - LARGE_LUTS, "iOS26": ALL}
TWINS = {"iOS16": "macOS13", "iOS17": "macOS14", "iOS18": "macOS15", "iOS26": "macOS26"}
SHAPE = (32, 16)
LACKING = {"iOS16": {3: 4, 5: 6, 7: 8}, "iOS17": {3: 4, 5: 6, 7: 8}}
WIDER = {5: 6, 7: 8}  # what no target has, and what it is stored as
RECORD = 128  # bytes that weight.bin may hold beyond the ideal for each tensor


@pytest.fixture(scope="module")
def layers():
    """A frozen layer for each spec."""
    torch.manual_seed(0)
    model = Beside([nn.Linear(SHAPE[1], SHAPE[0]) for _ in SPECS]).eval()
    with torch.no_grad():
        for layer in model.members:
            layer.weight[3] = 0  # where there is a scale, it is 0
    rules = [dkm.Rule(f"members.{i}.weight", spec) for i, spec in enumerate(SPECS)]
    return dkm.palettize(model, dkm.Recipe(rules=rules)).members


def _refusals(target):
    return [target_named(f"coreml:{target}").refuse(spec, SHAPE) for spec in SPECS]


def _held(layers, target):
    """The layers that a target holds, in one model."""
    refusals = _refusals(target)
    pairs = zip(layers, refusals, strict=True)
    return Beside([layer for layer, refusal in pairs if refusal is None]).eval()


@pytest.mark.parametrize(
    ("target", "precision"),
    [
        ("iOS16", "float16"),
        ("iOS26", "float32"),
        *(pytest.param(n, "float16", marks=pytest.mark.slow) for n in ("iOS17", "iOS18", "iOS26")),
        pytest.param("iOS16", "float32", marks=pytest.mark.slow),
    ],
)
def test_palettes_and_bytes(tmp_path, layers, target, precision):
    frozen = _held(layers, target)
    assert len(frozen.members) == HELD[target]
    options = {"minimum_deployment_target": target, "compute_precision": precision}
    artifact = dkm.convert(frozen, torch.randn(1, SHAPE[1]), tmp_path / "m.mlpackage", **options)
    stored, palettes = dkm.read_palettes(artifact), dkm.palettes(frozen)
    assert stored.keys() == palettes.keys()
    wider = LACKING.get(target, WIDER)
    for name, palette in palettes.items():
        assert stored[name].bits == wider.get(palette.bits, palette.bits)
        assert stored[name].lut.dtype == np.dtype(precision)
        assert difference(palette, stored[name]) is None
    assert artifact.ledger.by_kind()["indices"] == sum(map(_index_bytes, stored.values()))
    dense = sum(p.numel() * np.dtype(precision).itemsize for p in frozen.parameters())
    ideal = dense + sum(_bytes(palette) for palette in stored.values())
    data = (artifact.path / "Data/com.apple.CoreML/weights/weight.bin").read_bytes()
    tensors = int.from_bytes(data[:4], "little")
    assert len(data) <= ideal + RECORD * tensors


@pytest.mark.parametrize("target", TWINS)
def test_a_mac_holds_what_its_phone_does(target):
    held = [[refusal is None for refusal in _refusals(name)] for name in (target, TWINS[target])]
    assert held[0] == held[1]
    assert sum(held[0]) == HELD[target]


def _bytes(palette):
    """Indices of the stored width, LUTs and scale with nothing around them."""
    return _index_bytes(palette) + palette.lut_bytes


def _index_bytes(palette):
    return -(-palette.indices.size * palette.bits // 8)
