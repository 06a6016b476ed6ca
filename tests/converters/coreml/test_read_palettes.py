"""Palettes and ledgers of Core ML packages, read back from their bytes."""

import json

import numpy as np
import pytest

from converters.coreml.reading.ledger import ledger
from converters.coreml.reading.read_palettes import (
    ORDERS_KEY,
    SAME_KEY,
    STACKED_KEY,
    TRANSPOSED_KEY,
    read_palettes,
)
from dkm_deploy.errors import DkmError
from dkm_deploy.formats.ledger import size_on_disk
from dkm_deploy.formats.mlpackage.package import WEIGHT_NAMES_KEY
from dkm_deploy.formats.mlpackage.proto import model_class
from dkm_deploy.formats.mlpackage.weight_blobs import ALIGNMENT
from dkm_deploy.packing import pack
from dkm_deploy.palette import Palette
from tests.formats.mlpackage import packages
from tests.formats.mlpackage.packages import mb, types

rng = np.random.default_rng(3)


def save(path, body, shape, target="iOS18", names=None):
    """Write a program; ``names`` go where the converter puts the parameter names."""
    packages.save(path, body, shape, target=target)
    if names is not None:
        put_names(path, json.dumps(names))
    return path


def put_names(path, text, key=WEIGHT_NAMES_KEY):
    file = path / "Data/com.apple.CoreML/model.mlmodel"
    model = model_class().FromString(file.read_bytes())
    model.description.metadata.userDefined[key] = text
    file.write_bytes(model.SerializeToString())


def palette(bits, shape, groups, vector=1, axis=0, dtype=np.float32):
    indices = rng.integers(0, 2**bits, shape).astype(np.uint8)
    return Palette(indices, rng.standard_normal((*groups, 2**bits, vector)).astype(dtype), axis)


def decoded(made, name):
    dtype = types.nptype_from_builtin(types.string_to_builtin(f"uint{made.bits}"))
    given = {"vector_axis": np.int32(made.axis)} if made.cluster_dim > 1 else {}
    return mb.constexpr_lut_to_dense(
        indices=made.indices.astype(dtype), lut=made.lut, name=name, **given
    )


MADE = {
    "a": palette(4, (16, 8), (1, 1)),
    "b": palette(2, (8, 16), (2, 1)),
    "c": palette(3, (4, 8), (1, 1), vector=2, axis=0),
    "d": palette(6, (8, 4), (1, 1), vector=2, axis=1),
}
BIAS = np.linspace(-1, 1, 16, dtype=np.float32)


