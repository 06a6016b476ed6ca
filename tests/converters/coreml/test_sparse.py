"""Core ML's sparse form of palettes with many zeros: smaller files, and the same palettes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from converters.coreml.sparse_form import sparse_indices
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.formats.mlpackage.sparse_palette import leave_out, put_back, zero_entry
from tests.converters.coreml.programs import First, operations
from tests.formats.mlpackage.packages import edit
from tests.models import Beside

SPARSE, DENSE = "constexpr_lut_to_sparse", "constexpr_lut_to_dense"
SPECS = [
    dkm.PaletteSpec(4, keep_zeros=True),
    dkm.PaletteSpec(5, keep_zeros=True),
    dkm.PaletteSpec(4, group_size=32, keep_zeros=True),
    dkm.PaletteSpec(6, cluster_dim=2, axis=1, keep_zeros=True),
]
SCALED = dkm.PaletteSpec(4, per_channel_scale=True, keep_zeros=True)


def pruned(layer, share=0.9):
    """Its weight with that share of zeros, two by two in both dimensions."""
    weight = layer.weight.detach()
    rows, columns = weight.shape
    kept = torch.rand(rows // 2, columns // 2, generator=torch.Generator().manual_seed(1)) >= share
    layer.weight.data.mul_(kept.repeat_interleave(2, 0).repeat_interleave(2, 1))
    return layer


def frozen_layers(specs):
    torch.manual_seed(0)
    model = Beside([pruned(nn.Linear(96, 128)) for _ in specs]).eval()
    rules = [dkm.Rule(f"members.{i}.weight", spec) for i, spec in enumerate(specs)]
    return dkm.palettize(model, dkm.Recipe(rules=rules))


@pytest.mark.parametrize(
    ("precision", "target", "specs"),
    [("float16", "iOS18", SPECS), ("float32", "iOS26", [SCALED])],
)
def test_palettes_are_the_frozen_ones_bit_for_bit(tmp_path, precision, target, specs):
    frozen, x = frozen_layers(specs), torch.randn(2, 96)
    options = {"minimum_deployment_target": target, "compute_precision": precision}
    path = dkm.convert(frozen, x, tmp_path / "m.mlpackage", **options).path
    assert operations(path)[SPARSE] == len(specs)
    found = dkm.read_palettes(path)
    for name, palette in dkm.palettes(frozen).items():
        assert found[name] == palette.astype(np.dtype(precision)).widen(found[name].bits)
    assert dkm.validate([path], reference=frozen, inputs=x)


def test_all_bytes_are_accounted_for_and_fewer(tmp_path):
    frozen, x = frozen_layers(SPECS[:1]), torch.randn(1, 96)
    made = {
        target: dkm.convert(
            frozen, x, tmp_path / f"{target}.mlpackage", minimum_deployment_target=target
        )
        for target in ("iOS17", "iOS18")
    }
    (palette,) = dkm.palettes(frozen).values()
    kept = np.count_nonzero(palette.indices != 15)
    sparse = made["iOS18"].ledger.by_kind()
    assert sparse["indices"] == 96 * 128 // 8 + -(-kept // 2)
    assert sparse["lut"] == 16 * 2
    assert sparse["dense"] == 128 * 2  # the bias
    assert made["iOS18"].size_bytes == size_on_disk(made["iOS18"].path)
    assert made["iOS18"].size_bytes < made["iOS17"].size_bytes - 3000
    assert operations(made["iOS17"].path)[DENSE] == 1


def test_few_zeros_stay_in_the_dense_form(tmp_path):
    torch.manual_seed(0)
    model = pruned(nn.Linear(96, 128), share=0.2)
    frozen = dkm.palettize(model, dkm.PaletteSpec(4, keep_zeros=True))
    path = dkm.convert(frozen, torch.randn(1, 96), tmp_path / "m.mlpackage").path
    assert (operations(path)[SPARSE], operations(path)[DENSE]) == (0, 1)


def test_equal_weights_are_stored_once(tmp_path):
    torch.manual_seed(0)
    one, other = pruned(nn.Linear(96, 96)), nn.Linear(96, 96)
    other.weight.data.copy_(one.weight)
    frozen = dkm.palettize(nn.Sequential(one, other).eval(), 4)
    artifact = dkm.convert(frozen, torch.randn(1, 96), tmp_path / "m.mlpackage")
    kept = np.count_nonzero(one.weight.detach())
    assert artifact.ledger.by_kind()["indices"] == 96 * 96 // 8 + -(-kept // 2)
    assert dkm.read_palettes(artifact.path).keys() == {"0.weight", "1.weight"}


def test_8_bit_luts_gates_in_order_and_rows_of_a_table(tmp_path):
    torch.manual_seed(0)
    lstm = nn.LSTM(32, 64)
    lstm.weight_hh_l0.data.mul_(torch.rand(256, 64) > 0.9)
    table = pruned(nn.Embedding(256, 64))
    for model, x, options in (
        (First(lstm), torch.randn(3, 1, 32), {}),
        (table, torch.arange(6)[None], {}),
        (pruned(nn.Linear(96, 128)), torch.randn(1, 96), {"lut_dtype": "int8"}),
    ):
        frozen = dkm.quantize_luts(dkm.palettize(model.eval(), 4))
        path = tmp_path / f"{type(model).__name__}.mlpackage"
        options = {"compute_precision": "float32", **options}
        dkm.convert(frozen, x, path, **options)
        assert operations(path)[SPARSE] == 1
        assert dkm.read_palettes(path) == dkm.palettes(frozen)


def without_lut(model):
    """Take the LUT from the sparse operation."""
    (function,) = model.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    (sparse,) = (operation for operation in block.operations if operation.type == SPARSE)
    del sparse.inputs["lut"].arguments[:]


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = dkm.convert(frozen_layers(SPECS[:1]), torch.randn(1, 96), tmp_path / "m.mlpackage").path
    edit(path, without_lut)
    for read in (dkm.read_palettes, dkm.size_breakdown):
        with pytest.raises(dkm.DkmError, match="constexpr_lut_to_sparse lacks input 'lut'"):
            read(path)


def test_what_is_left_out_is_put_back():
    indices = np.array([[3, 0, 1], [1, 1, 2]], np.uint8)
    mask, others = leave_out(indices, 1)
    assert mask.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert others.tolist() == [3, 0, 2]
    assert np.array_equal(put_back(others, mask, 1), indices)
    with pytest.raises(ValueError, match="2 values for a mask of 3 places"):
        put_back(others[:2], mask, 1)


def test_a_zero_is_one_in_all_luts_and_positive():
    luts = np.array([[[0, 1, 0, 0]], [[-0.0, 2, 5, 0]]], np.float32)[..., None]
    assert zero_entry(luts) == 3
    assert zero_entry(luts[:, :, :3]) is None
    assert zero_entry(np.zeros((1, 1, 2, 2), np.float16)) == 0


def test_a_weight_of_zeros_alone_has_no_sparse_form():
    zeros = dkm.Palette(np.zeros((256, 256), np.uint8), np.zeros((1, 1, 4, 1), np.float32))
    assert sparse_indices(zeros) is None
