from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.formats.ledger import Ledger, LedgerEntry
from dkm_deploy.validation.measures import size
from dkm_deploy.validation.measures.size import (
    bits_per_weight,
    deflated_bytes,
    half_bytes,
    ideal_bytes,
    tensor_bytes,
)
from tests.models import MIXED, images, small_net


@pytest.fixture(scope="module")
def frozen():
    return dkm.palettize(small_net(), MIXED)


def test_half_a_model_is_its_floats_in_two_bytes():
    model = small_net()
    counter = 8  # int64, of the BatchNorm
    assert half_bytes(model) == (tensor_bytes(model) - counter) / 2 + counter
    assert half_bytes(model.half()) == tensor_bytes(model)


def test_palettes_count_packed_and_the_rest_as_it_is(frozen):
    found = dkm.palettes(frozen)
    packed = 216 * 3 // 8 + 40 + 4 * (8 + 256)  # stem in 3 bits, head in 8, with their LUTs
    assert sum(p.size for p in found.values()) == 216 + 40
    dense = tensor_bytes(small_net()) - 4 * (216 + 40)
    assert tensor_bytes(frozen) == packed + dense
    counter = 8
    assert half_bytes(frozen) == packed + (dense - counter) / 2 + counter


@pytest.mark.parametrize("name", ["m.onnx", "m.mlpackage"])
def test_deflate_gives_what_a_zip_archive_holds(frozen, tmp_path, name):
    path = dkm.convert(frozen, images(1), tmp_path / name).path
    parts = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    with zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts:
            archive.write(part)
        expected = sum(item.compress_size for item in archive.infolist())
    assert deflated_bytes(dkm.size_breakdown(path)) == expected


def test_data_beside_a_file_is_deflated_too(tmp_path):
    main, beside = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    main.write_bytes(bytes(1000))
    beside.write_bytes(np.random.default_rng(0).bytes(5000))
    alone = deflated_bytes(Ledger(main, ()))
    assert alone < 30
    assert deflated_bytes(Ledger(main, (), (beside,))) - alone > 4900


def test_a_large_file_is_deflated_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(size, "_CHUNK", 1000)
    data = np.random.default_rng(0).integers(0, 9, 100_000, dtype=np.uint8).tobytes()
    (tmp_path / "m.onnx").write_bytes(data)
    with zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.onnx", data)
    expected = archive.infolist()[0].compress_size
    assert deflated_bytes(Ledger(tmp_path / "m.onnx", ())) == expected


def test_bits_of_a_weight_are_those_of_its_palette_or_its_type():
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 2).half()).eval()
    weights = 4 * 16 * 8 + 2 * 8 * 2  # neither a bias nor a batch normalization
    assert bits_per_weight(model) == 8 * weights / (16 * 8 + 8 * 2)
    rules = [dkm.Rule("0.*", dkm.PaletteSpec(2)), dkm.Rule("2.*", dkm.PaletteSpec(4))]
    frozen = dkm.palettize(model.float(), dkm.Recipe(rules=rules))
    bits = 128 * 2 + 4 * 32 + 16 * 4 + 16 * 32  # indices and LUTs
    assert bits_per_weight(frozen) == bits / (128 + 16)
    assert bits_per_weight(nn.BatchNorm1d(8)) is None


def test_floats_of_any_width_are_halved_and_whole_numbers_are_not():
    model = nn.Module()
    for dtype in (torch.float64, torch.bfloat16, torch.float8_e5m2, torch.int64, torch.int8):
        model.register_buffer(f"of {dtype}".replace(".", " "), torch.zeros(3).to(dtype))
    assert tensor_bytes(model) == 3 * (8 + 2 + 1 + 8 + 1)
    assert half_bytes(model) == 3 * (2 + 2 + 1 + 8 + 1)


def test_entries_that_only_a_file_has_are_not_ideal():
    """Indices of 3 bits that a file holds in 4, with a LUT and a scale of float16."""
    indices = np.zeros((4, 6), np.uint8)
    scale = np.ones((4, 1), np.float16)
    wide = dkm.Palette(indices, np.ones((2, 1, 16, 1), np.float16), scale=scale)
    narrow = dkm.Palette(indices, np.ones((2, 1, 8, 1), np.float32))
    ledger = Ledger(Path("m"), (LedgerEntry("dense", "b", 100), LedgerEntry("graph", "g", 7)))
    expected = 24 * 3 // 8 + 2 * 8 * 2 + 4 * 2 + 100
    assert ideal_bytes(ledger, {"w": wide}, {"w": narrow}) == expected
    own = 24 * 4 // 8 + 2 * 16 * 2 + 4 * 2 + 100
    assert ideal_bytes(ledger, {"w": wide}, {}) == own
    assert ideal_bytes(ledger, {"w": narrow}, {"w": wide}) == 24 * 4 // 8 + 2 * 8 * 4 + 100
    assert type(ideal_bytes(ledger, {"w": wide}, {})) is int


def test_every_file_of_a_folder_is_deflated(tmp_path):
    (tmp_path / "m/inside").mkdir(parents=True)
    for name in ("a", "inside/b"):
        (tmp_path / "m" / name).write_bytes(b"same")
    (tmp_path / "alone").write_bytes(b"same")
    one = deflated_bytes(Ledger(tmp_path / "alone", ()))
    assert deflated_bytes(Ledger(tmp_path / "m", ())) == 2 * one


def test_the_ideal_is_palettes_and_dense_weights(tmp_path):
    model = nn.Sequential(nn.Linear(16, 8)).eval()
    frozen = dkm.palettize(model, dkm.Recipe.uniform(3))
    path = dkm.convert(frozen, (images(1).reshape(-1, 16)[:1],), tmp_path / "m.onnx").path
    ledger, stored = dkm.size_breakdown(path), dkm.read_palettes(path)
    expected = 16 * 8 * 3 // 8 + 8 * 4 + 8 * 4  # indices, LUT, bias
    assert ideal_bytes(ledger, stored, dkm.palettes(frozen)) == expected
    assert expected < ledger.total_bytes


def test_indices_that_a_file_holds_wider_are_not_ideal(tmp_path):
    model = nn.Sequential(nn.Linear(64, 64, bias=False)).eval()
    frozen = dkm.palettize(model, dkm.Recipe.uniform(5))
    path = dkm.convert(frozen, (images(1).reshape(-1, 64)[:1],), tmp_path / "m.mlpackage").path
    ledger, stored = dkm.size_breakdown(path), dkm.read_palettes(path)
    assert {p.bits for p in stored.values()} == {6}
    assert {p.lut.dtype for p in stored.values()} == {np.dtype(np.float16)}
    ideal = ideal_bytes(ledger, stored, dkm.palettes(frozen))
    assert ideal == 64 * 64 * 5 // 8 + 32 * 2 + ledger.by_kind()["dense"]
