"""Every form in which a file decodes a weight is read as the one palette that it stands for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper

from converters.onnx import target
from converters.onnx.decoding.builder import initializer, make_node
from converters.onnx.decoding.embedding_rows import encode_rows
from converters.onnx.decoding.encode import encode
from converters.onnx.decoding.encoding import Encoding
from converters.onnx.decoding.matmul_nbits import encode_product
from dkm_deploy.clustering.quantizers.int8_lut import round_lut
from dkm_deploy.palette import Palette
from tests.converters.onnx.models import messages


def palette_of(shape, bits=3, cluster_dim=1, axis=0, groups=(), dtype=np.float32, scale=None):
    random = np.random.default_rng(0)
    dims = list(shape)
    dims[axis] //= cluster_dim
    groups = groups or (1,) * len(shape)
    lut = random.normal(size=(*groups, 1 << bits, cluster_dim)).astype(dtype)
    return Palette(random.integers(0, 1 << bits, dims, dtype=np.uint8), lut, axis, scale=scale)


def saved(path: Path, *encodings: Encoding, nodes: Sequence[NodeProto] = ()) -> Path:
    """A file with what ``encodings`` have, whose caller gives ``x`` and ``ids``."""
    own, tensors = messages(*encodings)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "ids")]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph([*own, *nodes], "g", inputs, outputs, tensors)
    onnx.save(helper.make_model(graph, ir_version=8), path)
    return path


SCALES = np.linspace(1, 2, 8, dtype=np.float32).reshape(8, 1)
LAYOUTS = {
    "one LUT": {},
    "groups of rows": {"groups": (2, 1)},
    "groups of columns": {"groups": (1, 3)},
    "groups of both": {"groups": (4, 2)},
    "vectors along rows": {"cluster_dim": 2},
    "vectors along columns": {"cluster_dim": 3, "axis": 1},
    "vectors in groups": {"cluster_dim": 2, "axis": 1, "groups": (2, 1)},
    "vectors in groups along them": {"cluster_dim": 2, "axis": 1, "groups": (1, 3)},
    "256 entries": {"bits": 8},
    "256 entries in groups": {"bits": 8, "groups": (2, 1)},
    "two entries": {"bits": 1},
    "float16": {"dtype": np.float16},
    "float64": {"dtype": np.float64},
    "a scale": {"scale": SCALES},
    "vectors and a scale": {"scale": SCALES, "cluster_dim": 3, "axis": 1},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_matrix(tmp_path, layout):
    palette = palette_of((8, 6), **LAYOUTS[layout])
    read = target.read_palettes(saved(tmp_path / "m.onnx", encode("w", palette)))
    assert read == {"w": palette}
    assert read["w"].indices.dtype == np.uint8
    assert read["w"].axis == palette.axis


@pytest.mark.parametrize(
    ("shape", "axis", "cluster_dim", "groups"),
    [
        ((6,), 0, 1, (3,)),
        ((6,), 0, 2, (1,)),
        ((4, 6, 2), 2, 1, (1, 1, 2)),
        ((4, 6, 2), 1, 3, (2, 1, 1)),
        ((4, 6, 2), 2, 2, (1, 1, 1)),
        ((4, 4, 3, 3), 1, 2, (1, 2, 1, 1)),
    ],
)
def test_other_ranks(tmp_path, shape, axis, cluster_dim, groups):
    palette = palette_of(shape, 2, cluster_dim, axis, groups)
    grouped = next((dim for dim, count in enumerate(groups) if count > 1), 0)
    read = target.read_palettes(saved(tmp_path / "m.onnx", encode("w", palette)))["w"]
    assert read == palette
    assert read.axis == (axis if cluster_dim > 1 else grouped)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("layout", [{}, {"cluster_dim": 2, "axis": 1}, {"scale": SCALES}])
def test_rows_by_number_are_the_whole_weight(tmp_path, rank, layout):
    """Whatever the rank of the row numbers."""
    palette = palette_of((8, 16), 4, **layout)
    encoding = encode_rows("w", palette, ir.Value(name="ids"), rank, "rows", opset=18)
    assert target.read_palettes(saved(tmp_path / "m.onnx", encoding)) == {"w": palette}


def test_rows_used_twice_are_one_palette(tmp_path):
    palette = palette_of((8, 16), 4)
    encodings = [
        encode_rows("w", palette, ir.Value(name=ids), rank, f"of {ids}", opset=18)
        for ids, rank in (("ids", 1), ("x", 2))
    ]
    assert target.read_palettes(saved(tmp_path / "m.onnx", *encodings)) == {"w": palette}


@pytest.mark.parametrize("layout", [{}, {"cluster_dim": 3, "axis": 1}])
def test_a_transposed_weight_is_the_weight(tmp_path, layout):
    palette = palette_of((8, 6), **layout)
    encoding = encode("w", palette.transpose(), into="w.T")
    assert target.read_palettes(saved(tmp_path / "m.onnx", encoding)) == {"w": palette}


def test_a_weight_in_parts_is_the_weight(tmp_path):
    palette = palette_of((16, 8), 4)
    parts = [
        encode(
            "w",
            Palette(palette.indices[start : start + 8], palette.lut),
            into=f"w.part.{number}",
            part=f".part.{number}",
        )
        for number, start in enumerate((0, 8))
    ]
    assert target.read_palettes(saved(tmp_path / "m.onnx", *parts)) == {"w": palette}


@pytest.mark.parametrize("groups", [(1, 1), (4, 1)])
@pytest.mark.parametrize("size", [1, 1e-9], ids=["of usual size", "below float16"])
def test_a_weight_as_codes_is_the_weight(tmp_path, groups, size):
    free = palette_of((8, 64), 4, groups=groups)
    palette = Palette(free.indices, round_lut(free.lut * np.float32(size)))
    node = make_node("Gemm", [ir.Value(name="x"), ir.Value(name="w")], ["y"], transB=1)
    path = saved(tmp_path / "m.onnx", encode_product("w", palette, node))
    assert target.read_palettes(path) == {"w": palette}


def test_a_lut_may_be_stored_narrower_than_it_is_decoded(tmp_path):
    """The palette has the LUT as it is stored."""
    palette = palette_of((8, 6), dtype=np.float16)
    encoding = encode("w", palette, into="narrow")
    wide = helper.make_node("Cast", ["narrow"], ["w"], to=TensorProto.FLOAT)
    read = target.read_palettes(saved(tmp_path / "m.onnx", encoding, nodes=[wide]))["w"]
    assert read == palette
    assert read.lut.dtype == np.float16


def test_two_decodes_of_a_weight_that_agree_are_one_palette(tmp_path):
    palette = palette_of((8, 6))
    turned = encode("w", palette.transpose(), into="w.T", part=".turned")
    path = saved(tmp_path / "m.onnx", encode("w", palette), turned)
    assert target.read_palettes(path) == {"w": palette}


def test_several_weights_and_dense_ones_beside_them(tmp_path):
    first, second = palette_of((8, 6)), palette_of((4, 6), 2, 2, 1)
    dense = Encoding((), (initializer("dense", np.ones((4, 4), np.float32)),))
    path = saved(tmp_path / "m.onnx", encode("a", first), dense, encode("b.weight", second))
    assert target.read_palettes(path) == {"a": first, "b.weight": second}


def test_an_anchored_decode_is_read_with_its_anchor_at_zero(tmp_path):
    """``zero`` is 0 in every run, which the file shows by ``min(size, 0)``."""
    palette = palette_of((8, 6))
    path = saved(tmp_path / "m.onnx", encode("w", palette, zero=ir.Value(name="ids")))
    assert target.read_palettes(path) == {"w": palette}
