"""What is in a checkpoint, tensor by tensor, and what its messages say to the letter."""

from __future__ import annotations

import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.model.checkpoint import read_palettes, save_palettes

SCALED = dkm.Recipe(dkm.PaletteSpec(2, per_channel_scale=True))


class Tied(nn.Module):
    """Two names for one dense matrix, beside a palettized one and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, 16)
        self.one = nn.Linear(16, 16, bias=False)
        self.two = nn.Linear(16, 16, bias=False)
        self.two.weight = self.one.weight
        self.register_buffer("parametrizations_seen", torch.arange(3.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(self.fc(x)))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    rules = [dkm.Rule("one.*", skip=True)]
    frozen = dkm.palettize(Tied(), dkm.Recipe(SCALED.default, rules))
    dkm.save(frozen, tmp_path / "m.safetensors")
    return frozen, tmp_path / "m.safetensors"


def refused(path, model):
    with pytest.raises(dkm.DkmError) as caught:
        dkm.load(path, model)
    return str(caught.value)


def test_a_tensor_of_two_names_is_stored_once_and_comes_back_under_both(saved):
    frozen, path = saved
    assert set(load_file(path)) == {
        "fc.bias",
        "fc.weight.indices",
        "fc.weight.lut",
        "fc.weight.scale",
        "one.weight",
        "parametrizations_seen",
    }
    loaded = dkm.load(path, Tied())
    assert loaded.two.weight is loaded.one.weight
    assert torch.equal(loaded.one.weight, frozen.one.weight)


def test_scales_come_back(saved):
    frozen, path = saved
    palette = dkm.palettes(frozen)["fc.weight"]
    assert palette.scale is not None
    assert dkm.palettes(dkm.load(path, Tied())) == {"fc.weight": palette}
    assert dkm.read_palettes(path) == {"fc.weight": palette}


def test_every_byte_has_a_kind_and_a_name(saved):
    path = saved[1]
    found = {
        (entry.kind, entry.name, entry.size_bytes) for entry in dkm.size_breakdown(path).entries
    }
    header = path.stat().st_size - sum(tensor.nbytes for tensor in load_file(path).values())
    assert found == {
        ("indices", "fc.weight", 32),
        ("lut", "fc.weight", 16),
        ("lut", "fc.weight", 64),
        ("dense", "fc.bias", 64),
        ("dense", "one.weight", 1024),
        ("dense", "parametrizations_seen", 12),
        ("graph", "header", header),
    }


def test_a_plain_file_has_a_ledger_of_dense_tensors(tmp_path):
    save_file({"a": torch.zeros(4)}, tmp_path / "plain.safetensors")
    entries = dkm.size_breakdown(tmp_path / "plain.safetensors").entries
    assert [(entry.kind, entry.name) for entry in entries] == [("dense", "a"), ("graph", "header")]


def test_palettes_alone_are_written_whole_and_replace_nothing(saved, tmp_path):
    palettes = dkm.palettes(saved[0])
    path = tmp_path / "palettes.safetensors"
    save_palettes(palettes, path)
    assert read_palettes(path) == palettes
    assert set(load_file(path)) == {f"fc.weight.{part}" for part in ("indices", "lut", "scale")}
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        save_palettes({}, path)
    assert path.read_bytes() == before


def test_a_model_without_palettes_is_told_what_to_do(tmp_path):
    told = "the model has no palettes; dkm.freeze or dkm.palettize it before saving"
    with pytest.raises(dkm.DkmError, match=f"^{re.escape(told)}$"):
        dkm.save(Tied(), tmp_path / "m.safetensors")


def test_what_does_not_belong_to_the_model_is_named_with_the_file(saved):
    path = saved[1]
    foreign = f"{path}: this checkpoint does not belong to the model: "
    bare, wide, other = Tied(), Tied(), Tied()
    del bare.parametrizations_seen
    wide.register_buffer("parametrizations_seen", torch.zeros(4))
    other.fc = nn.Linear(8, 12)
    assert refused(path, bare) == f"{foreign}the model lacks 'parametrizations_seen'"
    assert refused(path, wide) == (
        f"{foreign}parametrizations_seen has shape (3,) in it and (4,) in the model"
    )
    assert refused(path, other) == (
        f"{foreign}fc.weight has shape (16, 8) in it and (12, 8) in the model"
    )
    other.fc = nn.Identity()
    assert refused(path, other) == (
        f"{foreign}it has a palette for 'fc.weight', which the model lacks; give a plain model, "
        "neither prepared nor frozen"
    )
    more = Tied()
    more.register_buffer("more", torch.zeros(1))
    assert refused(path, more) == f"{foreign}the file lacks 'more'"


def test_floats_of_another_precision_are_taken_and_integers_are_not(saved):
    path = saved[1]
    half, whole = Tied(), Tied()
    half.one.weight.data = half.one.weight.data.half()
    whole.parametrizations_seen = torch.zeros(3, dtype=torch.int64)
    loaded = dkm.load(path, half)
    assert torch.equal(loaded.one.weight, saved[0].one.weight.half())
    assert refused(path, whole) == (
        f"{path}: this checkpoint does not belong to the model: parametrizations_seen is "
        "torch.float32 in it and torch.int64 in the model"
    )


def test_a_file_that_is_no_checkpoint_of_this_project_says_so(tmp_path):
    path = tmp_path / "plain.safetensors"
    save_file(Tied().state_dict() | {"two.weight": torch.zeros(2)}, path)
    assert refused(path, Tied()) == (
        f"{path}: not a palettized checkpoint (no dkm_deploy.palettes in its metadata); "
        "it must come from dkm.save"
    )


@pytest.mark.parametrize(
    ("layout", "told"),
    [
        ("{", "dkm_deploy.palettes: not JSON: Expecting property name"),
        ("[]", "dkm_deploy.palettes is []; it must be a mapping"),
        (
            '{"fc.weight": {"shape": [16, 8], "bits": "2", "axis": 0}}',
            "dkm_deploy.palettes['fc.weight'].bits is '2'; it must be an integer",
        ),
    ],
)
def test_forged_metadata_is_told_with_the_file(tmp_path, layout, told):
    path = tmp_path / "forged.safetensors"
    tensors = {"fc.weight.indices": torch.zeros(32, dtype=torch.uint8)}
    tensors["fc.weight.lut"] = torch.zeros(1, 1, 4, 1)
    save_file(tensors, path, {"dkm_deploy.palettes": layout})
    assert refused(path, Tied()).startswith(f"{path}: damaged palettes: {told}")
    if layout in ("{", "[]"):
        with pytest.raises(
            dkm.DkmError, match=f"^{re.escape(f'{path}: damaged palettes: {told}')}"
        ):
            dkm.size_breakdown(path)
