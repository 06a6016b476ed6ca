from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from torch import nn

import dkm_deploy as dkm
from dkm_deploy.ledger import Ledger
from dkm_deploy.validation.size import deflated_bytes, half_bytes, ideal_bytes, tensor_bytes
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
    assert deflated_bytes(dkm.ledger(path)) == expected


def test_data_beside_a_file_is_deflated_too(tmp_path):
    main, beside = tmp_path / "m.onnx", tmp_path / "m.onnx.data"
    main.write_bytes(bytes(1000))
    beside.write_bytes(np.random.default_rng(0).bytes(5000))
    alone = deflated_bytes(Ledger(main, ()))
    assert alone < 30
    assert deflated_bytes(Ledger(main, (), (beside,))) - alone > 4900


def test_the_ideal_is_palettes_and_dense_weights(tmp_path):
    model = nn.Sequential(nn.Linear(16, 8)).eval()
    frozen = dkm.palettize(model, dkm.Recipe.uniform(3))
    path = dkm.convert(frozen, (images(1).reshape(-1, 16)[:1],), tmp_path / "m.onnx").path
    ledger, stored = dkm.ledger(path), dkm.read_palettes(path)
    expected = 16 * 8 * 3 // 8 + 8 * 4 + 8 * 4  # indices, LUT, bias
    assert ideal_bytes(ledger, stored, dkm.palettes(frozen)) == expected
    assert expected < ledger.total_bytes


def test_indices_that_a_file_holds_wider_are_not_ideal(tmp_path):
    model = nn.Sequential(nn.Linear(64, 64, bias=False)).eval()
    frozen = dkm.palettize(model, dkm.Recipe.uniform(5))
    path = dkm.convert(frozen, (images(1).reshape(-1, 64)[:1],), tmp_path / "m.mlpackage").path
    ledger, stored = dkm.ledger(path), dkm.read_palettes(path)
    assert {p.bits for p in stored.values()} == {6}
    assert {p.lut.dtype for p in stored.values()} == {np.dtype(np.float16)}
    ideal = ideal_bytes(ledger, stored, dkm.palettes(frozen))
    assert ideal == 64 * 64 * 5 // 8 + 32 * 2 + ledger.by_kind()["dense"]
