"""Tables of which a program reads some rows, known beforehand: rows as constants, palettes whole."""

from __future__ import annotations

import json
import struct
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from converters.coreml.read import ROWS_KEY, UNREAD_KEY
from dkm_deploy.ledger import size_on_disk
from dkm_deploy.palette import difference
from tests.converters.coreml_programs import operations, spec, without_decodes

ROWS = 12
SPECS = {
    "plain": dkm.PaletteSpec(bits=4),
    "odd": dkm.PaletteSpec(bits=5),
    "grouped": dkm.PaletteSpec(bits=2, group_size=2),
    "single": dkm.PaletteSpec(bits=2, group_size=1),
    "columns": dkm.PaletteSpec(bits=2, group_size=4, axis=1),
    "vectors": dkm.PaletteSpec(bits=2, cluster_dim=2),
    "wide": dkm.PaletteSpec(bits=2, cluster_dim=4, axis=1),
    "both": dkm.PaletteSpec(bits=3, cluster_dim=2, group_size=4),
}
SCALED = {"scaled": dkm.PaletteSpec(bits=2, per_channel_scale=True)}


class Tables(nn.Module):
    """``x`` plus the same rows of several tables of twelve, an output for each of these."""

    def __init__(self, names, positions):
        super().__init__()
        self.tables = nn.ModuleDict({name: nn.Embedding(ROWS, 8) for name in names})
        self.register_buffer("positions", torch.tensor(positions))

    def forward(self, x):
        return {name: x + table(self.positions) for name, table in self.tables.items()}


def _frozen(model, specs):
    rules = [dkm.Rule(f"tables.{name}.weight", spec) for name, spec in specs.items()]
    return dkm.palettize(model, dkm.Recipe(rules=rules))


def _tables(specs, positions):
    torch.manual_seed(0)
    model = Tables(specs, positions).eval()
    return model, _frozen(model, specs)


def _converted(model, frozen, inputs, folder, **options):
    """The palettized package, which has the dense one's operations and the frozen palettes."""
    dense = dkm.convert(model, inputs, folder / "dense.mlpackage", **options)
    artifact = dkm.convert(frozen, inputs, folder / "m.mlpackage", **options)
    assert without_decodes(operations(artifact)) == operations(dense)
    assert artifact.notes == () or "bits" in " ".join(artifact.notes)
    return artifact


def _same_palettes(path, frozen):
    found, expected = dkm.read_palettes(path), dkm.palettes(frozen)
    assert found.keys() == expected.keys()
    return [difference(palette, found[name]) for name, palette in expected.items()] == [
        None for _ in expected
    ]


def _compare(path, frozen, x, **limits):
    outputs, expected = dkm.Evaluator(path).run({"x": x.numpy()}), frozen(x)
    for name, output in outputs.items():
        torch.testing.assert_close(torch.tensor(output), expected[name], **limits)


EXACT, HALF = {"rtol": 1e-5, "atol": 1e-6}, {"rtol": 2e-3, "atol": 2e-3}


@pytest.mark.parametrize(
    ("positions", "options"),
    [
        ([[0, 1, 2, 3, 4, 5, 6, 7]], {"minimum_deployment_target": "iOS26"}),
        ([8, 9, 10, 11, 0, 1, 2, 3], {"compute_precision": "float32"}),
        ([[*range(12)]], {"minimum_deployment_target": "iOS26", "compute_precision": "float32"}),
    ],
)
def test_rows_are_a_constant_and_the_palette_stays_whole(tmp_path, positions, options):
    """Of the first, of some in another order, and of all rows."""
    specs = SPECS | (SCALED if options.get("minimum_deployment_target") == "iOS26" else {})
    model, frozen = _tables(specs, positions)
    x = torch.randn(1, np.size(positions), 8)
    artifact = _converted(model, frozen, x, tmp_path, **options)
    assert operations(artifact)["gather"] == 0
    assert _same_palettes(artifact.path, frozen)
    _compare(artifact.path, frozen, x, **(EXACT if "compute_precision" in options else HALF))