def mlp(x):
    x = mb.linear(x=x, weight=decoded(MADE["a"], "a"), bias=BIAS, name="first")
    x = mb.linear(x=x, weight=decoded(MADE["b"], "b"))
    x = mb.linear(x=x, weight=decoded(MADE["c"], "c"))
    return mb.linear(x=x, weight=decoded(MADE["d"], "d"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    names = {"a": "net.0.weight", "b": "net.1.weight"}
    return save(tmp_path_factory.mktemp("mlp") / "m.mlpackage", mlp, (1, 8), names=names)


def test_palettes_by_parameter_name_or_their_own(package):
    expected = {
        "net.0.weight": MADE["a"],
        "net.1.weight": MADE["b"],
        "c": MADE["c"],
        "d": MADE["d"],
    }
    assert read_palettes(package) == expected


def test_ledger_accounts_for_every_byte(package):
    found = ledger(package)
    assert found.total_bytes == size_on_disk(package)
    sizes = {(entry.kind, entry.name): entry.size_bytes for entry in found.entries}
    assert sizes["indices", "net.0.weight"] == 16 * 8 * 4 // 8
    assert sizes["indices", "net.1.weight"] == 8 * 16 * 2 // 8
    assert sizes["indices", "c"] == 4 * 8 * 3 // 8
    assert sizes["indices", "d"] == 8 * 4 * 6 // 8
    assert sizes["lut", "net.0.weight"] == 16 * 4
    assert sizes["lut", "net.1.weight"] == 2 * 4 * 4  # written in the program: 8 values
    assert sizes["lut", "c"] == 8 * 2 * 4
    assert sizes["lut", "d"] == 64 * 2 * 4
    dense = {name: size for (kind, name), size in sizes.items() if kind == "dense"}
    assert [*dense.values()] == [16 * 4]
    assert "first" in next(iter(dense))
    manifest = (package / "Manifest.json").stat().st_size
    assert sizes["metadata", "Manifest.json"] == manifest
    blobs = 4 + 3 + 1
    assert found.by_kind()["padding"] <= ALIGNMENT + blobs * (2 * ALIGNMENT - 1)
    model = package / "Data/com.apple.CoreML/model.mlmodel"
    assert found.by_kind()["graph"] == model.stat().st_size - sizes["lut", "net.1.weight"]


def test_a_dense_file(tmp_path):
    weight = rng.standard_normal((16, 8)).astype(np.float32)
    path = save(tmp_path / "m.mlpackage", lambda x: mb.linear(x=x, weight=weight), (1, 8))
    assert read_palettes(path) == {}
    kinds = ledger(path).by_kind()
    assert kinds["dense"] >= weight.nbytes
    assert kinds["indices"] == kinds["lut"] == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_ios16_form(tmp_path, bits):
    made = palette(bits, (20, 10), (1, 1))

    def body(x):
        weight = mb.constexpr_lut_to_dense(
            indices=pack(made.indices, bits),
            lut=made.lut.reshape(-1),
            shape=np.array(made.shape, np.uint32),
            name="w",
        )
        return mb.linear(x=x, weight=weight)

    path = save(tmp_path / "m.mlpackage", body, (1, 10), "iOS16")
    assert read_palettes(path) == {"w": made}
    sizes = {(e.kind, e.name): e.size_bytes for e in ledger(path).entries}
    assert sizes["indices", "w"] == 20 * 10 * bits // 8
    assert sizes["lut", "w"] == 4 * 2**bits


def test_int8_lut_is_dequantised(tmp_path):
    indices = rng.integers(0, 16, (16, 8)).astype(np.uint8)
    codes = rng.integers(-128, 128, (1, 1, 16, 1)).astype(np.int8)
    scale = np.full((1, 1, 1, 1), 0.05, np.float16)

    def body(x):
        lut = mb.constexpr_blockwise_shift_scale(data=codes, scale=scale)
        dtype = types.nptype_from_builtin(types.uint4)
        weight = mb.constexpr_lut_to_dense(indices=indices.astype(dtype), lut=lut, name="w")
        return mb.matmul(x=x, y=mb.cast(x=weight, dtype="fp32"), transpose_y=True)

    path = save(tmp_path / "m.mlpackage", body, (1, 8))
    lut = (codes.astype(np.float32) * np.float32(np.float16(0.05))).astype(np.float16)
    assert read_palettes(path) == {"w": Palette(indices, lut)}
    assert sum(e.size_bytes for e in ledger(path).entries if e.kind == "lut") == 16 + 2


def test_one_palette_used_twice(tmp_path):
    made = palette(4, (8, 8), (1, 1))

    def body(x):
        shared = decoded(made, "w")
        return mb.linear(x=mb.linear(x=x, weight=shared), weight=shared)

    path = save(tmp_path / "m.mlpackage", body, (1, 8))
    assert read_palettes(path) == {"w": made}


def two(first, second):
    def body(x):
        x = mb.linear(x=x, weight=decoded(first, "v"))
        return mb.linear(x=x, weight=decoded(second, "w"))

    return body


def test_one_parameter_decoded_twice_is_one_palette(tmp_path):
    made, names = palette(4, (8, 8), (1, 1)), {"v": "tied", "w": "tied"}
    path = save(tmp_path / "m.mlpackage", two(made, made), (1, 8), names=names)
    assert read_palettes(path) == {"tied": made}
    assert ledger(path).total_bytes == size_on_disk(path)


def test_two_palettes_of_one_name_are_refused(tmp_path):
    body = two(palette(4, (8, 8), (1, 1)), palette(4, (8, 8), (1, 1)))
    path = save(tmp_path / "m.mlpackage", body, (1, 8), names={"v": "tied", "w": "tied"})
    with pytest.raises(DkmError, match=r"m\.mlpackage: two different palettes are called 'tied'"):
        read_palettes(path)


@pytest.mark.parametrize("text", ["no json", "[1]", '{"a": 1}'])
def test_damaged_names_are_refused(tmp_path, text):
    path = save(tmp_path / "m.mlpackage", mlp, (1, 8))
    put_names(path, text)
    with pytest.raises(DkmError, match=r"dkm_deploy\.weights"):
        read_palettes(path)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        (ORDERS_KEY, '{"a": []}', "no order of blocks"),
        (ORDERS_KEY, '{"a": [0, 2]}', "no order of blocks"),
        (ORDERS_KEY, '{"a": [0, 2, 1]}', "two of its 3 gates"),
        (ORDERS_KEY, '{"a": 1}', r"dkm_deploy.orders'\['a'\] is 1; it must be a list"),
        (TRANSPOSED_KEY, '{"a": "yes"}', r"\['a'\] is 'yes'; it must be true or false"),
        (STACKED_KEY, '{"a": 2}', "no palette behind 2 dimensions of length 1"),
        (STACKED_KEY, '{"a": -1}', "no palette behind -1 dimensions"),
        (STACKED_KEY, '{"a": "1"}', r"\['a'\] is '1'; it must be an integer"),
        (SAME_KEY, '{"z": "y"}', "names 'y', which is not a palette"),
    ],
)
def test_damaged_layouts_are_refused(tmp_path, key, text, message):
    path = save(tmp_path / "m.mlpackage", mlp, (1, 8))
    put_names(path, text, key)
    with pytest.raises(DkmError, match=message):
        read_palettes(path)


def test_bytes_that_nothing_refers_to_are_named(tmp_path):
    path = save(tmp_path / "m.mlpackage", mlp, (1, 8))
    with (path / "Data/com.apple.CoreML/weights/weight.bin").open("ab") as file:
        file.write(bytes(5000))
    (path / "notes.txt").write_text("hello")
    found = ledger(path)
    sizes = {entry.name: entry.size_bytes for entry in found.entries}
    assert 5000 - ALIGNMENT <= sizes["(unreferenced)"] <= 5000
    assert sizes["notes.txt"] == 5
    assert found.total_bytes == size_on_disk(path)


def test_overlapping_weights_are_refused(tmp_path):
    path = save(tmp_path / "m.mlpackage", mlp, (1, 8))
    file = path / "Data/com.apple.CoreML/weights/weight.bin"
    data = bytearray(file.read_bytes())
    data[80:88] = (64 + ALIGNMENT + 1024).to_bytes(8, "little")
    file.write_bytes(data)
    with pytest.raises(DkmError, match=r"m\.mlpackage.*overlap"):
        ledger(path)
