from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import dkm_deploy as dkm
from tests.models import MIXED, SmallNet, TiedNet, images, small_net


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    frozen = dkm.palettize(small_net(), MIXED)
    dkm.save(frozen, path)
    return frozen, path


def test_load_gives_the_same_model(saved):
    frozen, path = saved
    loaded = dkm.load(path, SmallNet())
    assert dkm.palettes(loaded) == dkm.palettes(frozen)
    assert torch.equal(loaded(images()), frozen(images()))
    assert not loaded.training


def test_the_model_given_to_load_is_left_alone(saved):
    model = SmallNet()
    weight = model.stem.weight.clone()
    dkm.load(saved[1], model)
    assert torch.equal(model.stem.weight, weight)


def test_indices_are_packed(saved):
    _, path = saved
    palettes, ledger = dkm.read_palettes(path), dkm.size_breakdown(path)
    assert palettes == dkm.palettes(saved[0])
    kinds = ledger.by_kind()
    assert kinds["indices"] == 216 * 3 // 8 + 40
    assert kinds["lut"] == 4 * (8 + 256)
    assert ledger.total_bytes == path.stat().st_size


def test_tied_and_grouped_and_vector_palettes_come_back(tmp_path):
    spec = dkm.PaletteSpec(bits=3, cluster_dim=2, axis=1, group_size=6)
    model = TiedNet()
    frozen = dkm.palettize(model, dkm.Recipe(dkm.PaletteSpec(2), [dkm.Rule("embed.*", spec)]))
    dkm.save(frozen, tmp_path / "m.safetensors")
    loaded = dkm.load(tmp_path / "m.safetensors", TiedNet())
    assert dkm.palettes(loaded) == dkm.palettes(frozen)
    ids = torch.arange(20).reshape(2, 10)
    assert torch.equal(loaded(ids), frozen(ids))
    assert torch.equal(loaded.out.weight, loaded.embed.weight)


def test_a_model_without_palettes_is_not_saved(tmp_path):
    with pytest.raises(dkm.DkmError, match="no palettes"):
        dkm.save(small_net(), tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


def test_saving_over_a_file_needs_force(saved):
    frozen, path = saved
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="already exists"):
        dkm.save(frozen, path)
    assert path.read_bytes() == before
    dkm.save(frozen, path, force=True)
    assert path.read_bytes() == before


def test_saving_into_a_file_as_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(dkm.DkmError, match="cannot make this folder: .*file is a file$"):
        dkm.save(dkm.palettize(small_net(), MIXED), tmp_path / "file" / "m.safetensors")


class Wider(SmallNet):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 6)


class Deeper(SmallNet):
    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(5, 5)


class Headless(SmallNet):
    def __init__(self):
        super().__init__()
        del self.head


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Wider, r"head\.weight has shape \(5, 8\) in it and \(6, 8\) in the model"),
        (Deeper, r"the file lacks 'extra\.bias'"),
        (Headless, r"it has a palette for 'head\.weight', which the model lacks"),
    ],
)
def test_a_checkpoint_of_another_model_says_how_it_differs(saved, other, message):
    with pytest.raises(dkm.DkmError, match=f"does not belong to the model: {message}"):
        dkm.load(saved[1], other())


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_named(saved, keep):
    path = saved[1]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(dkm.DkmError, match=r"model\.safetensors: not a whole safetensors file"):
        dkm.load(path, SmallNet())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: no such file"):
        dkm.load(tmp_path / "none.safetensors", SmallNet())


def test_a_plain_checkpoint_is_told_apart(tmp_path):
    save_file(small_net().state_dict(), tmp_path / "plain.safetensors")
    with pytest.raises(dkm.DkmError, match="not a palettized checkpoint"):
        dkm.load(tmp_path / "plain.safetensors", SmallNet())
    assert dkm.read_palettes(tmp_path / "plain.safetensors") == {}


@pytest.mark.parametrize(
    "layout",
    [
        "{",
        "[]",
        '{"stem.weight": {"shape": [8, 3, 3, 3], "bits": 9, "axis": 0}}',
        '{"stem.weight": {"shape": [8, 3, 3], "bits": 3, "axis": 0}}',
        '{"stem.weight": {"shape": [8, 3, 3, 3], "bits": 3, "axis": 7}}',
        '{"stem.weight": {"shape": "x", "bits": 3, "axis": 0}}',
        '{"stem.weight": {"bits": 3, "axis": 0}}',
        '{"none.weight": {"shape": [8, 3, 3, 3], "bits": 3, "axis": 0}}',
        '{"stem.weight": {"shape": [8, 3, 3, Infinity], "bits": 3, "axis": 0}}',
        '{"stem.weight": {"shape": [8, 3, 3, 4611686018427387904], "bits": 3, "axis": 0}}',
        '{"stem.weight": {"shape": [8, 3, 3, 3], "bits": 3, "axis": 0.0}}',
        "[" * 100_000,
    ],
)
def test_forged_metadata_is_one_line(saved, layout):
    path = saved[1]
    forge(path, layout)
    with pytest.raises(dkm.DkmError, match="damaged palettes"):
        dkm.load(path, SmallNet())


@pytest.mark.parametrize("layout", ["{", "[]", "[" * 100_000])
def test_a_ledger_of_forged_metadata_is_one_line(saved, layout):
    forge(saved[1], layout)
    with pytest.raises(dkm.DkmError, match="damaged palettes"):
        dkm.size_breakdown(saved[1])


def test_tensors_of_another_kind_are_refused(saved):
    path = saved[1]
    path.write_bytes(
        path.read_bytes().replace(b'"dtype":"F32","shape":[5]', b'"dtype":"I32","shape":[5]')
    )
    with pytest.raises(dkm.DkmError, match=r"head\.bias is torch\.int32 in it and torch\.float32"):
        dkm.load(path, SmallNet())


def forge(path, layout):
    """Put something else in place of what the checkpoint says of its palettes."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["dkm_deploy.palettes"] = layout
    forged = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(forged)) + forged + data[8 + size :])
